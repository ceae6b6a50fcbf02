"""4-bit NormalFloat (nf4, Dettmers et al. 2023) as in bitsandbytes, quantised and dequantised once.

The weights are then those that a 4-bit base computes with, and the arithmetic is that of any other base: nothing is
unpacked at every step, and no memory is saved. Bit for bit what bitsandbytes 0.50 gives, in a page instead of a
dependency that most machines could not use.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 64
"""Weights that share a scale."""

LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution, zero among them."""


@torch.no_grad()
def quantise(model: "PreTrainedModel") -> None:
    """Rounds the linear layers of a base to 4 bits, as transformers does with bitsandbytes: all but its output head and
    what the architecture wants precise (mT5's `wo`)."""
    head, precise = model.get_output_embeddings(), model._keep_in_fp32_modules or ()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and name.rsplit(".", 1)[-1] not in precise:
            module.weight.copy_(nearest_levels(module.weight))


def nearest_levels(weight: Tensor) -> Tensor:
    """Every weight as the nearest level times the largest of its block, in the dtype and shape of `weight`."""
    levels = torch.tensor(LEVELS, device=weight.device)
    flat = weight.float().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True)
    nearest = torch.bucketize(
        blocks / scales.clamp(min=torch.finfo(torch.float32).tiny), (levels[1:] + levels[:-1]) / 2
    )
    return (levels[nearest] * scales).flatten()[: len(flat)].view(weight.shape).to(weight.dtype)
