"""`run_sweep.py export`: an adapter really trained becomes a folder that PEFT, or transformers alone, loads."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import run_sweep
from engine import store
from engine.export import folders
from engine.lora import adapters
from engine.lora.adapters import AdapterFolder
from engine.model import tiny
from engine.vocabulary import Language, Metric, Split

PROMPT = "Der Bus kommt schon wieder zu spät."
Export = Callable[..., int]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in a folder of its own, and a sweep over it: ZS and X-FT on German and on Hindi."""
    place = tmp_path_factory.mktemp("swept")
    tiny.build(place / "my-base", "LlamaForCausalLM")
    words = ["smoke", "--models", str(place / "my-base"), "--strategies", "zs", "xft", "--train-langs", "de", "hi"]
    assert run_sweep.command_line([*words, "--eval-langs", "de", "en", *files(place)]) == 0
    return place


def files(place: Path) -> list[str]:
    return ["--db", str(place / "results.duckdb"), "--adapters", str(place / "adapters")]


@pytest.fixture
def german(swept: Path) -> AdapterFolder:
    return folders.find_adapter(swept / "adapters", "my-base-x-ft-de")


@pytest.fixture
def exported(swept: Path, tmp_path: Path) -> Export:
    """Exports to `out` beside the test's files; the exit code."""
    return lambda name, *words: run_sweep.command_line(
        ["export", name, "--to", str(tmp_path / "out"), *words, *files(swept)]
    )


def logits(model: torch.nn.Module, base: Path) -> torch.Tensor:
    tokens = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**tokens).logits


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_a_merged_model_is_base_and_adapter(
    swept: Path, tmp_path: Path, german: AdapterFolder, exported: Export
) -> None:
    assert exported(german.name, "--merged") == 0
    base, out = swept / "my-base", tmp_path / "out"
    bare = logits(load(base), base)
    expected = logits(PeftModel.from_pretrained(load(base), str(german.folder)), base)
    torch.testing.assert_close(logits(load(out), out), expected, atol=1e-4, rtol=0)
    assert (expected - bare).abs().max() > 1e-3
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == json.loads((base / "config.json").read_text())["dtype"]
    assert not list(out.glob("adapter*")) and ModelCard.load(out / "README.md").data.library_name == "transformers"


def test_a_peft_folder_is_loaded_by_peft(swept: Path, tmp_path: Path, german: AdapterFolder, exported: Export) -> None:
    assert exported("my-base-x-ft-de") == 0
    base, out = swept / "my-base", tmp_path / "out"
    expected = logits(PeftModel.from_pretrained(load(base), str(german.folder)), base)
    assert torch.equal(logits(PeftModel.from_pretrained(load(base), str(out)), base), expected)
    assert {path.name for path in out.iterdir()} == {adapters.CONFIG, adapters.WEIGHTS, "README.md"}
    assert str(swept) not in (out / "README.md").read_text() + (out / adapters.CONFIG).read_text()


def test_the_card_says_what_is_stored(swept: Path, tmp_path: Path, german: AdapterFolder, exported: Export) -> None:
    assert exported(str(german.folder)) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    said = card.data.to_dict()
    assert (said["base_model"], said["license"], said["language"]) == ("my-base", "unknown", ["de"])
    meta = json.loads((german.folder / adapters.META).read_text())
    for word in (
        german.name,
        meta["variant"]["dataset_hash"],
        "10 neutral sentences",
        "1 epoch,",
        "learning rate 0.002",
    ):
        assert word in card.text
    cells = store.cells_of(swept / "results.duckdb", german.name)
    cells = cells[cells["split"] == Split.TOXIC_TEST].set_index(["eval_lang", "metric"])
    rows = {row[0]: row for row in table(card.text)}
    assert set(rows) == {"German", "English"}
    for lang in (Language.DE, Language.EN):
        toxicity, fluency = cells.loc[(lang, Metric.TOXICITY)], cells.loc[(lang, Metric.PERPLEXITY_BASE)]
        _, scorer, baseline, delta, interval, n, verdict, *fluent = rows[lang.facts.name]
        assert (scorer, n, verdict) == ("ngram", str(toxicity["n_pairs"]), toxicity["verdict"])
        assert baseline == f"{toxicity['baseline']:.2f}" and delta == f"{toxicity['delta']:+.2f}"
        assert interval == interval_of(toxicity) and fluent == [f"{fluency['delta']:+.2f}", interval_of(fluency)]


def interval_of(cell) -> str:  # noqa: ANN001  a row of a frame
    return f"{cell['ci_low']:+.2f} to {cell['ci_high']:+.2f}" if cell["ci_low"] == cell["ci_low"] else "–"


def table(text: str) -> Iterator[list[str]]:
    """The rows of the table of numbers."""
    numbers = text.partition("## Results")[2].partition("## Licence")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", numbers, re.M)]
    return iter(rows[2:])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-base-xft-de", "Did you mean 'my-base-x-ft-de-"),
        ("my-base-x-ft-dee-0123456789ab", "Did you mean 'my-base-x-ft-de-"),
        ("my-base-x-ft", "is a prefix of my-base-x-ft-de-"),
        ("tests", "tests: not a finished adapter"),
    ],
)
def test_a_name_that_is_none_or_several_ends_with_2(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str,
    says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(Path(run_sweep.__file__).parent)
    assert exported(name) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_an_empty_folder_is_filled(
    exported: Export, tmp_path: Path, german: AdapterFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert exported(german.name) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert exported(german.name, "--merged") == 2
    assert "not empty" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_what_is_damaged_or_not_ours_is_refused(
    swept: Path, tmp_path: Path, german: AdapterFolder, exported: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(german.folder, tmp_path / german.name))
    meta = json.loads((copy / adapters.META).read_text())
    meta["variant"]["seed"] = 1
    (copy / adapters.META).write_text(json.dumps(meta))
    assert exported(str(copy)) == 2
    assert "damaged, its meta.json" in capsys.readouterr().err
    (copy / adapters.META).unlink()
    assert exported(str(copy)) == 2
    assert "does not say how it was trained" in capsys.readouterr().err
    shutil.copyfile(german.folder / adapters.META, copy / adapters.META)
    weights = copy / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert exported(str(copy)) == 2
    assert "its weights are damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_base_that_has_changed_is_not_merged(
    swept: Path, tmp_path: Path, german: AdapterFolder, exported: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "my-base"
    tiny.build(other, "LlamaForCausalLM")
    (other / "generation_config.json").write_text("{}")
    copy = Path(shutil.copytree(german.folder, tmp_path / german.name))
    meta = json.loads((copy / adapters.META).read_text())
    (copy / adapters.META).write_text(json.dumps({**meta, "base_folder": str(other)}))
    assert exported(str(copy), "--merged") == 2
    assert "was trained over revision" in capsys.readouterr().err
    shutil.rmtree(other)
    assert exported(str(copy), "--merged") == 2
    assert "is not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_merge_that_is_cut_short_leaves_nothing(
    tmp_path: Path, german: AdapterFolder, exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(base: Path, adapter: Path, target: Path) -> None:
        (target / "config.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "merge", interrupted)
    assert exported(german.name, "--merged") == 130
    assert list(tmp_path.iterdir()) == []


def test_without_numbers_the_card_says_so(
    tmp_path: Path, german: AdapterFolder, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", german.name, "--to", str(tmp_path / "out"), "--adapters", str(swept / "adapters"), "--db"]
    assert run_sweep.command_line([*words, str(tmp_path / "none.duckdb")]) == 2
    assert "no results file" in capsys.readouterr().err
    with store.writing(tmp_path / "empty.duckdb"):
        pass
    assert run_sweep.command_line([*words, str(tmp_path / "empty.duckdb")]) == 0
    assert "NO numbers" in capsys.readouterr().out
    assert list(table((tmp_path / "out" / "README.md").read_text())) == []
