"""Attention for one new token per row: two small matrix products per row, without expanding the KV heads (GQA).

With one query a row, torch's CPU kernel spends its time on set-up, and grouped keys are first copied once a
query head. Everything else (prompts, training) goes to transformers' own `sdpa`.
"""

from typing import Any

import torch
from torch import Tensor

NAME = "xdet"


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Query [n, h, t, d], key and value [n, g, s, d] with h a multiple of g → [n, t, h, d] (transformers' contract)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    n, heads, width, size = query.shape
    if width > 1 or query.requires_grad or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    groups, tokens = key.shape[1], key.shape[2]
    scaling = kwargs.get("scaling") or size**-0.5
    per_group = query.reshape(n * groups, heads // groups, size)
    scores = torch.bmm(per_group, key.reshape(n * groups, tokens, size).transpose(1, 2)).float() * scaling
    if attention_mask is not None:
        hidden = ~attention_mask.expand(n, groups, 1, tokens).reshape(n * groups, 1, tokens)
        scores.masked_fill_(hidden, float("-inf"))
    weights = scores.softmax(-1).to(value.dtype)
    attended = torch.bmm(weights, value.reshape(n * groups, tokens, size))
    return attended.view(n, 1, heads, size), None


def use(model: Any) -> None:
    """Makes a model attend this way, where it lets its attention be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
