"""The transformers backend: all variants of a base in one continuous batch, each row with its own adapter."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from engine.config import BATCH_ROWS
from engine.generate import Draft, adapters_and_streams, likelihood, uniforms
from engine.generate.reader import Reader, by_adapter, equal_groups, left_padded, open_reader
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase, halving
from engine.vocabulary import Completion, Likelihood, Pair, Sampling, Stream

T = TypeVar("T")

IDLE = 1 / 4
"""The share of a batch that has finished when its rows leave, and others enter."""


@dataclass
class _Row:
    """A prompt's token ids, the numbers its tokens are drawn with, and what is written so far."""

    prompt: list[int]
    numbers: list[float]
    written: list[int] = field(default_factory=list)
    is_finished: bool = False

    def add(self, token: int, end_ids: frozenset[int]) -> None:
        if token in end_ids:
            self.is_finished = True
        else:
            self.written.append(token)
            self.is_finished = len(self.written) == len(self.numbers)


class TransformersGenerator:
    """Text from a stack of adapters, `batch_rows` rows at once; the draw needs no sort of the vocabulary (top-k comes
    before top-p)."""

    def __init__(self, loaded: LoadedBase, stack: Stack, batch_rows: int = BATCH_ROWS, is_chat: bool = False) -> None:
        self.loaded, self.stack, self.batch_rows, self.is_chat = loaded, stack, batch_rows, is_chat

    def generate(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> list[Completion]:
        """See `Generator`. A row that has finished leaves, and the next one of its adapter, from short prompts to
        long, takes its seat."""

        def generate(batch_rows: int) -> list[Completion]:
            rows, names = self._rows(prompts, adapters, streams, sampling)
            for _ in self._steps(rows, names, sampling, batch_rows):
                pass
            return [Completion(self._text(row), tuple(row.written)) for row in rows]

        return self._in_memory(generate, self.batch_rows)

    def stream(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> Generator[list[Draft], None, None]:
        """What `generate` is writing, after every token; the last drafts hold the texts that it returns.

        The stack is busy until the iterator has ended or is closed, which stops the writing.
        """
        rows, names = self._rows(prompts, adapters, streams, sampling)
        # Closed at once, and not when it is collected.
        with closing(self._steps(rows, names, sampling, self.batch_rows)) as steps:
            for _ in steps:
                yield [Draft(self._text(row), row.is_finished) for row in rows]

    def of_texts(self, texts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Likelihood]:
        judge = partial(likelihood.of_texts, self.loaded, self.stack, texts, adapters)
        return self._in_memory(judge, min(BATCH_ROWS, self.batch_rows))

    def after_prompts(self, prompts: Sequence[str], texts: Sequence[Sequence[int]]) -> list[Likelihood]:
        judge = partial(likelihood.after_prompts, self.loaded, self.stack, prompts, texts, is_chat=self.is_chat)
        return self._in_memory(judge, min(BATCH_ROWS, self.batch_rows))

    def of_pairs(self, pairs: Sequence[Pair], adapters: Sequence[str | None]) -> list[Likelihood]:
        judge = partial(likelihood.of_pairs, self.loaded, self.stack, pairs, adapters)
        return self._in_memory(judge, min(BATCH_ROWS, self.batch_rows))

    def _in_memory(self, work: Callable[[int], T], batch_rows: int) -> T:
        """What `work` returns for so many rows at once; for half of them, from now on, where memory is short."""
        result, fitting = halving(work, batch_rows, "rows")
        if fitting < batch_rows:
            self.batch_rows = fitting
        return result

    def _rows(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> tuple[list[_Row], list[str | None]]:
        """The rows to write, and the adapter of each."""
        names, keys = adapters_and_streams(prompts, adapters, streams)
        tokens = self.loaded.encode(prompts, self.is_chat)
        rows = [_Row(ids, uniforms(key, sampling.max_new_tokens)) for ids, key in zip(tokens, keys, strict=True)]
        return rows, names

    def _text(self, row: _Row) -> str:
        return str(self.loaded.tokenizer.decode(row.written, skip_special_tokens=True))

    @torch.inference_mode()
    def _steps(
        self, rows: list[_Row], names: list[str | None], sampling: Sampling, batch_rows: int
    ) -> Generator[None, None, None]:
        """Writes all rows, and pauses after every token of those that are seated."""
        waiting = by_adapter(names, [len(row.prompt) for row in rows])
        seats = max(1, batch_rows // max(1, len(waiting)))
        seated: dict[str | None, list[int]] = {name: [] for name in waiting}
        reader, hidden, place = open_reader(self.loaded), torch.empty(0), dict[int, int]()
        while True:
            entering: dict[str | None, list[int]] = {}
            for name, queue in waiting.items():
                staying = [row for row in seated[name] if not rows[row].is_finished]
                free = seats - len(staying)
                entering[name], waiting[name] = queue[:free], queue[free:]
                seated[name] = staying + entering[name]
            order = [row for group in equal_groups(seated).values() for row in group]
            if not order:
                break
            if any(entering.values()):
                new = equal_groups(entering)
                read, last = self._read([[rows[row].prompt for row in group] for group in new.values()], list(new))
                place |= _first_positions([row for group in new.values() for row in group], len(hidden))
                if len(hidden):
                    reader.join(read)
                    hidden = torch.cat([hidden, last])
                else:
                    reader, hidden = read, last
            chosen = torch.tensor([place[row] for row in order], device=self.loaded.device)
            place = _first_positions(order)
            reader.select(chosen)
            with self.stack.groups([name for name in seated if seated[name]]):
                hidden = yield from self._write(
                    [rows[row] for row in order], list(place.values()), reader, hidden[chosen], sampling
                )

    def _read(self, groups: list[list[list[int]]], names: list[str | None]) -> tuple[Reader, Tensor]:
        """Prompts of equally large groups → the reader that has read them, and the last hidden states [n, d]."""
        device = self.loaded.device
        tokens = [prompt for group in groups for prompt in group]
        reader = open_reader(self.loaded)
        with self.stack.groups(names):
            # What all prompts begin with is read once a group.
            shared = min(len(os.path.commonprefix(tokens)), min(map(len, tokens)) - 1) * reader.reads_in_pieces
            if shared:
                reader.read(torch.tensor([tokens[0][:shared]] * len(groups), device=device))
                reader.select(torch.arange(len(groups), device=device).repeat_interleave(len(groups[0])))
            return reader, reader.read(*left_padded([row[shared:] for row in tokens], device))[:, -1]

    def _write(
        self, rows: list[_Row], batch_rows: list[int], reader: Reader, hidden: Tensor, sampling: Sampling
    ) -> Generator[None, None, Tensor]:
        """Goes on with a batch until all rows have finished, or enough for others to enter, and pauses after every
        token; `batch_rows`: one of each row. Hidden states [n, d] of the last tokens in, and out."""
        group_rows, end_ids = [rows[seat] for seat in batch_rows], self.loaded.end_ids
        while True:
            numbers = [0.0 if row.is_finished else row.numbers[len(row.written)] for row in rows]
            best = self.loaded.lm_head.best(hidden, sampling.top_k)
            drawn = draw(*best, torch.tensor(numbers, device=hidden.device), sampling)
            tokens = drawn.tolist()
            for row, seat in zip(group_rows, batch_rows, strict=True):
                if not row.is_finished:
                    row.add(tokens[seat], end_ids)
            yield
            finished = sum(row.is_finished for row in group_rows)
            if finished == len(group_rows):
                return hidden
            hidden = reader.read(drawn[:, None])[:, -1]
            if finished >= IDLE * len(group_rows):
                return hidden


def _first_positions(order: list[int], begin: int = 0) -> dict[int, int]:
    """Row → the first seat that it has."""
    return {row: begin + seat for seat, row in reversed(list(enumerate(order)))}


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
