"""`rope._turn` as one Triton kernel: a program turns all heads of a token."""

# Triton reads the annotations of a kernel, and takes only its own.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(
    x, y, cos, sin, tokens, heads, x_row, x_head, x_token, angle_row, half,
    SIGN: tl.constexpr, IS_INTERLEAVED: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row, token = place // tokens, place % tokens
    head, pair = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (pair < half)
    angle = row * angle_row + token * 2 * half + pair * (2 if IS_INTERLEAVED else 1)
    c = tl.load(cos + angle, mask=pair < half, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=pair < half, other=0.0).to(tl.float32) * SIGN
    source = x + row * x_row + token * x_token + head * x_head
    target = y + (place * heads + head) * 2 * half
    if IS_INTERLEAVED:
        column = tl.arange(0, 2 * HALF)[None, :]
        both_inside = (head < heads) & (column < 2 * half)
        both = tl.load(source + column, mask=both_inside, other=0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(both, [HEADS, HALF, 2]))
        turned = tl.reshape(tl.join(a * c - b * s, b * c + a * s), [HEADS, 2 * HALF])
        tl.store(target + column, turned.to(y.dtype.element_ty), mask=both_inside)
    else:
        a = tl.load(source + pair, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(source + half + pair, mask=inside, other=0.0).to(tl.float32)
        tl.store(target + pair, (a * c - b * s).to(y.dtype.element_ty), mask=inside)
        tl.store(target + half + pair, (b * c + a * s).to(y.dtype.element_ty), mask=inside)


def turn(x: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool, sign: int) -> Tensor:
    """x [n, heads, tokens, d], its heads' columns beside each other, and angles [n or 1, tokens, d] → x turned, which
    lies in memory as [n, tokens, heads, d]."""
    n, heads, tokens, d = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = torch.empty(n, tokens, heads, d, dtype=x.dtype, device=x.device)
    _kernel[(n * tokens,)](
        x, y, cos.contiguous(), sin.contiguous(), tokens, heads, x.stride(0), x.stride(1), x.stride(2),
        0 if len(cos) == 1 else tokens * d, d // 2, SIGN=sign, IS_INTERLEAVED=is_interleaved,
        HEADS=triton.next_power_of_2(heads), HALF=triton.next_power_of_2(d // 2),
    )  # fmt: skip
    return y.transpose(1, 2)
