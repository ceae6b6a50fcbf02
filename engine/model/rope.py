"""Rotary positions in a few operators, where transformers writes them as a dozen; on CUDA in one (`rope_cuda`).

Two columns of a head are turned by an angle together: i and i + d / 2, or 2 i and 2 i + 1 (Cohere's). Which of the two
an architecture does is seen by trying its own function.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAME = "apply_rotary_pos_emb"
"""What transformers calls it, in every architecture's module."""


class _Turned(torch.autograd.Function):
    """x [n, heads, tokens, d] turned by angles [n or 1, tokens, d]; its gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool) -> Tensor:
        ctx.cos, ctx.sin, ctx.is_interleaved = cos, sin, is_interleaved
        return _turn(x, cos, sin, is_interleaved, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return _turn(grad_outputs[0], ctx.cos, ctx.sin, ctx.is_interleaved, -1), None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool, sign: int) -> Tensor:
    if x.is_cuda:
        from engine.model import rope_cuda

        return rope_cuda.turn(x, cos, sin, is_interleaved, sign)
    y = x * cos[:, None]
    first, second = _halves(y, is_interleaved)
    of_first, of_second = _halves(x, is_interleaved)
    angles = _halves(sin[:, None], is_interleaved)[0]
    first.addcmul_(of_second, angles, value=-sign)
    second.addcmul_(of_first, angles, value=sign)
    return y


def _halves(x: Tensor, is_interleaved: bool) -> tuple[Tensor, Tensor]:
    """Views of the columns that are turned together."""
    if is_interleaved:
        return x[..., ::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def use(model: Any) -> None:
    """Has the architecture of a model turn this way, where it does the same."""
    modeling: Any = sys.modules[type(model).__module__]
    theirs = getattr(modeling, NAME, None)
    if theirs is None or hasattr(theirs, "theirs"):
        return
    for is_interleaved in (False, True):
        if _is_same(theirs, is_interleaved):
            setattr(modeling, NAME, _in_place_of(theirs, is_interleaved))


def _in_place_of(theirs: Callable[..., Any], is_interleaved: bool) -> Callable[..., Any]:
    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or cos.ndim != 3 or not cos.shape[-1] == q.shape[-1] == k.shape[-1]:
            return theirs(q, k, cos, sin, *args, **kwargs)  # such as a part of each head alone
        return _Turned.apply(q, cos, sin, is_interleaved), _Turned.apply(k, cos, sin, is_interleaved)  # type: ignore[no-untyped-call]

    turn.theirs = theirs  # type: ignore[attr-defined]
    return turn


def _is_same(theirs: Callable[..., Any], is_interleaved: bool) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2))
    angles = torch.randn(2, 5, 4, generator=generator)
    angles = angles.repeat_interleave(2, -1) if is_interleaved else torch.cat([angles, angles], -1)
    try:
        expected = theirs(q, k, angles.cos(), angles.sin())
    except TypeError:  # it takes something else
        return False
    ours = _in_place_of(theirs, is_interleaved)(q, k, angles.cos(), angles.sin())
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, expected, strict=True))
