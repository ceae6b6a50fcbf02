"""Linear layers with frozen weights, in the layout in which the CPU's matrix product is fastest.

torch reorders a weight at every product; for the few rows of a generation step that costs as much as the product.
Here it is reordered once (by oneDNN, as torch's own compiler does with frozen weights), in bfloat16 and in float32.
Where oneDNN does not take a weight (`processor.packs`), it stays as it is and torch multiplies by it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from engine.model import processor


class FrozenLinear(nn.Module):
    """x [..., d] → x Wᵀ + bias [..., o], differentiable in x alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.is_packed = processor.packs(weight)
        self.bias = None if bias is None else bias.detach()
        self.weight = _pack(weight) if self.is_packed else weight.detach()
        self.transposed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_packed:
            return nn.functional.linear(x, self.weight, self.bias)
        # Rows alone go in and the view is made here: an architecture may add to the output in place (Falcon).
        y: Tensor = _PackedProduct.apply(x.reshape(-1, self.in_features), self)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)

    def into(self, x: Tensor, out: Tensor) -> Tensor:
        """The product, without a bias, written to `out` [n, o] and returned."""
        return out.copy_(_product(x, self.weight)) if self.is_packed else torch.mm(x, self.weight.T, out=out)

    def gradient(self, grad: Tensor) -> Tensor:
        """What a gradient for the output [..., o] is for the input [..., d]; the first call packs Wᵀ as well."""
        if self.transposed is None:
            self.transposed = _pack(self.weight.to_dense().T)
        return _product(grad, self.transposed)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return _product(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.gradient(grad_outputs[0]), None


def _pack(weight: Tensor) -> Tensor:
    with torch.inference_mode(False):
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
