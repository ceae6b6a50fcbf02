"""What is measured on: the embedded base on a CPU, and the shape of Aya Expanse 8B with random weights on CUDA."""

import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from engine.data import dataset
from engine.data.splits import Splits, split
from engine.lora.stack import Stack
from engine.model import embedded, loading, registry, tiny
from engine.model.loading import LoadedBase
from engine.vocabulary import NINE, Hyperparameters, Strategy, Variant, variants_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = "Gemma 3 270M" if DEVICE == "cpu" else "Aya Expanse 8B's shape with random weights"
DTYPES = ("bfloat16", "float32") if DEVICE == "cpu" else ("bfloat16",)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@cache
def folder() -> Path:
    """The base as transformers loads it."""
    if DEVICE == "cpu":
        return embedded.folder()
    from transformers import CohereConfig, CohereForCausalLM

    made = Path(tempfile.gettempdir()) / "xdet-bench-cohere-8b"
    if not (made / "config.json").exists():
        tiny.build(made, "CohereForCausalLM")  # for its tokenizer
        (made / "model.safetensors").unlink()
        config = CohereConfig(
            num_hidden_layers=32, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
            num_key_value_heads=8, vocab_size=256_000, logit_scale=0.125, bos_token_id=1, eos_token_id=2,
            pad_token_id=0, dtype="bfloat16",
        )  # fmt: skip
        with torch.device("cuda"):
            model: Any = CohereForCausalLM(config)
            model.to(torch.bfloat16).save_pretrained(made)
        torch.cuda.empty_cache()
    return made


def load(dtype: str) -> tuple[LoadedBase, Stack]:
    """The base as the engine runs it, in a new copy."""
    base = loading.load(registry.resolve(str(folder())), dtype)
    return base, Stack(base.model, TARGETS)


def plain(dtype: str) -> Any:
    """The base as transformers runs it, in a new copy."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder(), dtype=getattr(torch, dtype))
    return model.to(DEVICE).requires_grad_(False).eval()


@cache
def splits(limit_train: int | None = None) -> Splits:
    """The bundled sample."""
    data = dataset.load("sample", tuple(NINE))
    return split(data.train, data.test, limit_train, None)


def variants(hyperparameters: Hyperparameters, limit_train: int | None) -> Sequence[Variant]:
    """The 13 trained variants of a base, and ZS before them."""
    trained = Variant(
        model="bench", revision="1", dtype="bfloat16", strategy=Strategy.M_FT, dataset_hash="sample",
        limit_train=limit_train, seed=42, hyperparameters=hyperparameters, training_format="bench",
    )  # fmt: skip
    return variants_of(trained, tuple(Strategy), tuple(NINE))


def random_adapters(stack: Stack, count: int, root: Path, std: float = 0.002) -> list[str]:
    """So many adapters of the paper's rank that change the text a little; also saved in PEFT's format in `root`."""
    names = [f"adapter-{number}" for number in range(count)]
    for number, name in enumerate(names):
        adapter = stack.create(name, Hyperparameters(), number)
        generator = torch.Generator(DEVICE).manual_seed(number)
        for _, b in adapter.weights.values():
            torch.nn.init.normal_(b, std=std, generator=generator)
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
        stack.save(name, root / name, "bench")
    return names
