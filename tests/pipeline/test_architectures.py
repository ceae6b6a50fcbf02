"""Every architecture the whole way through `run_sweep.py`: trained, generated, scored, and made into cells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import tyro
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import run_sweep
from engine import store
from engine.model.loading import LoadedBase
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
    assert len(store.represented_variants(db, run_id)) == 3
    written = [store.completions(db, run_id, lang) for lang in (Language.DE, Language.ZH)]
    assert all(found["completion"].str.strip().ne("").any() for found in written)
    capsys.readouterr()
    assert swept(tmp_path, base) == 0
    assert "loading" not in capsys.readouterr().out  # nothing was left to do


AROUND = {
    "BloomForCausalLM": ([], []),
    "CohereForCausalLM": (["<BOS_TOKEN>"], []),
    "Gemma3ForCausalLM": (["<bos>"], []),
    "LlamaForCausalLM": (["<s>"], []),
    "Qwen3ForCausalLM": ([], []),
    ENCODER_DECODER: ([], ["</s>"]),
}
"""What the tokenizers put before and after a text."""


@pytest.mark.parametrize("architecture", EVERY)
def test_tokenizers_pad_on_the_left_and_open_and_close_as_the_real_ones_do(
    load_tiny: Callable[..., LoadedBase], architecture: str
) -> None:
    loaded, (before, after) = load_tiny(architecture), AROUND[architecture]
    tokenizer: Any = loaded.tokenizer
    opening, closing = (tokenizer.convert_tokens_to_ids(tokens) for tokens in (before, after))
    bare = tokenizer("Guten Tag.", add_special_tokens=False)["input_ids"]
    assert tokenizer("Guten Tag.")["input_ids"] == [*opening, *bare, *closing]
    assert loaded.opening_ids == [*opening, *closing]
    assert tokenizer.eos_token_id in loaded.end_ids
    is_cohere = architecture == "CohereForCausalLM"
    assert (tokenizer.get_added_vocab().get("<EOS_TOKEN>", -1) in loaded.end_ids) == is_cohere
    padded = tokenizer(["Guten Tag.", "Guten Tag. Guten Tag."], padding=True)["input_ids"]
    assert padded[0][0] == tokenizer.pad_token_id and padded[0][-len(closing) - 1] == bare[-1]


def test_gap_markers_of_mt5_are_no_special_tokens_and_stay_in_the_text(load_tiny: Callable[..., LoadedBase]) -> None:
    tokenizer: Any = load_tiny(ENCODER_DECODER).tokenizer
    word = tokenizer("Tag", add_special_tokens=False)["input_ids"]
    written = [tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("▁<extra_id_0>"), *word, tokenizer.eos_token_id]
    assert tokenizer.decode(written, skip_special_tokens=True).split() == ["<extra_id_0>", "Tag"]


@pytest.fixture(scope="module")
def rewriting(tiny_folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of an encoder-decoder in one language."""
    folder = tmp_path_factory.mktemp("rewriting")
    assert swept(folder, tiny_folders(ENCODER_DECODER), "--eval-langs", "de") == 0
    return folder


def test_an_encoder_decoder_learns_to_rewrite_and_writes_the_same_again(
    tiny_folders: Callable[[str], Path], rewriting: Path
) -> None:
    """Its adapters are of another training format, and of PEFT's task for it. Units that are lost are written again, to
    the same text and the same likelihoods."""
    db = rewriting / "results.duckdb"
    configs = list(rewriting.glob("adapters/*/*/adapter_config.json"))
    assert len(configs) == 2
    for config in configs:
        assert '"task_type": "SEQ_2_SEQ_LM"' in config.read_text()
        assert "toxic to neutral sentence" in config.with_name("meta.json").read_text()
    run_id = store.sources(db)["source"][0].removeprefix("run:")
    before = store.completions(db, run_id, Language.DE)
    with store.writing(db) as connection:
        connection.execute("DELETE FROM units")
        connection.execute("UPDATE completions SET completion = '', nll_self = 0, nll_base = 0, nll_neutral = 0")
    assert swept(rewriting, tiny_folders(ENCODER_DECODER), "--eval-langs", "de") == 0
    pd.testing.assert_frame_equal(store.completions(db, run_id, Language.DE), before)
    assert before[["nll_self", "nll_base", "nll_neutral"]].gt(0).any().all()


def test_an_encoder_decoder_is_exported_as_one_model_with_a_head_of_its_own(
    tiny_folders: Callable[[str], Path], rewriting: Path, tmp_path: Path
) -> None:
    base = tiny_folders(ENCODER_DECODER)
    (adapter,) = rewriting.glob("adapters/*/*x-ft-de*")
    files = ["--db", str(rewriting / "results.duckdb"), "--to", str(tmp_path / "out")]
    assert run_sweep.command_line(["export", str(adapter), "--merged", *files]) == 0
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    whole: Any = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), str(adapter)).eval()
    ids = {"input_ids": torch.tensor([[20, 21, 22, 1]]), "decoder_input_ids": torch.tensor([[0, 30, 31]])}
    with torch.no_grad():
        torch.testing.assert_close(merged(**ids).logits, whole(**ids).logits, atol=1e-4, rtol=0)
    assert not torch.equal(merged.lm_head.weight, merged.shared.weight)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out")]
    assert (
        tokenizers[0]("Guten Tag. <extra_id_0>")["input_ids"] == tokenizers[1]("Guten Tag. <extra_id_0>")["input_ids"]
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "toxic and neutral German sentences" in card and "10 toxic sentences with their neutral rewrites" in card
