"""4-bit weights: the levels, the blocks, and what bitsandbytes gives."""

import pytest
import torch

from engine.model.nf4 import LEVELS, nearest_levels, quantise

BITSANDBYTES = [
    -2.0,
    -2.0,
    -1.39239,
    -1.39239,
    -1.39239,
    -1.05015,
    -1.05015,
    -0.78983,
    -0.78983,
    -0.56888,
    -0.36955,
    -0.1821,
    -0.1821,
    0.07958,
    0.24611,
    0.33792,
    0.56262,
    0.72296,
    0.72296,
    1.0,
]
"""What its 0.50.2 makes of every fifth number of linspace(-2, 1, 96): nf4 in blocks of 64, and back."""


def test_weights_are_those_of_bitsandbytes() -> None:
    assert nearest_levels(torch.linspace(-2, 1, 96))[::5].tolist() == pytest.approx(BITSANDBYTES, abs=1e-5)


def test_a_weight_is_never_further_off_than_half_a_gap_and_rounding_twice_changes_nothing() -> None:
    weight = torch.randn(33, 50, generator=torch.Generator().manual_seed(0))  # its last block is not full
    once = nearest_levels(weight)
    gap = max(b - a for a, b in zip(LEVELS, LEVELS[1:], strict=False))
    assert (once - weight).abs().max() <= gap / 2 * weight.abs().max()
    assert (once - weight).abs().max() > 0
    torch.testing.assert_close(nearest_levels(once), once)
    assert nearest_levels(torch.zeros(3, 5)).eq(0).all()


def test_all_linear_layers_but_the_head_are_rounded() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    quantise(model)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if "proj" in name}
    assert all(torch.equal(p, nearest_levels(before[name])) for name, p in model.named_parameters() if name in changed)


def test_mt5_keeps_what_bitsandbytes_leaves_it() -> None:
    """transformers gives bitsandbytes no layer that an architecture keeps in float32."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    model = MT5ForConditionalGeneration(
        MT5Config(d_model=64, d_kv=32, d_ff=64, num_layers=1, num_heads=2, vocab_size=100)
    )
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    quantise(model)
    changed = {
        name.split(".")[-2] for name, weight in model.named_parameters() if not torch.equal(weight, before[name])
    }
    assert changed == {"q", "k", "v", "o", "wi_0", "wi_1"}
