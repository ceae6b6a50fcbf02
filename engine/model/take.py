"""Rows by their index, with a gradient that is taken by index as well: no sums, so it is the same bits on every device,
and costs as much as the way there."""

from typing import Any

import torch
from torch import Tensor


def take(rows: Tensor, index: Tensor, back: Tensor, has: Tensor | None = None) -> Tensor:
    """rows [n, d] and index [m] → [m, d]. `back` [n]: where in the result each row is; `has` [n]: whether it is there
    (None: all of those that matter are)."""
    taken: Tensor = _Taken.apply(rows, index, back, has)  # type: ignore[no-untyped-call]
    return taken


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Tensor, has: Tensor | None) -> Tensor:
        ctx.back, ctx.has = back, has
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        grad = grad_outputs[0].index_select(0, ctx.back)
        if ctx.has is not None:
            grad.masked_fill_(~ctx.has[:, None], 0.0)
        return grad, None, None, None
