"""Frozen weights, packed where oneDNN takes them, give what torch's own product gives."""

import pytest
import torch

from engine.model import processor
from engine.model.frozen import FrozenLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("has_bias", [True, False])
def test_product_and_gradient_equal_torchs(dtype: torch.dtype, rows: int, has_bias: bool) -> None:
    torch.manual_seed(rows)
    weight = torch.randn(48, 32).to(dtype)
    bias = torch.randn(48).to(dtype) if has_bias else None
    layer = FrozenLinear(weight, bias)
    assert layer.is_packed == processor.packs(weight)
    x = torch.randn(2, rows, 32).to(dtype).requires_grad_()
    alike = x.detach().clone().requires_grad_()
    got, wanted = layer(x), torch.nn.functional.linear(alike, weight, bias)
    torch.testing.assert_close(got, wanted)
    toward = torch.randn_like(got)
    got.backward(toward), wanted.backward(toward)
    assert x.grad is not None and alike.grad is not None
    torch.testing.assert_close(x.grad, alike.grad)
    out = torch.empty(rows, 96, dtype=dtype)[:, 24:72]
    with torch.no_grad():
        assert layer.into(x[0], out) is out
    torch.testing.assert_close(out, torch.nn.functional.linear(alike[0], weight).detach())


def test_it_serves_inference_and_training_in_any_order() -> None:
    layer = FrozenLinear(torch.randn(8, 8).bfloat16())
    x = torch.randn(3, 8).bfloat16()
    with torch.inference_mode():
        first = layer(x)
    x.requires_grad_()
    layer(x).sum().backward()
    assert torch.equal(first, layer(x).detach()) and x.grad is not None
