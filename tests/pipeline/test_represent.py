"""Sentence embeddings: equal to plain PEFT's one sentence at a time, and added to a run without changing it."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import tyro
from rich.console import Console

from engine import store
from engine.config import SWEEPS
from engine.data import dataset
from engine.data.splits import split
from engine.embed import represent
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase
from engine.sweep import plan, run
from engine.sweep.options import Options
from engine.vocabulary import Hyperparameters, Language
from run_sweep import _run as carry_out
from run_sweep import main
from tests.pipeline.conftest import ARCHITECTURES
from tests.pipeline.test_generate import stack_of
from tests.pipeline.test_sweep import own_files, query

Load = Callable[..., LoadedBase]
TABLES = ("representations", "similarities", "silhouettes", "distances", "points")


def sentences(n: int) -> list[str]:
    """Of several scripts and lengths, out of order."""
    sample = dataset.load("sample")
    langs = [Language.EN, Language.ZH, Language.AM, Language.AR]
    return [sample.test[langs[i % 4]][i].toxic + " so" * (7 * i % 11) for i in range(n)]


def plainly(model: Any, loaded: LoadedBase, sentence: str, layer: int) -> np.ndarray:
    """Hugging Face's hidden states of one sentence, alone and unpadded, averaged without opening and closing token."""
    ids = loaded.tokenizer(sentence, return_tensors="pt")["input_ids"].to(loaded.device)
    reads = model.get_encoder() if loaded.base.is_encoder_decoder else model
    with torch.no_grad():
        hidden = reads(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
    is_own = ~torch.isin(ids[0], torch.tensor(loaded.opening_ids, dtype=torch.long, device=loaded.device))
    assert len(is_own) - is_own.sum() == len(loaded.opening_ids)
    found: np.ndarray = hidden[is_own].mean(0).cpu().numpy()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [represent.LAST_LAYER, 1])
def test_embeddings_equal_one_by_one_peft(
    load_tiny: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, layer: int
) -> None:
    loaded = load_tiny(architecture)
    stack = stack_of(loaded)
    monkeypatch.setattr(represent, "TOKENS_PER_PASS", 400)  # so that there are several passes, of several sentences
    names, n, counted = ["b", None, "a"], 8, []
    found = represent.embed(loaded, stack, sentences(n), names, counted.append, layer)
    assert found.shape == (3, n, 32) and found.dtype == np.float32
    assert sum(counted) == 3 * n and 1 < len(counted) < n
    for number, name in enumerate(names):
        plain = load_tiny(architecture)
        model: Any = plain.model
        if name:
            (tmp_path / name).mkdir()
            stack.save(name, tmp_path / name, "base")
            model = peft.PeftModel.from_pretrained(plain.model, str(tmp_path / name)).eval()
        for row, sentence in enumerate(sentences(n)):
            np.testing.assert_allclose(found[number, row], plainly(model, plain, sentence, layer), atol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 0.01


def test_an_adapter_that_is_not_there_is_no_base(load_tiny: Load) -> None:
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    stack.create("a", Hyperparameters(rank=4), 0)
    with pytest.raises(KeyError):
        represent.embed(loaded, stack, ["Guten Tag."], ["misspelt"])


def test_the_text_is_both_sides_of_both_parts_within_the_limits() -> None:
    sample = dataset.load("sample")
    langs = (Language.DE, Language.ZH)
    found = represent.sentences(split(sample.train, sample.test, 10, 2), langs)
    assert found.groupby(["eval_lang", "part", "side"]).size().to_dict() == {
        (lang, part, side): 10 if part == "train" else 2
        for lang in ("de", "zh")
        for part in ("train", "test")
        for side in ("toxic", "neutral")
    }
    last = found.query("eval_lang == 'zh' and part == 'test' and side == 'neutral' and sentence_index == 1")
    assert last["sentence"].item() == sample.test[Language.ZH][1].neutral


def carried_out(folder: Path, represents: bool = False) -> str:
    """A small run of smoke in `folder`, through `run_sweep.py`'s own function; what it said."""
    options = Options(
        strategies=("zs", "xft", "mft"), train_langs=("de",), eval_langs=("de", "zh"), represent=represents
    )
    files = {"db": folder / "results.duckdb", "adapters": folder / "adapters"}
    said = io.StringIO()
    made = plan.make(replace(options.applied_to(SWEEPS["smoke"]), **files))
    assert carry_out(Console(file=said), made, run.scorers_of(made)) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without embeddings, in a folder that nobody changes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    folder.mkdir()
    carried_out(folder)
    return folder


@pytest.fixture(scope="module")
def represented(finished: Path) -> Path:
    """The same run, with embeddings added to it afterwards; nobody changes it either."""
    folder = finished.with_name("represented")
    shutil.copytree(finished, folder)
    said = carried_out(folder, represents=True)
    assert "loading" in said and "mean silhouette of the languages' sentences: ZS" in " ".join(said.split())
    return folder


def stored(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: query(folder, f"SELECT * FROM run_{name} ORDER BY ALL") for name in TABLES}


def test_a_finished_run_takes_embeddings_and_stays_the_same_run(finished: Path, represented: Path) -> None:
    for table in ("runs", "run_settings", "completions", "units", "run_cells"):
        before, after = (query(folder, f"SELECT * FROM {table} ORDER BY ALL") for folder in (finished, represented))
        pd.testing.assert_frame_equal(after, before)
    assert all(table.empty for table in stored(finished).values())
    found = stored(represented)
    assert {name: len(table) for name, table in found.items()} == {
        "representations": 3,
        "similarities": 3 * 8 * 9 // 2,
        "silhouettes": 3 * 2 * 3 * 2,
        "distances": 3 * 3 * 2,
        "points": 3 * 2 * 2 * (10 + 2),
    }
    assert found["representations"]["n_sentences"].eq(2 * 2 * (10 + 2)).all()
    assert found["similarities"]["similarity"].between(-1, 1).all()
    assert found["silhouettes"]["silhouette"].between(-1, 1).all()


def test_the_same_command_again_adds_nothing_and_a_lost_variant_is_added_alone(
    represented: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(represented, folder)
    first = stored(folder)
    assert "loading" not in carried_out(folder, represents=True)
    for name, table in stored(folder).items():
        pd.testing.assert_frame_equal(table, first[name])
    lost = first["representations"]["variant_id"].iloc[-1]
    with store.writing(folder / "results.duckdb") as connection:
        for name in TABLES:
            connection.execute(f"DELETE FROM run_{name} WHERE variant_id = ?", [lost])
    carried_out(folder, represents=True)
    for name, table in stored(folder).items():
        is_other = table["variant_id"] != lost
        pd.testing.assert_frame_equal(table[is_other], first[name][is_other])
        numbers = table.select_dtypes("number").columns
        np.testing.assert_allclose(table[numbers], first[name][numbers], atol=1e-4)  # other company, other rounding


def test_a_dry_run_says_what_it_would_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    command = ["smoke", *own_files(tmp_path), "--strategies", "mft", "--eval-langs", "de", "zh", "--dry-run"]
    assert tyro.cli(main, args=command) == 0
    assert "embeddings" not in capsys.readouterr().out
    assert tyro.cli(main, args=[*command, "--represent"]) == 0
    assert "48 (sentences × variants)" in capsys.readouterr().out
