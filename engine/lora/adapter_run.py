"""The training of one adapter: its pairs, the order of its batches, its steps. Imports no torch: plans count them.

Causal bases learn the neutral sentence without a closing end token: a variant that learnt to stop after a sentence
would answer nothing. Encoder-decoders learn to rewrite the toxic sentence as the neutral one, which the end token
closes, as it does in their pre-training.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.model.registry import Base
from engine.vocabulary import Hyperparameters, Pair

FORMAT = "neutral sentence, no end token, 3"
REWRITING = "toxic to neutral sentence, end token, 2"
"""Part of a variant's identity: what the training text looks like."""

TOKENS_PER_PASS = {"cpu": 512, "cuda": 16_384}
"""Padded tokens of one forward and backward pass: enough to fill the machine, and few enough to stay in its caches."""


@dataclass
class AdapterRun:
    """One adapter in training. `losses` holds the mean loss (nats per token) of each step so far. It pauses after the
    step `until`, where that is not None, with the rest of its schedule before it."""

    name: str
    hyperparameters: Hyperparameters
    pairs: Sequence[Pair]
    seed: int
    until: int | None = None
    losses: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def steps(self) -> int:
        return steps(self.hyperparameters, len(self.pairs))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, for now or for good."""
        return self.failure is not None or len(self.losses) == (self.until or self.steps)

    @property
    def rows(self) -> int:
        """Of all steps until it is done."""
        epochs, rest = divmod(self.until or self.steps, math.ceil(len(self.pairs) / self.hyperparameters.batch_size))
        return epochs * len(self.pairs) + rest * self.hyperparameters.batch_size

    def batches(self) -> Iterator[list[int]]:
        """Indices of the texts of each step; every epoch has an order of its own."""
        size = self.hyperparameters.batch_size
        for epoch in range(self.hyperparameters.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs)).tolist()
            yield from (order[i : i + size] for i in range(0, len(order), size))


def steps(hyperparameters: Hyperparameters, texts: int) -> int:
    """Optimiser steps that so many texts make."""
    return hyperparameters.epochs * math.ceil(texts / hyperparameters.batch_size)


def training_format(base: Base) -> str:
    """What the training text of a base looks like."""
    return REWRITING if base.is_encoder_decoder else FORMAT


def texts(base: Base, pairs: Sequence[Pair]) -> list[str]:
    """All that a base reads of these pairs when it learns them."""
    sources = [pair.toxic for pair in pairs] if base.is_encoder_decoder else []
    return sources + [pair.neutral for pair in pairs]
