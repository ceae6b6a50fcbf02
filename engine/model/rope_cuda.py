"""`rope._turn` as one Triton kernel."""

# Triton reads the annotations of a kernel, and takes only its own.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(
    x, y, cos, sin, tokens, heads, x_row, x_head, x_token, angle_row, half,
    SIGN: tl.constexpr, BETWEEN_PAIRS: tl.constexpr, WITHIN_PAIR: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row, token = place // tokens, place % tokens
    pair = tl.arange(0, HALF)
    angle = row * angle_row + token * 2 * half + pair * BETWEEN_PAIRS
    c = tl.load(cos + angle, mask=pair < half, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + angle, mask=pair < half, other=0.0).to(tl.float32)[None, :] * SIGN
    head = tl.arange(0, HEADS)
    inside = (head < heads)[:, None] & (pair < half)[None, :]
    columns = (pair * BETWEEN_PAIRS)[None, :]
    first = x + row * x_row + token * x_token + head[:, None] * x_head + columns
    a = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(first + WITHIN_PAIR, mask=inside, other=0.0).to(tl.float32)
    target = y + (place * heads + head[:, None]) * 2 * half + columns
    tl.store(target, (a * c - b * s).to(y.dtype.element_ty), mask=inside)
    tl.store(target + WITHIN_PAIR, (b * c + a * s).to(y.dtype.element_ty), mask=inside)


def turn(x: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool, sign: int) -> Tensor:
    """x [n, heads, tokens, d], its heads' columns beside each other, and angles [n or 1, tokens, d] → x turned, which
    lies in memory as [n, tokens, heads, d]."""
    n, heads, tokens, d = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = torch.empty(n, tokens, heads, d, dtype=x.dtype, device=x.device)
    between, within = (2, 1) if is_interleaved else (1, d // 2)
    _kernel[(n * tokens,)](
        x, y, cos.contiguous(), sin.contiguous(), tokens, heads, x.stride(0), x.stride(1), x.stride(2),
        0 if len(cos) == 1 else tokens * d, d // 2,
        SIGN=sign, BETWEEN_PAIRS=between, WITHIN_PAIR=within,
        HEADS=triton.next_power_of_2(heads), HALF=triton.next_power_of_2(d // 2),
    )  # fmt: skip
    return y.transpose(1, 2)
