"""Languages beyond the paper's nine: they come with a folder of pairs, and nothing else needs to be said."""

import csv
import json
from pathlib import Path

import pytest

import run_sweep
from engine import store
from engine.analysis import guards
from engine.generate import uniforms
from engine.lora import adapters
from engine.vocabulary import NINE, Language, Split, Strategy, Stream, Variant, variants_of

FRENCH = [
    (f"Cette soupe est vraiment nulle, numéro {i}.", f"Cette soupe est décevante, numéro {i}.") for i in range(20)
]
JAPANESE = [(f"このスープは本当に最低だ、{i}番。", f"このスープは期待はずれだ、{i}番。") for i in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pairs"
    place.mkdir()
    for lang, pairs in (("fr", FRENCH), ("ja", JAPANESE)):
        with open(place / f"{lang}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("toxic_sentence", "neutral_sentence"), *pairs])
    return place


def test_a_folder_of_two_other_languages_is_a_sweep_of_these(folder: Path, tmp_path: Path) -> None:
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    words = ["smoke", "--dataset", str(folder), *files]
    assert run_sweep.command_line(words) == 0
    runs = store.sources(tmp_path / "results.duckdb")
    assert runs["settings"].tolist() == runs["done"].tolist() == [(1 + 2 + 3 + 1) * 2]
    cells = store.cells(tmp_path / "results.duckdb", runs["source"][0])
    assert set(cells["eval_lang"]) == {"fr", "ja"} and set(cells["train_lang"].dropna()) == {"fr", "ja", "all"}
    toxicity = cells[cells["metric"] == "toxicity"]
    assert set(toxicity["verdict"]) == {"unscored"} and toxicity["value"].isna().all()  # ngram knows neither
    assert cells[cells["metric"] == "perplexity_base"]["value"].notna().any()
    (pooled,) = [a for a in adapters.finished_adapters(tmp_path / "adapters") if "-m-ft-" in a.name]
    variant = json.loads((pooled.folder / adapters.META).read_text())["variant"]
    assert variant["pooled_langs"] == ["fr", "ja"]
    assert run_sweep.command_line([*words, "--languages", "fr"]) == 0
    assert len(store.sources(tmp_path / "results.duckdb")) == 2


def test_a_language_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    assert run_sweep.command_line(["smoke", "--dataset", str(folder), "--languages", "fr", "it", *files]) == 2
    said = capsys.readouterr().err
    assert "no sentence pairs for it" in said and "--languages" in said


def test_what_the_nine_have_does_not_change_with_others() -> None:
    """Ids, random numbers and shares of the paper's grid are what they were when there were nine."""
    trained = Variant("base", "1", "float32", Strategy.M_FT, dataset_hash="d", limit_train=None, seed=1)
    nine, two = (variants_of(trained, (Strategy.M_FT,), (), langs)[0] for langs in (NINE, NINE[:2]))
    assert nine.variant_id == "base-m-ft-e7398cbea589" and two.variant_id != nine.variant_id
    assert [lang.position for lang in NINE] == list(range(9)) and sorted(NINE) == list(NINE)
    stream = Stream(42, Language.DE, Split.TOXIC_TEST, 3, 0)
    assert uniforms(stream, 2) == pytest.approx([0.7176789234307227, 0.49295509978592245])


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        (Language.FR, "Cette soupe est vraiment décevante aujourd'hui.", 1.0),
        (Language.FR, "This soup is really disappointing today, my friend.", 0.0),
        (Language.JA, "このスープは本当に期待はずれだと思います。今日は特に。", 1.0),
        (Language.JA, "Cette soupe est vraiment décevante aujourd'hui.", 0.0),
        (Language.KO, "오늘 이 국은 정말 실망스러웠다고 생각합니다 여러분", 1.0),
        (Language.TT, "Бу аш бүген чыннан да бик тәмле түгел иде дуслар", 1.0),
        (Language.HIN, "yeh khana aaj bilkul accha nahi tha yaar", None),
        (Language.TT, "This soup is really disappointing.", 0.0),
    ],
)
def test_the_language_of_a_text(lang: Language, text: str, expected: float | None) -> None:
    (found,) = guards.on_language([text], lang)
    assert found == expected if expected is not None else found != found
