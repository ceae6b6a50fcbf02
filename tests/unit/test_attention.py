"""One new token a row attends as transformers' own attention has it."""

import pytest
import torch

from engine.model.attention import attend


@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (6, 2), (4, 4)])
@pytest.mark.parametrize("masked", [True, False])
def test_one_query_a_row_attends_as_sdpa_does(heads: int, groups: int, masked: bool) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    torch.manual_seed(0)
    query, key, value = torch.randn(3, heads, 1, 8), torch.randn(3, groups, 5, 8), torch.randn(3, groups, 5, 8)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]).bool()[:, None, None] if masked else None
    module = torch.nn.Module()
    module.num_key_value_groups = heads // groups  # type: ignore[assignment]
    module.is_causal = True  # type: ignore[assignment]
    ours, _ = attend(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert torch.allclose(ours, theirs, atol=1e-6)
