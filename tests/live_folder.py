"""A small folder of adapters with random weights over the tiny base, for the tests of the live page."""

from pathlib import Path

import torch

from engine import adapters, models
from engine.config import TINY_MODEL
from engine.lora import Stack
from engine.vocabulary import Hyperparameters, Language, Strategy, Variant, variants_of

FOREIGN = "made-elsewhere"


def variants() -> list[Variant]:
    """X-FT on German and on Hindi, and M-FT."""
    shared = Variant(TINY_MODEL, "0", "float32", Strategy.M_FT, dataset_hash="d", seed=42)
    return variants_of(shared, (Strategy.X_FT, Strategy.M_FT), (Language.DE, Language.HI))


def fill(root: Path) -> None:
    """The adapters of `variants`, and one without a meta.json, as PEFT leaves it."""
    base = models.resolve(TINY_MODEL)
    stack = Stack(models.load(base, "float32").model, base.targets)
    for number, variant in enumerate(variants()):
        folder = adapters.folder_of(root, variant)
        save(stack, folder, number)
        adapters.write_meta(folder, variant, {})
    save(stack, root / TINY_MODEL / FOREIGN, 9)


def save(stack: Stack, folder: Path, seed: int) -> None:
    """An adapter with random weights in PEFT's format."""
    torch.manual_seed(seed)
    for parameter in stack.create("random", Hyperparameters(rank=4), seed).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    stack.save("random", folder, TINY_MODEL)
