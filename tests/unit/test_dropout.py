"""Dropout masks: so many zeros, other ones everywhere, and nothing but the adapter's own in them."""

import torch

from engine.lora.dropout import Dropout, numbers_of


def masks(seed: int, step: int, layer: int, tokens: int = 64, rate: float = 0.25) -> torch.Tensor:
    """Where a group of one row keeps its numbers [tokens, 512]."""
    return Dropout(*numbers_of([(seed, step)], [rate]), 4)(torch.ones(1, tokens, 512), tokens, layer)[0] > 0


def test_the_rate_is_that_of_the_adapter_and_what_is_left_is_scaled_up() -> None:
    dropout = Dropout(*numbers_of([(1, 0), (1, 0), (2, 0)], [0.1, 0.0, 0.5]), 1)
    y = dropout(torch.ones(3, 200, 640), 50, 0)
    shares = (y == 0).float().mean((1, 2)).tolist()
    # Five standard errors of so many places.
    assert abs(shares[0] - 0.1) < 5 * (0.09 / 128_000) ** 0.5 and shares[1] == 0
    assert abs(shares[2] - 0.5) < 5 * (0.25 / 128_000) ** 0.5
    assert y[0].unique().tolist() == [0.0, torch.tensor(1 / 0.9).item()] and y[2].unique().tolist() == [0.0, 2.0]


def test_masks_differ_by_seed_step_layer_token_and_column_as_independent_ones_do() -> None:
    first = masks(1, 0, 0)
    others = [masks(2, 0, 0), masks(1, 1, 0), masks(1, 0, 1), first.roll(1, 0), first.roll(1, 1), first.roll(2, 1)]
    for other in others:
        # Independent ones agree in 1 - 2 · .25 · .75 of the places.
        assert abs((first == other).float().mean().item() - 0.625) < 5 * (0.625 * 0.375 / first.numel()) ** 0.5
    assert torch.equal(first, masks(1, 0, 0))


def test_a_group_meets_its_own_mask_in_any_company_and_padding() -> None:
    alone = Dropout(*numbers_of([(7, 3)], [0.3]), 2)(torch.ones(1, 2 * 5, 64), 5, 1).view(2, 5, 64)
    dropout = Dropout(*numbers_of([(1, 3), (7, 3)], [0.5, 0.3]), 2)
    together = dropout(torch.ones(2, 3 * 9, 64), 9, 1)[1].view(3, 9, 64)
    assert torch.equal(together[:2, :5], alone)


def test_the_way_back_has_the_same_mask() -> None:
    x = torch.randn(2, 6, 33, requires_grad=True)
    y = Dropout(*numbers_of([(1, 0), (2, 0)], [0.4, 0.2]), 1)(x, 6, 0)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0) and 0 < (y == 0).sum() < y.numel()
    torch.testing.assert_close(x.grad * x, y)
