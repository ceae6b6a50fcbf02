"""Token log-likelihoods of given text under variants and under the base; the ground of the three perplexities.

perplexity_self: the bare completion under the variant that wrote it. perplexity_base: the completion after its
prompt, under the base. perplexity_neutral: a neutral-test sentence under the variant. Untempered, in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.generate.transformers import Reader, batches, left_padded
from engine.head import ROWS, Head
from engine.lora import Stack
from engine.models import Loaded


@dataclass(frozen=True)
class Likelihood:
    """The summed negative log-likelihood of a text in nats, and the number of tokens it was summed over."""

    nll: float
    n_tokens: int


NOTHING = Likelihood(0.0, 0)
"""The likelihood of a text without tokens, which has no perplexity."""


@torch.inference_mode()
def of_texts(
    loaded: Loaded, stack: Stack, texts: Sequence[Sequence[int]], adapters: Sequence[str | None]
) -> list[Likelihood]:
    """Token ids of bare texts and the adapter of each → their likelihoods, after the tokenizer's opening token."""
    opening = _opening(loaded)
    rows = [[*opening, *text] for text in texts]
    head, found = Head(loaded.model), [NOTHING] * len(rows)
    real = [i for i, text in enumerate(texts) if len(text)]
    for groups in batches([adapters[i] for i in real], [len(rows[i]) for i in real]):
        order = [real[i] for indices in groups.values() for i in indices]
        width = max(len(rows[i]) for i in order)
        ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in order], device=loaded.device)
        lengths = torch.tensor([len(rows[i]) for i in order], device=loaded.device)
        with stack.groups(list(groups)):
            hidden = loaded.model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        # Without an opening token nothing predicts the first token, and the sum begins at the second.
        first = max(1, len(opening))
        is_label = torch.arange(width, device=loaded.device)[None] < lengths[:, None]
        is_label[:, :first] = False
        nll = head.nll(hidden[is_label[:, 1:]], ids[is_label])
        for i, likelihood in zip(order, _summed(nll, is_label.sum(1).tolist()), strict=True):
            found[i] = likelihood
    return found


@torch.inference_mode()
def after_prompts(loaded: Loaded, prompts: Sequence[str], texts: Sequence[Sequence[int]]) -> list[Likelihood]:
    """Prompts and the token ids that followed each → the likelihood of those under the bare base.

    A prompt is read once, however many continuations it has; equal continuations of it are judged once.
    """
    judged = {(prompt, tuple(text)): NOTHING for prompt, text in zip(prompts, texts, strict=True)}
    by_prompt: dict[str, list[tuple[int, ...]]] = {}
    for prompt, text in judged:
        if text:
            by_prompt.setdefault(prompt, []).append(text)
    head, todo = Head(loaded.model), list(by_prompt.items())
    tokens: list[list[int]] = loaded.tokenizer([prompt for prompt, _ in todo])["input_ids"] if todo else []
    for chunk in _chunks([len(texts) for _, texts in todo]):
        ids, mask = left_padded([tokens[i] for i in chunk], loaded.device)
        reader = Reader(loaded)
        last = reader.read(ids, mask)[:, -1:]
        owner = torch.tensor([row for row, i in enumerate(chunk) for _ in todo[i][1]], device=loaded.device)
        reader.repeat(owner)
        rows = [text for i in chunk for text in todo[i][1]]
        width = max(map(len, rows))
        after = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=loaded.device)
        hidden = last[owner]
        if width > 1:
            hidden = torch.cat([hidden, reader.read(after[:, :-1])], 1)
        is_label = torch.arange(width, device=loaded.device) < torch.tensor(
            [[len(row)] for row in rows], device=loaded.device
        )
        summed = _summed(head.nll(hidden[is_label], after[is_label]), [len(row) for row in rows])
        keys = [(todo[i][0], text) for i in chunk for text in todo[i][1]]
        judged.update(zip(keys, summed, strict=True))
    return [judged[prompt, tuple(text)] for prompt, text in zip(prompts, texts, strict=True)]


def _opening(loaded: Loaded) -> list[int]:
    """What the tokenizer puts before a text: BOS, or nothing."""
    opening: list[int] = loaded.tokenizer("")["input_ids"]
    return [token for token in opening if token not in loaded.end_ids]


def _summed(nll: torch.Tensor, counts: Sequence[int]) -> list[Likelihood]:
    sums = [float(part.double().sum()) for part in nll.split(list(counts))]
    return [Likelihood(total, count) for total, count in zip(sums, counts, strict=True)]


def _chunks(sizes: Sequence[int]) -> list[list[int]]:
    """Indices in order, cut so that the sizes of a chunk add up to `ROWS` or little more."""
    chunks: list[list[int]] = [[]]
    total = 0
    for index, size in enumerate(sizes):
        if total >= ROWS:
            chunks.append([])
            total = 0
        chunks[-1].append(index)
        total += size
    return [chunk for chunk in chunks if chunk]
