"""The transformers back end: all variants of a base in one stream of batches, each row with its own adapter."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.config import ROWS_PER_UNIT
from engine.generate import uniforms
from engine.lora import Stack
from engine.models import Loaded
from engine.vocabulary import Completion, Sampling, Stream


class TransformersGenerator:
    """Text from a stack of adapters; the draw needs no sort of the vocabulary (top-k comes before top-p)."""

    def __init__(self, loaded: Loaded, stack: Stack) -> None:
        self.loaded, self.stack = loaded, stack

    def generate(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> list[Completion]:
        """See `Generator`. A batch is the groups' rows side by side, each group's prompts from short to long."""
        names = list(adapters) if not isinstance(adapters, str | None) else [adapters] * len(prompts)
        keys = [streams] * len(prompts) if isinstance(streams, Stream) else list(streams)
        if not len(prompts) == len(names) == len(keys):
            raise ValueError(f"{len(prompts)} prompts, {len(names)} adapters and {len(keys)} streams")
        tokens: list[list[int]] = self.loaded.tokenizer(list(prompts))["input_ids"] if prompts else []
        completions: list[Completion | None] = [None] * len(prompts)
        for groups in batches(names, [len(ids) for ids in tokens]):
            order = [row for rows in groups.values() for row in rows]
            numbers = torch.tensor([uniforms(keys[row], sampling.max_new_tokens) for row in order])
            with self.stack.groups(list(groups)):
                written = self._write([tokens[row] for row in order], len(groups), numbers, sampling)
            for row, ids in zip(order, written, strict=True):
                text = str(self.loaded.tokenizer.decode(ids, skip_special_tokens=True))
                completions[row] = Completion(text, tuple(ids))
        return [completion for completion in completions if completion is not None]

    @torch.inference_mode()
    def _write(self, tokens: list[list[int]], groups: int, numbers: Tensor, sampling: Sampling) -> list[list[int]]:
        """One batch of so many groups, left-padded: prompts → new tokens, each row until its end token or the limit."""
        device = self.loaded.device
        numbers = numbers.to(device)
        ends = torch.tensor(sorted(self.loaded.end_ids), device=device)
        reader = Reader(self.loaded)
        # What all prompts begin with is read once a group.
        shared = min(len(os.path.commonprefix(tokens)), min(map(len, tokens)) - 1)
        if shared:
            reader.read(torch.tensor([tokens[0][:shared]] * groups, device=device))
            reader.repeat(torch.arange(groups, device=device).repeat_interleave(len(tokens) // groups))
        ids, mask = left_padded([row[shared:] for row in tokens], device)
        hidden = reader.read(ids, mask)[:, -1]
        finished = torch.zeros(len(ids), dtype=torch.bool, device=device)
        steps: list[Tensor] = []
        for step in range(sampling.max_new_tokens):
            drawn = draw(*self.loaded.head.best(hidden, sampling.top_k), numbers[:, step], sampling)
            steps.append(torch.where(finished, ends[0], drawn))
            finished = finished | torch.isin(drawn, ends)
            if step + 1 == sampling.max_new_tokens or bool(finished.all()):
                break
            hidden = reader.read(steps[-1][:, None])[:, -1]
        end_ids = self.loaded.end_ids
        written = torch.stack(steps, 1).tolist()
        return [row[: next((i for i, token in enumerate(row) if token in end_ids), len(row))] for row in written]


class Reader:
    """Reads tokens through the base with a cache, a piece at a time; rows may be padded on the left."""

    def __init__(self, loaded: Loaded) -> None:
        from transformers import DynamicCache

        self.model: Any = loaded.model.base_model
        self.cache: Any = DynamicCache(config=loaded.model.config)
        self.mask = torch.empty(0)
        self.takes_positions = loaded.takes_positions

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token ids [n, t] and their mask (None: all real) → hidden states [n, t, d]; the cache grows by t."""
        mask = torch.ones_like(ids) if mask is None else mask
        self.mask = torch.cat([self.mask, mask], 1) if self.mask.numel() else mask
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        known = {"position_ids": positions} if self.takes_positions else {}
        hidden: Tensor = self.model(
            input_ids=ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **known
        ).last_hidden_state
        return hidden

    def repeat(self, rows: Tensor) -> None:
        """Makes the cache that of `rows`, an index into the rows so far, which may repeat."""
        self.cache.reorder_cache(rows)
        self.mask = self.mask[rows]


def draw(logits: Tensor, ids: Tensor, numbers: Tensor, sampling: Sampling) -> Tensor:
    """The k best logits [n, k] (descending) and their ids, and a number in [0, 1) a row → a token a row.

    Temperature, softmax over the k best, the smallest nucleus that holds `top_p`, inverse of its distribution
    function. Temperature 0 takes the best.
    """
    if sampling.temperature == 0:
        return ids[:, 0]
    probabilities = (logits / sampling.temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    nucleus = torch.where(cumulative - probabilities < sampling.top_p, probabilities, 0.0).cumsum(-1)
    chosen = (nucleus <= numbers[:, None] * nucleus[:, -1:]).sum(-1, keepdim=True)
    last = (nucleus < nucleus[:, -1:]).sum(-1, keepdim=True)  # rounding may not step past the nucleus
    return ids.gather(1, torch.minimum(chosen, last))[:, 0]


def left_padded(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of rows of any length → ids [n, t] and mask [n, t], padded on the left with 0."""
    width = max(map(len, tokens))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in tokens], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
    return ids, mask


def right_padded(tokens: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token ids of rows of any length → ids [n, t], padded on the right with 0."""
    width = max(map(len, tokens))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens], device=device)


def batches(names: Sequence[str | None], lengths: Sequence[int]) -> list[dict[str | None, list[int]]]:
    """Rows → batches of groups of equal size: adapter → indices of rows, from short to long.

    A group that has fewer rows than its neighbours repeats its last one.
    """
    rows_of: dict[str | None, list[int]] = {}
    for row in sorted(range(len(names)), key=lambda row: lengths[row]):
        rows_of.setdefault(names[row], []).append(row)
    rows_of = {name: rows_of[name] for name in dict.fromkeys(names)}
    size = max(1, ROWS_PER_UNIT // max(1, len(rows_of)))
    found = []
    for start in range(0, max(map(len, rows_of.values()), default=0), size):
        groups = {name: rows[start : start + size] for name, rows in rows_of.items() if rows[start:]}
        most = max(map(len, groups.values()))
        found.append({name: rows + rows[-1:] * (most - len(rows)) for name, rows in groups.items()})
    return found
