"""The output head over a large vocabulary, a slice at a time.

A vocabulary of 262,144 makes the logits of a batch gigabytes; nothing here ever holds more than
`ROWS` rows of them, in one buffer that is used again (fresh pages cost as much as the arithmetic).
"""

from collections.abc import Iterator
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
        nll: Tensor = _TokenNll.apply(hidden * self.scale, self.weight, targets)  # type: ignore[no-untyped-call]
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


def _buffer(device: torch.device, dtype: torch.dtype, rows: int, width: int) -> Tensor:
    """Room for `rows` × `width` numbers, which the next caller writes over."""
    key = (device, dtype, width)
    if key not in _buffers:
        with torch.inference_mode(False):  # a buffer made in inference mode could not serve training
            _buffers[key] = torch.empty(ROWS, width, dtype=dtype, device=device)
    return _buffers[key][:rows]


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Logits of at most `ROWS` rows."""
    return torch.mm(hidden, weight.T, out=_buffer(hidden.device, hidden.dtype, len(hidden), len(weight)))


def _exp_slices(logits: Tensor, shift: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Slices of logits [n, v], and exp(slice - shift) of each in float32, which the next slice writes over."""
    for part in logits.split(SLICE, -1):
        room = _buffer(logits.device, torch.float32, len(part), SLICE)[:, : part.shape[1]]
        yield part, room.copy_(part).sub_(shift).exp_()


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
            for _, weights in _exp_slices(logits, top):
                total += weights.sum(-1, keepdim=True)
            log_norm = total.log_() + top
            nll[rows] = (log_norm - logits.gather(1, target).float())[:, 0]
            if wants_grad:
                for part, probabilities in _exp_slices(logits, log_norm):
                    part.copy_(probabilities)
                logits[torch.arange(len(target), device=logits.device), target[:, 0]] -= 1.0
                torch.mm(logits, weight, out=grad[rows])
        ctx.save_for_backward(grad)
        return nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0][:, None].to(grad.dtype), None, None
