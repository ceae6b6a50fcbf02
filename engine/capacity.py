"""How much memory a base and its adapters take, and so how many are trained at once. Estimates, checked by `bench`."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import psutil

from engine.models import Base
from engine.train import TOKENS_PER_PASS

USABLE = 0.8
"""The share of the memory that a plan may fill."""

WORKING_BYTES = 1.2e9
"""Activations and logits of a pass, the libraries, and the rest."""

TOKENS_PER_TEXT = 32
"""Of a training sentence, about."""


def at_hand() -> tuple[str, float]:
    """The kind of device ('cuda' or 'cpu') and all of its memory in bytes, within what a container may use."""
    import torch

    if torch.cuda.is_available():
        return "cuda", float(torch.cuda.get_device_properties(0).total_memory)
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return "cpu", min(float(psutil.virtual_memory().total), float("inf" if allowed == "max" else allowed))


def adapter_bytes(base: Base) -> float:
    """An adapter's weights in float32, as its file has them."""
    return 5.9e6 * float((base.billions / 0.268) ** (2 / 3))


def training_bytes(base: Base, dtype: str, places: int) -> float:
    """A base with so many adapters in training: weights, gradients and AdamW's two moments of each, and a copy.

    On a CPU a bfloat16 base is held as loaded (embedding) and packed for both directions of the product.
    """
    copies = 4 if dtype == "bfloat16" and at_hand()[0] == "cpu" else 1
    weights = base.billions * 1e9 * (2 if dtype == "bfloat16" else 4)
    return copies * weights + WORKING_BYTES + 5 * places * adapter_bytes(base)


def places(base: Base, dtype: str, steps: Sequence[int], batch_size: int) -> int:
    """How many lanes of so many steps are best trained at once: enough to fill a pass, and that the longest is not
    left alone at the end; no more than memory holds, and at least one."""
    if not steps:
        return 0
    device, memory = at_hand()
    fill = TOKENS_PER_PASS[device] // (TOKENS_PER_TEXT * batch_size)
    wanted = min(len(steps), max(fill, ceil(sum(steps) / max(steps))))
    fitting = (USABLE * memory - training_bytes(base, dtype, 0)) / (5 * adapter_bytes(base))
    return max(1, min(wanted, int(fitting)))
