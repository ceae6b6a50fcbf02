"""A small folder of adapters with random weights over a tiny base, for the tests of the live page."""

from pathlib import Path

import torch

from engine.config import TINY_MODEL
from engine.lora import adapters
from engine.lora.stack import Stack
from engine.model import loading, registry, tiny
from engine.vocabulary import Hyperparameters, Language, Strategy, Variant, slug, variants_of

FOREIGN = "made-elsewhere"
LAYERS = 160
"""Of a base that is slow to write: so many tiny layers take tens of milliseconds a token."""


def variants(model: str = TINY_MODEL) -> list[Variant]:
    """X-FT on German and on Hindi, and M-FT."""
    shared = Variant(model, "0", "float32", Strategy.M_FT, dataset_hash="d", seed=42)
    return variants_of(shared, (Strategy.X_FT, Strategy.M_FT), (Language.DE, Language.HI))


def fill(root: Path, source: str = TINY_MODEL) -> None:
    """The adapters of `variants` over a base (a key or a folder), and one without a meta.json, as PEFT leaves it."""
    base = registry.resolve(source)
    stack = Stack(loading.load(base, "float32").model, base.targets)
    for number, variant in enumerate(variants(base.name)):
        folder = adapters.folder_of(root, variant)
        save(stack, folder, number)
        adapters.write_meta(folder, variant, {"base_folder": source})
    save(stack, root / slug(base.name) / FOREIGN, 9)


def save(stack: Stack, folder: Path, seed: int) -> None:
    """An adapter with random weights in PEFT's format."""
    torch.manual_seed(seed)
    for parameter in stack.create("random", Hyperparameters(rank=4), seed).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    stack.save("random", folder, TINY_MODEL)


def build_slow(folder: Path) -> None:
    """A tiny base of `LAYERS` layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny.build(folder, "LlamaForCausalLM")
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=LAYERS)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
