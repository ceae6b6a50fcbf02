"""The output head over a large vocabulary.

A vocabulary of 262,144 makes the logits of a batch gigabytes; nothing here ever holds more than `ROWS` rows of them, in
one buffer that is used again (fresh pages cost as much as the arithmetic). On a CPU they are computed and turned to
float32 a slice of the vocabulary at a time, which stays in the caches; on a GPU in one piece, which fills it.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.model.frozen import FrozenLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = {"cpu": 512, "cuda": 2_048}
"""Rows whose logits are held at once: the more, the less often the head's weights are read."""

SLICE = 4_096
"""Vocabulary entries of a slice on a CPU."""

BEST_SLICE = 512
"""Vocabulary entries of which the highest is looked up together."""


class LMHead:
    """Hidden states → log-likelihoods and best tokens."""

    def __init__(self, model: "PreTrainedModel") -> None:
        projection: Any = model.get_output_embeddings()
        self.weight: Tensor = projection.weight
        width = SLICE if self.weight.device.type == "cpu" else len(self.weight)
        self.slices = [FrozenLinear(entries) for entries in self.weight.split(width)]
        self.scale, self.cap = scale_and_cap(model.config.get_text_config())

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, d] → all logits [n, vocabulary] in their dtype: for few rows, to compare."""
        logits = torch.cat(
            [
                entries.into(hidden * self.scale, hidden.new_empty(len(hidden), entries.out_features))
                for entries in self.slices
            ],
            -1,
        )
        return self.capped(logits)

    def capped(self, logits: Tensor) -> Tensor:
        """Logits, in place, as the architecture bounds them (Gemma 2: cap · tanh(logits / cap))."""
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, capped: Tensor) -> Tensor | None:
        """The derivative of capped logits for those before; None where they are not bounded: 1."""
        return None if self.cap is None else 1 - (capped / self.cap).square()

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
        vocabulary = len(self.weight)
        width = -(-vocabulary // BEST_SLICE) * BEST_SLICE
        for rows in (hidden * self.scale).split(ROWS[hidden.device.type]):
            logits = _buffer("logits", rows, width, rows.dtype)
            parts = logits[:, :vocabulary].split(self.slices[0].out_features, -1)
            for part, entries in zip(parts, self.slices, strict=True):
                entries.into(rows, part)
            logits[:, vocabulary:] = -torch.inf
            v, i = _best(logits, min(k, vocabulary))
            values.append(self.capped(v).float())
            ids.append(i)
        return torch.cat(values), torch.cat(ids)


_buffers: dict[tuple[str, torch.device, torch.dtype, int], Tensor] = {}


def _buffer(use: str, like: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Room for `width` numbers for each row of `like`, which the next one with the same use writes over."""
    key = (use, like.device, dtype, width)
    if key not in _buffers:
        with torch.inference_mode(False):  # a buffer made in inference mode could not serve training
            _buffers[key] = torch.empty(ROWS[like.device.type], width, dtype=dtype, device=like.device)
    return _buffers[key][: len(like)]


def release() -> None:
    """Gives back the buffers."""
    _buffers.clear()


def _exp(logits: Tensor, shift: Tensor) -> Tensor:
    """exp(logits - shift) in float32, which the next call writes over."""
    room = _buffer("exp", logits, SLICE, torch.float32)[:, : logits.shape[1]]
    return room.copy_(logits).sub_(shift).exp_()


def _best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of logits [n, a multiple of `BEST_SLICE`], and where they are."""
    n, width = logits.shape
    if width // BEST_SLICE <= k:
        top = logits.topk(k)
        return top.values, top.indices
    sliced = logits.view(n, width // BEST_SLICE, BEST_SLICE)
    slices = sliced.amax(-1).topk(k).indices
    rows = torch.arange(n, device=logits.device)[:, None]
    top = sliced[rows, slices].flatten(1).topk(k)
    ids = slices.gather(1, top.indices // BEST_SLICE) * BEST_SLICE + top.indices % BEST_SLICE
    return top.values, ids


class _TokenNll(torch.autograd.Function):
    """Softmax cross-entropy of a linear head whose weight is frozen: the gradient for the hidden states is
    computed on the way forward, while the logits are at hand (as in Liger's fused linear cross-entropy)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: LMHead, targets: Tensor) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        nll = hidden.new_empty(len(hidden), dtype=torch.float32)
        grad = torch.empty_like(hidden) if wants_grad else hidden.new_empty(0)
        most, judge = ROWS[hidden.device.type], nll_whole if hidden.is_cuda else nll_sliced
        for start in range(0, len(hidden), most):
            rows = slice(start, start + most)
            nll[rows] = judge(hidden[rows], head, targets[rows], grad[rows] if wants_grad else None)
        ctx.save_for_backward(grad)
        return nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0][:, None].to(grad.dtype), None, None


def nll_sliced(hidden: Tensor, head: LMHead, targets: Tensor, grad: Tensor | None) -> Tensor:
    """Negative log-likelihoods of at most `ROWS` rows, in one reading of the weights; a second one fills `grad`."""
    vocabulary = len(head.weight)
    logits = _buffer("logits", hidden, SLICE if grad is None else vocabulary, hidden.dtype)
    label = hidden.new_zeros(len(hidden), dtype=torch.float32)
    log_norms = []
    for start, entries in zip(range(0, vocabulary, SLICE), head.slices, strict=True):
        at = 0 if grad is None else start
        part = head.capped(entries.into(hidden, logits[:, at : at + entries.out_features]))
        top = part.amax(-1, keepdim=True).float()
        log_norms.append(_exp(part, top).sum(-1).log_() + top[:, 0])
        within = targets - start
        candidate = part.gather(1, within.clamp(0, entries.out_features - 1)[:, None])[:, 0].float()
        label = torch.where((within >= 0) & (within < entries.out_features), candidate, label)
    log_norm = torch.stack(log_norms).logsumexp(0)
    if grad is not None:
        for part in logits.split(SLICE, -1):
            slope = head.slope(part)
            part.copy_(_exp(part, log_norm[:, None]))
            if slope is not None:
                part.mul_(slope)
        _less(logits, targets, head.slope(label))
        head.transposed.into(logits, grad)
    return log_norm - label


def nll_whole(hidden: Tensor, head: LMHead, targets: Tensor, grad: Tensor | None) -> Tensor:
    """The same of the whole vocabulary at once."""
    logits = _buffer("logits", hidden, len(head.weight), hidden.dtype)
    log_likelihoods = head.capped(torch.mm(hidden, head.weight.T, out=logits)).log_softmax(-1, dtype=torch.float32)
    nll = -log_likelihoods.gather(1, targets[:, None])[:, 0]
    if grad is not None:
        slope, at_label = head.slope(logits), head.slope(logits.gather(1, targets[:, None])[:, 0])
        logits.copy_(log_likelihoods.exp_())
        if slope is not None:
            logits.mul_(slope)
        _less(logits, targets, at_label)
        torch.mm(logits, head.weight, out=grad)
    return nll


def _less(probabilities: Tensor, targets: Tensor, amount: Tensor | None) -> None:
    """What the gradient of a cross-entropy is for the logits, in place of the probabilities: less `amount` (None: 1) at
    the target."""
    rows = torch.arange(len(targets), device=targets.device)
    probabilities[rows, targets] -= 1.0 if amount is None else amount.to(probabilities.dtype)


def scale_and_cap(config: Any) -> tuple[float, float | None]:
    """What an architecture does with its logits: what it multiplies them by, and what it bounds them with."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    if config.model_type == "t5" and config.tie_word_embeddings:
        scale *= float(config.d_model) ** -0.5
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return scale, None if cap is None else float(cap)
