"""The Generator contract: prompts and their variants in, completions out, one module a back end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.vocabulary import Completion, Sampling, Stream


class Generator(Protocol):
    """All prompts and their variants in one call, completions back in input order."""

    def generate(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> list[Completion]:
        """`adapters` and `streams`: one for all prompts, or as many as there are prompts; None is the bare base.

        Errors: KeyError for an adapter that is not loaded, ValueError for unequal lengths.
        """
        ...


@dataclass(frozen=True)
class Draft:
    """A completion that is being written: its text so far, whose last character may still be half a one (U+FFFD)."""

    text: str
    is_finished: bool


def uniforms(stream: Stream, size: int) -> list[float]:
    """The first `size` numbers in [0, 1) of a random stream. The key holds no variant: a variant and ZS meet
    the same numbers, and differ by their weights alone."""
    languages, splits = sorted(type(stream.eval_lang)), sorted(type(stream.split))
    key = (
        stream.seed,
        languages.index(stream.eval_lang),
        splits.index(stream.split),
        stream.prompt_index,
        stream.sample_index,
    )
    numbers: list[float] = np.random.default_rng(key).random(size).tolist()
    return numbers
