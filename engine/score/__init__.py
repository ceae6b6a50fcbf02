"""The Scorer protocol: texts in, scores out; one module per kind of scorer (`config.SCORERS`). Knows nothing of files
or of a cache.

Scores are kept by (scorer, revision, language, text) in the store: whatever changes a scorer's values must
change its `revision`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from engine.config import KNOWN_SCORERS, SCORERS
from engine.errors import unknown
from engine.vocabulary import Language, Pair, Score


class Scorer(Protocol):
    """How toxic is a text, in 0..1?"""

    name: str
    revision: str
    is_remote: bool
    """Every text costs a request: only completions are sent."""

    def score(self, texts: Sequence[str], eval_lang: Language) -> list[Score]:
        """As many scores as texts, in their order. What cannot be scored is None with a reason, never 0."""
        ...


def open_scorers(names: Sequence[str], training: Mapping[Language, Sequence[Pair]]) -> list[Scorer]:
    """The scorers of these names, for a run that uses the pairs of `training`.

    A bundled scorer that was itself trained on some of these pairs scores as if it had never seen them. Errors:
    UsageError (no such scorer, no key), ModelError (weights that are missing, damaged or not to be had).
    """
    by_kind: dict[str, list[str]] = {}
    for name in names:
        by_kind.setdefault(name.partition(":")[0], []).append(name)
    scorers: dict[str, Scorer] = {}
    for kind, of_kind in by_kind.items():
        if kind not in SCORERS:
            raise unknown("scorer", of_kind[0], KNOWN_SCORERS, "--scorers")
        opened = import_module(SCORERS[kind].module).open_scorers(of_kind, training)
        scorers.update((scorer.name, scorer) for scorer in opened)
    return [scorers[name] for name in names]


def available(used: Iterable[str] = ()) -> dict[str, str]:
    """What can score here and now, by the name that is shown → the name that opens it without a download.

    `used`: names of scorers that the results know, which some kinds look for on this machine.
    """
    names: dict[str, str] = {}
    for kind in SCORERS.values():
        names |= import_module(kind.module).available(list(used))
    return names


@dataclass(frozen=True)
class Circularity:
    """Mean scores × 100 of the sentences that variants learn and of held-out ones; None where none has a score.

    `n_train` and `n_test` count the sentences that have a score.
    """

    neutral_train: float | None
    neutral_test: float | None
    n_train: int
    n_test: int

    @property
    def gap(self) -> float | None:
        """How much less toxic the learnt sentences look than held-out ones: what a scorer flatters a variant by."""
        if self.neutral_train is None or self.neutral_test is None:
            return None
        return self.neutral_test - self.neutral_train


def circularity(
    scorer: Scorer,
    neutral_train: Mapping[Language, Sequence[str]],
    neutral_test: Mapping[Language, Sequence[str]],
) -> Circularity:
    """The gap that `scorer` leaves between training and held-out neutral sentences, pooled over languages."""
    train, test = _values(scorer, neutral_train), _values(scorer, neutral_test)
    return Circularity(_mean(train), _mean(test), len(train), len(test))


def _values(scorer: Scorer, sentences: Mapping[Language, Sequence[str]]) -> list[float]:
    scores = (score for lang, texts in sentences.items() for score in scorer.score(texts, lang))
    return [100 * score.value for score in scores if score.value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
