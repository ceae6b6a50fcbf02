"""The Scorer contract: texts in, scores out, one module a scorer. Knows nothing of files or of a cache.

Scores are kept by (scorer, revision, language, text) in the store: whatever changes a scorer's values must
change its `revision`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.config import KNOWN_SCORERS, PERSPECTIVE
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
    found: dict[str, Scorer] = {}
    remote = [name for name in names if name in PERSPECTIVE]
    if remote:
        from engine.score import perspective

        found.update((scorer.name, scorer) for scorer in perspective.open_scorers(remote))
    for name in names:
        if name == "ngram":
            from engine.score.ngram import NgramScorer

            found[name] = NgramScorer(training)
        elif name.partition(":")[0] == "classifier":
            from engine.score.classifier import ClassifierScorer

            found[name] = ClassifierScorer(name)
        elif name not in found:
            raise unknown("scorer", name, KNOWN_SCORERS, "--scorers")
    return [found[name] for name in names]


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
