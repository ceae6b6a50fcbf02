"""Norms of a frozen base in one operator or a few, where transformers takes about ten, and more on the way back.

Architectures name their norms as they like; what one computes is seen by trying. Statistics are in float32, as in
transformers; the weight is in float32 too, and the result is rounded once.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """x / √(mean x² + ε) · (weight + offset). Its parameter is that of the norm whose place it takes."""

    def __init__(self, weight: nn.Parameter, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps
        self.scale: Tensor
        self.register_buffer("scale", weight.detach().float() + offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Rms.apply(x, self.scale, self.eps)  # type: ignore[no-untyped-call]
        return y


class LayerNorm(nn.Module):
    """(x - mean) / √(variance + ε) · weight."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


class _Rms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        in_float = x.float()
        scale = in_float.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale)
        ctx.weight = weight
        return (in_float * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        x, scale = ctx.saved_tensors
        grad = grad_outputs[0] * ctx.weight
        normal = x * scale
        along = (grad * normal).mean(-1, keepdim=True)
        return grad.addcmul_(normal, along, value=-1).mul_(scale).to(x.dtype), None, None


def use(model: nn.Module) -> None:
    """Puts these in place of the norms that compute the same, for good."""
    same: dict[type[nn.Module], Any] = {}
    for name, module in list(model.named_modules()):
        eps, weight = _eps(module), getattr(module, "weight", None)
        has_bias = getattr(module, "bias", None) is not None
        if eps is None or has_bias or not isinstance(weight, nn.Parameter) or weight.ndim != 1:
            continue
        if type(module) not in same:
            same[type(module)] = _same(module, len(weight), eps)
        if same[type(module)] is not None:
            model.set_submodule(name, same[type(module)](weight, eps))


def _eps(module: nn.Module) -> float | None:
    """The ε of what is a norm by its name; None of all else, and of torch's own, which is one operator already."""
    if not type(module).__name__.endswith("Norm") or type(module).__module__.startswith("torch."):
        return None
    eps: float | None = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return eps


@torch.no_grad()
def _same(module: nn.Module, width: int, eps: float) -> Any:
    """What computes the same from a weight and an ε; None where nothing here does."""
    copy: Any = deepcopy(module).float()
    generator = torch.Generator().manual_seed(0)
    copy.weight.copy_(torch.randn(width, generator=generator))
    x = torch.randn(4, width, generator=generator).to(copy.weight.device) + 0.5
    expected = copy(x)
    kinds: tuple[Any, ...] = (RmsNorm, partial(RmsNorm, offset=1.0), LayerNorm)
    for kind in kinds:
        if torch.allclose(kind(copy.weight, eps)(x), expected, rtol=1e-4, atol=1e-5):
            return kind
    return None
