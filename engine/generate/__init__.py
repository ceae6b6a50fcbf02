"""The Generator protocol: prompts and their variants in, completions and likelihoods out; one module per backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from engine.vocabulary import Completion, Likelihood, Pair, Sampling, Stream


class Generator(Protocol):
    """A base with its adapters, by name; None is the bare base. What comes back is in the order of what goes in.

    Errors: KeyError for an adapter that is not there, ValueError for unequal lengths.
    """

    def generate(
        self,
        prompts: Sequence[str],
        adapters: str | None | Sequence[str | None],
        streams: Stream | Sequence[Stream],
        sampling: Sampling,
    ) -> list[Completion]:
        """All prompts in one call. `adapters` and `streams`: one for all of them, or as many as there are prompts."""
        ...

    def of_texts(self, texts: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Likelihood]:
        """The likelihood of bare texts (token ids): see `engine.generate.likelihood`."""
        ...

    def after_prompts(self, prompts: Sequence[str], texts: Sequence[Sequence[int]]) -> list[Likelihood]:
        """The likelihood of texts (token ids) after the prompts they answered, under the bare base."""
        ...

    def of_pairs(self, pairs: Sequence[Pair], adapters: Sequence[str | None]) -> list[Likelihood]:
        """The likelihood of the neutral sentences: bare ones, or given the toxic ones under an encoder-decoder."""
        ...


@dataclass(frozen=True)
class Draft:
    """A completion that is being written: its text so far, whose last character may still be half a one (U+FFFD)."""

    text: str
    is_finished: bool


def has_vllm() -> bool:
    """Whether vLLM can be imported, without importing it."""
    return find_spec("vllm") is not None


def adapters_and_streams(
    prompts: Sequence[str], adapters: str | None | Sequence[str | None], streams: Stream | Sequence[Stream]
) -> tuple[list[str | None], list[Stream]]:
    """The adapter and the stream of every prompt. Errors: ValueError."""
    names = list(adapters) if not isinstance(adapters, str | None) else [adapters] * len(prompts)
    keys = [streams] * len(prompts) if isinstance(streams, Stream) else list(streams)
    if not len(prompts) == len(names) == len(keys):
        raise ValueError(f"{len(prompts)} prompts, {len(names)} adapters and {len(keys)} streams")
    return names, keys


def uniforms(stream: Stream, size: int) -> list[float]:
    """The first `size` numbers in [0, 1) of a random stream. The key holds no variant: a variant and ZS meet
    the same numbers, and differ by their weights alone."""
    numbers: list[float] = np.random.default_rng(_key(stream)).random(size).tolist()
    return numbers


def seed_of(stream: Stream) -> int:
    """A seed for backends that draw numbers of their own: 32 bits, the same for every variant."""
    return int(np.random.SeedSequence(_key(stream)).generate_state(1)[0])


def _key(stream: Stream) -> tuple[int, ...]:
    splits = sorted(type(stream.split))
    return (
        stream.seed,
        stream.eval_lang.position,
        splits.index(stream.split),
        stream.prompt_index,
        stream.sample_index,
    )
