"""Completions found one by one: filters, search in any script, orders, pages."""

from pathlib import Path
from shutil import copy

import pandas as pd
import pytest

from engine import store
from engine.analysis.metrics import cells as make_cells
from engine.store import browse
from engine.store.browse import Change, Filters, Key, Order
from engine.vocabulary import Language, Score, Status, Variant

LANG = Language.DE
SPLIT = "toxic-test"
ZS_TEXTS = ["Die Suppe", "100 % gut", "", "ganz gleich", "ungelesen"]
ZS_SCORES = [0.9, 0.2, None, 0.5, 0.4]
TEXTS = ["هذا الحساء بارد 🍲", "100 x gut", 'it\'s "so" a_b', "ganz gleich", "  \n"]
SCORES = [0.1, 0.6, 0.3, 0.5, None]


@pytest.fixture(scope="module")
def three(variants: list[Variant]) -> list[Variant]:
    """ZS and two others."""
    return variants[:3]


def unit(rows: list[tuple[Variant, int, str]]) -> pd.DataFrame:
    """Variant, prompt_index and text of completions as `store.put_unit` takes them."""
    found = [(variant.variant_id, LANG.value, SPLIT, i, 0, text, 2, 3.0, 3.0) for variant, i, text in rows]
    return pd.DataFrame(found, columns=[*store.COMPLETION_KEY, "completion", "n_tokens", "nll_self", "nll_base"])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, three: list[Variant]) -> Path:
    """Two finished variants of five prompts in German, and a third that is still running."""
    path = tmp_path_factory.mktemp("browse") / "results.duckdb"
    zero_shot, tuned, running = three
    run = {"run_id": "a", "sweep": "demo", "dataset": "sample", "dataset_hash": "d", "seed": 1, "plan": "{}"}
    prompts = pd.DataFrame(
        [(LANG.value, SPLIT, i, f"Satz {i}") for i in range(5)],
        columns=["eval_lang", "split", "prompt_index", "sentence"],
    )
    store.put_plan(path, run, three, (LANG,), prompts)
    written = ((zero_shot, ZS_TEXTS), (tuned, TEXTS), (running, ["unfertig"] * 5))
    rows = [(variant, i, text) for variant, texts in written for i, text in enumerate(texts)]
    store.put_unit(path, "a", "u", unit(rows))
    store.put_scorer(path, "a", "ngram", "2", {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 3, "n_test": 3})
    known = dict(zip([*ZS_TEXTS, *TEXTS], [*ZS_SCORES, *SCORES], strict=True))
    scores = [Score(value) if value is not None else Score(None, "empty") for value in known.values()]
    store.put_scores(path, "ngram", "2", LANG, list(known), scores)
    store.put_scores(path, "ngram", "1", LANG, ["ganz gleich"], [Score(0.99)])
    values = pd.DataFrame(
        (v.variant_id, SPLIT, metric, scorer, i, value)
        for v in (zero_shot, tuned)
        for i in range(5)
        for metric, scorer, value in (("toxicity", "ngram", 0.1), ("empty_rate", "", float(v is zero_shot)))
    )
    values.columns = pd.Index(["variant_id", "split", "metric", "scorer", "prompt_index", "value"])
    store.put_cells(path, "a", LANG, make_cells(values, zero_shot.variant_id))
    assert set(store.statuses(path, "a")["status"]) == {Status.DONE, Status.PLANNED}
    return path


@pytest.fixture
def db(tmp_path: Path, filled: Path) -> Path:
    """A copy of its own for every test."""
    return Path(copy(filled, tmp_path))


def found(db: Path, order: Order = Order.PROMPT, first: int = 0, size: int = 100, **wanted: object) -> list[str]:
    """The completions that are found; as many of them as are counted."""
    asked = Filters("a", "ngram", **wanted)  # type: ignore[arg-type]
    rows = browse.rows(db, asked, order, first, size)
    assert list(rows.columns) == browse.COLUMNS
    if (first, size) == (0, 100):
        assert len(rows) == browse.count(db, asked)
    return rows["completion"].tolist()


def test_all_of_what_is_finished_is_found_by_prompt(db: Path) -> None:
    assert sorted(found(db)) == sorted([*ZS_TEXTS, *TEXTS])
    assert set(found(db)[:2]) == {ZS_TEXTS[0], TEXTS[0]}
    assert browse.count(db, Filters("b", "ngram")) == 0


def test_filters_by_variant_language_and_split(db: Path, three: list[Variant]) -> None:
    assert found(db, variant_ids=(three[1].variant_id,)) == TEXTS
    assert found(db, variant_ids=(three[2].variant_id,)) == []
    assert len(found(db, eval_lang="de", split=SPLIT)) == 10
    assert found(db, eval_lang="en") == found(db, split="toxic-train") == []


def test_a_completion_stands_beside_zero_shot(db: Path, three: list[Variant]) -> None:
    rows = browse.rows(db, Filters("a", "ngram", (three[1].variant_id,)), Order.PROMPT, 0, 9)
    assert rows["sentence"].tolist() == [f"Satz {i}" for i in range(5)]
    assert rows["completion_zs"].tolist() == ZS_TEXTS
    assert set(rows["zero_shot"]) == {three[0].variant_id}
    assert rows["toxicity"].fillna(-1).tolist() == [0.1, 0.6, 0.3, 0.5, -1]
    assert rows["toxicity_zs"].fillna(-1).tolist() == [0.9, 0.2, -1, 0.5, 0.4]
    assert rows["reason"].iloc[4] == rows["reason_zs"].iloc[2] == "empty"
    assert rows["verdict_reason"].isna().all()
    alone = browse.rows(db, Filters("a", "ngram", (three[0].variant_id,)), Order.PROMPT, 0, 9)
    assert alone[["zero_shot", "completion_zs", "toxicity_zs"]].isna().all(axis=None)
    assert alone["verdict_reason"].str.startswith("empty output").all()


def test_a_score_that_is_not_there_is_in_no_range(db: Path) -> None:
    assert sorted(found(db, toxicity=(0.0, 1.0))) == sorted(t for t in [*ZS_TEXTS, *TEXTS] if t.strip())
    assert sorted(found(db, toxicity=(0.3, 0.5))) == sorted([TEXTS[2], "ganz gleich", "ganz gleich", "ungelesen"])


def test_what_became_of_a_completion(db: Path) -> None:
    assert found(db, change=Change.IMPROVED) == [TEXTS[0]]
    assert found(db, change=Change.WORSENED) == [TEXTS[1]]
    assert sorted(found(db, change=Change.DEGENERATE)) == sorted([*ZS_TEXTS, TEXTS[4]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%", ["100 % gut"]),
        ("_", [TEXTS[2]]),
        ("'", [TEXTS[2]]),
        ('"so"', [TEXTS[2]]),
        (".", []),
        ("الحساء", [TEXTS[0]]),
        ("🍲", [TEXTS[0]]),
        ("SUPPE", ["Die Suppe"]),
        ("100 X", ["100 x gut"]),
        ("satz 3", ["ganz gleich", "ganz gleich"]),
        ("Complete the", []),
    ],
)
def test_search_takes_every_character_as_it_is(db: Path, text: str, expected: list[str]) -> None:
    assert found(db, text=text) == expected


@pytest.mark.parametrize("stored", ["\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"])
@pytest.mark.parametrize("asked", ["\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"])
def test_search_finds_either_spelling(db: Path, three: list[Variant], stored: str, asked: str) -> None:
    store.put_unit(db, "a", "v", unit([(three[1], 0, f"Caf{stored}")]))
    assert found(db, text=f"CAF{asked}".upper()) == [f"Caf{stored}"]


def test_orders_put_what_has_no_number_last(db: Path, three: list[Variant]) -> None:
    tuned = (three[1].variant_id,)
    assert found(db, Order.IMPROVED, variant_ids=tuned) == [TEXTS[i] for i in (0, 3, 1, 2, 4)]
    assert found(db, Order.WORSENED, variant_ids=tuned) == [TEXTS[i] for i in (1, 3, 0, 2, 4)]
    assert found(db, Order.MOST_TOXIC, variant_ids=tuned) == [TEXTS[i] for i in (1, 3, 2, 0, 4)]
    assert found(db, Order.LEAST_TOXIC, variant_ids=tuned) == [TEXTS[i] for i in (0, 2, 3, 1, 4)]


@pytest.mark.parametrize("order", list(Order))
def test_pages_follow_each_other(db: Path, order: Order) -> None:
    whole = found(db, order)
    assert [text for first in (0, 4, 8) for text in found(db, order, first, 4)] == whole
    assert found(db, order, 12, 4) == []


def test_one_completion_by_its_key(db: Path, three: list[Variant]) -> None:
    key = Key(three[1].variant_id, "de", SPLIT, 1, 0)
    assert browse.completion(db, "a", "ngram", key)["completion"].tolist() == ["100 x gut"]
    assert browse.completion(db, "a", "ngram", Key(three[2].variant_id, "de", SPLIT, 1, 0)).empty
    assert browse.completion(db, "a", "ngram", Key(three[1].variant_id, "de", SPLIT, 1, 7)).empty


def test_a_run_that_nobody_judged_can_be_read(db: Path) -> None:
    rows = browse.rows(db, Filters("a", ""), Order.IMPROVED, 0, 100)
    assert len(rows) == 10
    assert rows[["toxicity", "toxicity_zs"]].isna().all(axis=None)
