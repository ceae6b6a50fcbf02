"""Our attention, in place of transformers' `sdpa` in two cases.

One new token per row: two small matrix products per row, without expanding the KV heads (GQA). With one query a row,
torch's CPU kernel spends its time on set-up, and grouped keys are first copied once a query head.
Sentences one behind the other in one row (`apart`): a row a sentence for attention alone.
Everything else goes to transformers' own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.model.take import take

NAME = "xdet"


@dataclass(frozen=True)
class _Sentences:
    """`slots` [sentences, tokens]: the place of each of their tokens in the row; `is_token`: whether there is one;
    `inverse` [places]: the number of each place's slot."""

    slots: Tensor
    is_token: Tensor
    inverse: Tensor


_sentences: list[_Sentences] = []


@contextmanager
def apart(slots: Tensor, is_token: Tensor, inverse: Tensor) -> Iterator[Tensor]:
    """Within, the one row that a model reads is sentences, which do not see each other: see `_Sentences`. Yields the
    attention mask that the model is to be given, which stands for none: transformers makes no other."""
    _sentences.append(_Sentences(slots, is_token, inverse))
    try:
        yield slots.new_zeros(1, 1, 1, 1)
    finally:
        _sentences.pop()


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Query [n, h, t, d], key and value [n, g, s, d] with h a multiple of g → [n, t, h, d] (transformers' contract)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if _sentences:
        return _attend_apart(query, key, value, kwargs.get("scaling"), kwargs.get("sliding_window")), None
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


def _attend_apart(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Query, key and value [1, heads, places, d] → [1, places, heads, d]; every sentence sees itself, from the left,
    and of a longer one than `window` that many tokens."""
    sentences = _sentences[-1]
    rows = []
    for states in (query, key, value):
        of_tokens = states[0].transpose(0, 1)
        taken = take(of_tokens.flatten(1), sentences.slots.flatten(), sentences.inverse)
        rows.append(taken.view(*sentences.slots.shape, *of_tokens.shape[1:]).transpose(1, 2))
    tokens = sentences.slots.shape[1]
    mask: Tensor | None = None
    if window is not None and tokens > window:
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril_().triu_(1 - window)
    queries, keys, values = rows
    attended = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, mask, is_causal=mask is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    of_slots = attended.transpose(1, 2).flatten(2).flatten(0, 1)
    places = take(of_slots, sentences.inverse, sentences.slots.flatten(), sentences.is_token.flatten())
    return places.view(1, len(places), query.shape[1], -1)


def use(model: Any) -> None:
    """Makes a model attend this way, where it lets its attention be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    # cuDNN's is not among the kernels that torch holds for deterministic: other bits where that is asked for.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def is_ours(model: Any) -> bool:
    """Whether a model attends this way."""
    return bool(model.config._attn_implementation == NAME)
