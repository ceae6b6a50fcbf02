"""Every architecture the whole way through `run_sweep.py`: trained, generated, scored, and made into cells."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

import run_sweep
from engine import store
from engine.vocabulary import Language
from tests.pipeline.conftest import ENCODER_DECODER, PAPER

EVERY = (*PAPER, "LlamaForCausalLM", "Qwen3ForCausalLM")
WORDS = ["smoke", "--strategies", "zs", "xft", "--train-langs", "de", "hi", "--eval-langs", "de", "zh"]


def swept(folder: Path, base: Path, *words: str) -> int:
    """`run_sweep.py smoke` with a base of ours, in this process."""
    files = ["--db", str(folder / "results.duckdb"), "--adapters", str(folder / "adapters")]
    return int(tyro.cli(run_sweep.main, args=[*WORDS, "--models", str(base), *files, *words]))


@pytest.mark.parametrize("architecture", EVERY)
def test_a_sweep_of_every_architecture(
    tiny_folders: Callable[[str], Path], tmp_path: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_folders(architecture)
    assert swept(tmp_path, base, "--represent") == 0
    db = tmp_path / "results.duckdb"
    (source,) = store.sources(db)["source"]
    cells, run_id = store.cells(db, source), source.removeprefix("run:")
    assert len(store.settings(db, run_id)) == 6
    assert store.settings(db, run_id)["status"].eq("done").all()
    for metric, splits in (("toxicity", 3), ("perplexity_self", 3), ("perplexity_base", 3), ("perplexity_neutral", 1)):
        found = cells[cells["metric"] == metric]
        assert len(found) == 6 * splits
        assert found["n_valid"].gt(0).any()
        assert (found["n_valid"].gt(0) == found["value"].notna()).all()
    assert len(store.represented(db, run_id)) == 3
    written = [store.completions(db, run_id, lang) for lang in (Language.DE, Language.ZH)]
    assert all(found["completion"].str.strip().ne("").any() for found in written)
    capsys.readouterr()
    assert swept(tmp_path, base) == 0
    assert "loading" not in capsys.readouterr().out  # nothing was left to do


def test_an_encoder_decoder_learns_to_rewrite(tiny_folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Its adapters are of another training format, and of PEFT's task for it."""
    base = tiny_folders(ENCODER_DECODER)
    assert swept(tmp_path, base, "--eval-langs", "de") == 0
    configs = list(tmp_path.glob("adapters/*/*/adapter_config.json"))
    assert len(configs) == 2
    for config in configs:
        assert '"task_type": "SEQ_2_SEQ_LM"' in config.read_text()
        assert "toxic to neutral sentence" in config.with_name("meta.json").read_text()


def test_a_sweep_over_4_bit_weights_is_another_one(tiny_folders: Callable[[str], Path], tmp_path: Path) -> None:
    base, ids = tiny_folders("CohereForCausalLM"), []
    for words in ([], ["--quantization", "nf4"]):
        assert swept(tmp_path, base, "--strategies", "zs", "--eval-langs", "de", *words) == 0
        newest = store.sources(tmp_path / "results.duckdb")["source"].iloc[0].removeprefix("run:")
        ids.append(set(store.settings(tmp_path / "results.duckdb", newest)["variant_id"]))
        written = store.completions(tmp_path / "results.duckdb", newest, Language.DE)["completion"]
        assert len(written) == 6
    assert len(ids[0] | ids[1]) == 2
