"""Bases that would give wrong numbers in silence are refused by name, before anything starts, with a way out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import run_sweep

WEIGHTS = "model.safetensors"


def change_config(folder: Path, **words: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **words}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def without_layer(folder: Path) -> None:
    change_weights(folder, lambda w: {k: v for k, v in w.items() if "layers.1.mlp.up_proj" not in k})


def compiled(folder: Path) -> None:
    change_weights(folder, lambda w: {f"_orig_mod.{k}": v for k, v in w.items()})


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def without_tokenizer(folder: Path) -> None:
    for path in [*folder.glob("tokenizer*"), *folder.glob("special_tokens*")]:
        path.unlink()


def larger_tokenizer(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra-{i}>" for i in range(5)])
    tokenizer.save_pretrained(folder)


def quantised(method: str) -> Callable[[Path], None]:
    return lambda folder: change_config(folder, quantization_config={"quant_method": method, "bits": 4})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_layer, "1 weight is not in"),
        (compiled, "saved from a model under torch.compile"),
        (cut, "cannot be loaded"),
        (pointer, "a pointer of Git LFS"),
        (adapter, "has an adapter in it"),
        (without_tokenizer, "no tokenizer"),
        (larger_tokenizer, "tokens, and the base has embeddings for"),
        (quantised("gptq"), "its weights are quantised (gptq)"),
        (quantised("bitsandbytes"), "its weights are quantised (bitsandbytes)"),
        (quantised("fp8"), "its weights are quantised (fp8)"),
        (lambda folder: change_config(folder, hidden_size=64), "do not match its config.json"),
        (lambda folder: change_config(folder, architectures=["LlamaForSequenceClassification"]), "no causal language"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_a_faulty_base_is_refused_before_anything_starts(
    tiny_folders: Callable[[str], Path],
    tmp_path: Path,
    damage: Callable[[Path], None],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_folders("LlamaForCausalLM"), folder)
    damage(folder)
    files = ["--db", str(tmp_path / "out" / "results.duckdb"), "--adapters", str(tmp_path / "out" / "adapters")]
    assert run_sweep.command_line(["smoke", "--models", str(folder), *files]) == 2
    error = capsys.readouterr().err
    assert says in error and str(folder) in error.replace("\n", "") or "base:" in error
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_numbers_are_named(
    tiny_folders: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_folders("LlamaForCausalLM"), folder)

    def damage(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["model.norm.weight"][0] = float("nan")
        return weights

    change_weights(folder, damage)
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    assert run_sweep.command_line(["smoke", "--models", str(folder), *files]) == 1
    assert "its logits are not numbers" in capsys.readouterr().out


def test_a_config_that_names_no_architecture_is_known_by_its_model_type(
    tiny_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_folders("LlamaForCausalLM"), folder)
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    words = ["smoke", "--models", str(folder), "--strategies", "zs", "--eval-langs", "de", *files]
    assert run_sweep.command_line(words) == 0
