"""The output head over a large vocabulary, a slice at a time.

A vocabulary of 262,144 makes the logits of a batch gigabytes; nothing here ever holds more than
`ROWS` rows of them, in one buffer that is used again (fresh pages cost as much as the arithmetic).
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 128
SLICE = 16_384
"""Vocabulary entries that are turned to float32 at once."""


class Head:
    """Hidden states → log-likelihoods and best tokens. Holds no weights of its own."""

    def __init__(self, model: "PreTrainedModel") -> None:
        projection: Any = model.get_output_embeddings()
        self.weight: Tensor = projection.weight
        self.scale = float(getattr(model.config, "logit_scale", None) or 1.0)  # Cohere multiplies its logits

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Hidden states [n, d] and token ids [n] → negative log-likelihoods [n] in nats, float32; differentiable."""
        nll: Tensor = _TokenNll.apply(hidden * self.scale, self.weight, targets)
        return nll

    @torch.no_grad()
    def best(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Hidden states [n, d] → the k highest logits [n, k] (descending, float32) and their token ids [n, k].

        No sort of the vocabulary: the k best tokens lie in the k slices with the highest maxima.
        """
        values, ids = [], []
        for rows in (hidden * self.scale).split(ROWS):
            v, i = _best(_logits(rows, self.weight), min(k, len(self.weight)))
            values.append(v.float())
            ids.append(i)
        return torch.cat(values), torch.cat(ids)


_buffers: dict[tuple[torch.device, torch.dtype, int], Tensor] = {}


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Logits of at most `ROWS` rows, in a buffer that the next call writes over."""
    key = (hidden.device, hidden.dtype, len(weight))
    if key not in _buffers:
        _buffers[key] = hidden.new_empty(ROWS, len(weight))
    return torch.mm(hidden, weight.T, out=_buffers[key][: len(hidden)])


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
    computed on the way forward, while a slice of logits is at hand (as in Liger's fused linear cross-entropy)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        nll = hidden.new_empty(len(hidden), dtype=torch.float32)
        grad = torch.empty_like(hidden) if wants_grad else hidden.new_empty(0)
        for start in range(0, len(hidden), ROWS):
            rows = slice(start, start + ROWS)
            target = targets[rows, None]
            logits = _logits(hidden[rows], weight)
            top = logits.amax(-1, keepdim=True).float()
            total = torch.zeros_like(top)
            for part in logits.split(SLICE, -1):
                total += (part.float() - top).exp_().sum(-1, keepdim=True)
            log_norm = total.log_() + top
            nll[rows] = (log_norm - logits.gather(1, target).float())[:, 0]
            if wants_grad:
                for part in logits.split(SLICE, -1):
                    part.copy_((part.float() - log_norm).exp_())
                logits[torch.arange(len(target), device=logits.device), target[:, 0]] -= 1.0
                torch.mm(logits, weight, out=grad[rows])
        ctx.save_for_backward(grad)
        return nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0][:, None].to(grad.dtype), None, None
