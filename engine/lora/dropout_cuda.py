"""`dropout.Dropout.apply_mask` as one Triton kernel."""

# Triton reads the annotations of a kernel, and takes only its own.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.lora.dropout import FIRST, SECOND

BLOCK = 1024


@triton.jit
def _kernel(
    x, y, keys, columns, thresholds, scales, n, d, FIRST: tl.constexpr, SECOND: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    group = row // n
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < d
    word = tl.load(keys + row) ^ tl.load(columns + column // 2, mask=inside, other=0)
    word = word * FIRST
    word = (word ^ (word >> 15)) * SECOND
    sixteen_bits = (word << tl.where(column % 2 == 0, 16, 0)) >> 16
    is_kept = sixteen_bits >= tl.load(thresholds + group)
    value = tl.load(x + row * d + column, mask=inside, other=0.0)
    scale = tl.load(scales + group).to(value.dtype).to(tl.float32)
    scaled = tl.where(is_kept, value.to(tl.float32) * scale, 0.0)
    tl.store(y + row * d + column, scaled.to(value.dtype), mask=inside)


def apply_mask(x: Tensor, keys: Tensor, columns: Tensor, thresholds: Tensor, scales: Tensor) -> Tensor:
    """x [groups, n, d] and keys [groups, n], both contiguous; thresholds and scales [groups]."""
    groups, n, d = x.shape
    y = torch.empty_like(x)
    grid = (groups * n, triton.cdiv(d, BLOCK))
    _kernel[grid](x, y, keys, columns, thresholds, scales, n, d, FIRST=FIRST, SECOND=SECOND, BLOCK=BLOCK)
    return y
