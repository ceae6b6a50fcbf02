"""Pairs → training text and prompts. Pure and seeded; knows nothing of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.vocabulary import NINE, Language, Pair, Part, Split, Strategy, Variant

PARTITION_SEED = 42
VALIDATION_SHARE = 0.2
TRAIN_PAIRS, TEST_PAIRS = 300, 100


def partition(pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """An unsplit language → (train, test): 300 + 100 of a permutation, or the same 3 : 1 of fewer than 400."""
    order = np.random.default_rng(PARTITION_SEED).permutation(len(pairs))
    n_train = TRAIN_PAIRS if len(pairs) >= TRAIN_PAIRS + TEST_PAIRS else len(pairs) * 3 // 4
    shuffled = [pairs[i] for i in order]
    return tuple(shuffled[:n_train]), tuple(shuffled[n_train : n_train + TEST_PAIRS])


@dataclass(frozen=True)
class Splits:
    """The one split that every strategy uses, limits applied. Indices of prompts count from 0."""

    train: Mapping[Language, tuple[Pair, ...]]
    test: Mapping[Language, tuple[Pair, ...]]
    limit_eval: int | None = None

    def prompt_pairs(self, split: Split, eval_lang: Language) -> tuple[Pair, ...]:
        """The pairs that a split prompts with one side of, in one language."""
        pairs = self.train[eval_lang] if split is Split.TOXIC_TRAIN else self.test[eval_lang]
        return pairs[: self.limit_eval]

    def parts(self, lang: Language) -> dict[Part, tuple[Pair, ...]]:
        """The pairs of a language that the limits leave: those to learn from, and those to prompt with."""
        return {Part.TRAIN: self.train[lang], Part.TEST: self.test[lang][: self.limit_eval]}

    def training_pairs(self, variant: Variant) -> list[Pair]:
        """The pairs whose neutral sentences `variant` learns, in the data set's order; empty for ZS."""
        match variant.strategy:
            case Strategy.ZS:
                return []
            case Strategy.X_FT:
                assert variant.train_lang is not None
                return list(self.train[Language(variant.train_lang)])
            case Strategy.P_FT | Strategy.M_FT:
                assert variant.train_fraction is not None and variant.seed is not None
                return [
                    self.train[lang][i]
                    for lang in map(Language, variant.pooled_langs or NINE)
                    for i in subset(len(self.train[lang]), variant.train_fraction, (variant.seed, lang.position))
                ]


def split(
    train: Mapping[Language, tuple[Pair, ...]],
    test: Mapping[Language, tuple[Pair, ...]],
    limit_train: int | None = None,
    limit_eval: int | None = None,
) -> Splits:
    """The first `limit_train` training pairs and `limit_eval` prompts of each language; None: all.

    The prompts of toxic-train are the toxic sides of the pairs that are left to learn from.
    """
    return Splits({lang: pairs[:limit_train] for lang, pairs in train.items()}, test, limit_eval)


def held_out(pairs: Sequence[Pair], seed: int, lang: Language) -> tuple[list[Pair], list[Pair]]:
    """Training pairs of a language → what a search learns, and the share of them that it is judged by."""
    chosen = set(subset(len(pairs), VALIDATION_SHARE, (seed, lang.position, 1)))
    return [p for i, p in enumerate(pairs) if i not in chosen], [p for i, p in enumerate(pairs) if i in chosen]


def subset(n: int, fraction: float, seed: tuple[int, ...]) -> list[int]:
    """Indices of a share of `n`, ascending; shares of one seed are nested, and none is empty."""
    size = max(1, min(n, int(n * fraction + 0.5)))
    return sorted(np.random.default_rng(seed).permutation(n)[:size].tolist())
