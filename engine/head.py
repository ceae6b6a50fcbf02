"""The output head over a large vocabulary, a slice at a time.

A vocabulary of 262,144 makes the logits of a batch gigabytes; nothing here ever holds more than
`ROWS` rows of them, in one buffer that is used again (fresh pages cost as much as the arithmetic).
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.frozen import FrozenLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 512
"""Rows whose logits are held at once: the more, the less often the head's weights are read."""

SLICE = 4_096
"""Vocabulary entries that are computed and turned to float32 at once, so that they stay in the caches."""


class Head:
    """Hidden states → log-likelihoods and best tokens."""

    def __init__(self, model: "PreTrainedModel") -> None:
        projection: Any = model.get_output_embeddings()
        self.weight: Tensor = projection.weight
        self.slices = [FrozenLinear(entries) for entries in self.weight.split(SLICE)]
        self.scale = float(getattr(model.config, "logit_scale", None) or 1.0)  # Cohere multiplies its logits

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Hidden states [n, d] and token ids [n] → negative log-likelihoods [n] in nats, float32; differentiable."""
        nll: Tensor = _TokenNll.apply(hidden * self.scale, self, targets)  # type: ignore[no-untyped-call]
        return nll

    @cached_property
    def transposed(self) -> FrozenLinear:
        """Gradients for logits [n, vocabulary] → for hidden states [n, d]; only training asks for it."""
        return FrozenLinear(self.weight.T)

    @torch.no_grad()
    def best(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Hidden states [n, d] → the k highest logits [n, k] (descending, float32) and their token ids [n, k].

        No sort of the vocabulary: the k best tokens lie in the k slices with the highest maxima.
        """
        values, ids = [], []
        for rows in (hidden * self.scale).split(ROWS):
            logits = _buffer("logits", rows, len(self.weight), rows.dtype)
            for part, entries in zip(logits.split(SLICE, -1), self.slices, strict=True):
                entries.into(rows, part)
            v, i = _best(logits, min(k, len(self.weight)))
            values.append(v.float())
            ids.append(i)
        return torch.cat(values), torch.cat(ids)


_buffers: dict[tuple[str, torch.device, torch.dtype, int], Tensor] = {}


def _buffer(use: str, like: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Room for `width` numbers for each row of `like`, which the next one with the same use writes over."""
    key = (use, like.device, dtype, width)
    if key not in _buffers:
        with torch.inference_mode(False):  # a buffer made in inference mode could not serve training
            _buffers[key] = torch.empty(ROWS, width, dtype=dtype, device=like.device)
    return _buffers[key][: len(like)]


def _exp(logits: Tensor, shift: Tensor) -> Tensor:
    """exp(logits - shift) in float32, which the next call writes over."""
    room = _buffer("exp", logits, SLICE, torch.float32)[:, : logits.shape[1]]
    return room.copy_(logits).sub_(shift).exp_()


def _best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    n, vocabulary = logits.shape
    width = 512
    if vocabulary % width or vocabulary // width <= k:
        top = logits.topk(k)
        return top.values, top.indices
    sliced = logits.view(n, vocabulary // width, width)
    slices = sliced.amax(-1).topk(k).indices
    rows = torch.arange(n, device=logits.device)[:, None]
    top = sliced[rows, slices].flatten(1).topk(k)
    ids = slices.gather(1, top.indices // width) * width + top.indices % width
    return top.values, ids


class _TokenNll(torch.autograd.Function):
    """Softmax cross-entropy of a linear head whose weight is frozen: the gradient for the hidden states is
    computed on the way forward, while the logits are at hand (as in Liger's fused linear cross-entropy)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        nll = hidden.new_empty(len(hidden), dtype=torch.float32)
        grad = torch.empty_like(hidden) if wants_grad else hidden.new_empty(0)
        for start in range(0, len(hidden), ROWS):
            rows = slice(start, start + ROWS)
            nll[rows] = _nll(hidden[rows], head, targets[rows], grad[rows] if wants_grad else None)
        ctx.save_for_backward(grad)
        return nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0][:, None].to(grad.dtype), None, None


def _nll(hidden: Tensor, head: Head, targets: Tensor, grad: Tensor | None) -> Tensor:
    """Negative log-likelihoods of at most `ROWS` rows, in one reading of the weights; a second one fills `grad`."""
    vocabulary = len(head.weight)
    logits = _buffer("logits", hidden, SLICE if grad is None else vocabulary, hidden.dtype)
    label = hidden.new_zeros(len(hidden), dtype=torch.float32)
    log_norms = []
    for start, entries in zip(range(0, vocabulary, SLICE), head.slices, strict=True):
        at = 0 if grad is None else start
        part = entries.into(hidden, logits[:, at : at + entries.out_features])
        top = part.amax(-1, keepdim=True).float()
        log_norms.append(_exp(part, top).sum(-1).log_() + top[:, 0])
        here = (targets >= start) & (targets < start + entries.out_features)
        label[here] = part[here, targets[here] - start].float()
    log_norm = torch.stack(log_norms).logsumexp(0)
    if grad is not None:
        for part in logits.split(SLICE, -1):
            part.copy_(_exp(part, log_norm[:, None]))
        logits[torch.arange(len(targets), device=logits.device), targets] -= 1.0
        head.transposed.into(logits, grad)
    return log_norm - label
