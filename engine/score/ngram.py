"""The bundled scorer: hashed n-grams into a logistic regression, cross-fitted where a run uses its training pairs.

Owns the features, the folds and the format of `data/ngram/weights.npz`; `train_ngram.py` makes that file.
scikit-learn is imported at the first score, not before: the app opens this module.

A scorer that was trained on the text a variant learnt flatters the variant. So the file holds, beside the full
model, one model a fold that has not seen that fold's pairs, and a digest of every sentence seen. When a run uses
such sentences, each text is scored by the fold model that has not seen the training sentence nearest to it
(cross-fitting: Chernozhukov et al., 2018). Fold and full models are equally well calibrated (see the model card), so
no probability is rescaled; one run never mixes the two.
"""

import hashlib
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import regex
from numpy.typing import NDArray

from engine.config import DATA
from engine.errors import ModelError
from engine.vocabulary import NINE, Language, Pair, Score, digest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WEIGHTS = DATA / "ngram" / "weights.npz"
FORMAT = 2
"""Of features and weights together: raise it when the same file would give other values."""

FOLDS = 5
BITS = 18
"""2 ** BITS columns for characters and as many for words: smaller ones collide and lose AUC."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]*\p{L}[\p{L}\p{M}\p{N}]*")
_FORMATTING = regex.compile(r"\p{Cf}")

TEXTS_PER_BLOCK = 1000
"""Texts compared with the training sentences at once: bounds the memory that it takes."""


@dataclass(frozen=True)
class Weights:
    """What the file holds. Row 0 is the full model; row 1 + k has not seen the sentences of fold k."""

    coefficients: NDArray[np.int8]
    """[1 + FOLDS, 2 ** (BITS + 1)], in steps of `steps`."""
    steps: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    digests: NDArray[np.uint64]
    """Of every sentence seen in training, ascending."""
    folds: NDArray[np.uint8]
    """The fold of each digest."""


def read(path: Path) -> tuple[Weights, str]:
    """The weights and their revision, which names their format and content. Errors: ModelError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            weights = Weights(**arrays)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ModelError(
            f"{path}: the n-gram scorer's weights are missing or damaged ({type(error).__name__}). Restore the file, "
            f"or rebuild it: python -m engine.score.train_ngram FOLDER."
        ) from error
    return weights, f"{FORMAT}-{content[:8]}"


def sentence_digests(sentences: Iterable[str]) -> NDArray[np.uint64]:
    """8 bytes of SHA-256 of each sentence, its case, compatibility forms and spacing evened out."""
    evened = (" ".join(unicodedata.normalize("NFKC", s).casefold().split()) for s in sentences)
    return np.array([int.from_bytes(hashlib.sha256(s.encode()).digest()[:8], "big") for s in evened], np.uint64)


def words_of(text: str) -> str:
    """The words of a text, a space between: runs of letters, marks and digits that hold a letter.

    All that is scored: punctuation and spacing are a habit of a data set, and say nothing of toxicity. Compatibility
    forms are evened out (NFKC), and characters that only format (zero-width ones) do not part a word.
    """
    return " ".join(_WORD.findall(_FORMATTING.sub("", unicodedata.normalize("NFKC", text))))


def features(texts: Sequence[str]) -> "csr_matrix":
    """[texts, 2 ** (BITS + 1)]: word-bounded character 1–5-grams, then words; each half of length 1."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 5), n_features=2**BITS, dtype=np.float32)
    words = HashingVectorizer(n_features=2**BITS, dtype=np.float32)
    bare = [words_of(text) for text in texts]
    return hstack([characters.transform(bare), words.transform(bare)], format="csr")


class NgramScorer:
    """Scores by the full model, or cross-fitted where `training` holds sentences the scorer was trained on.

    `revision` tells the two, and every set of such sentences, apart.
    """

    name = "ngram"
    is_remote = False

    def __init__(self, training: Mapping[Language, Sequence[Pair]], path: Path = WEIGHTS) -> None:
        self._weights, self.revision = read(path)
        self._seen, self._seen_folds = self._seen_in(training)
        if self._seen:
            self.revision += f"+cross-fit-{digest(self._seen)}"

    def _seen_in(self, training: Mapping[Language, Sequence[Pair]]) -> tuple[list[str], NDArray[np.intp]]:
        """The sentences of `training` that the scorer has seen, in an order of their own, and their folds."""
        pairs = (pair for pairs in training.values() for pair in pairs)
        sentences = sorted({sentence for pair in pairs for sentence in (pair.toxic, pair.neutral)})
        digests = sentence_digests(sentences)
        is_seen = np.isin(digests, self._weights.digests)
        at = np.searchsorted(self._weights.digests, digests[is_seen])
        return list(compress(sentences, is_seen)), self._weights.folds[at].astype(np.intp)

    @cached_property
    def _coefficients(self) -> NDArray[np.float32]:
        """[features, models]."""
        return np.ascontiguousarray((self._weights.coefficients * self._weights.steps[:, None]).T)

    @cached_property
    def _seen_features(self) -> "csr_matrix":
        """[features, seen sentences]."""
        return features(self._seen).T.tocsr()

    def score(self, texts: Sequence[str], eval_lang: Language) -> list[Score]:
        """One model serves the nine languages that it was trained on, so which of them `eval_lang` is changes nothing:
        a variant may answer in another one. Others have no score."""
        if eval_lang not in NINE:
            return [Score(None, "unsupported-language" if text.strip() else "empty") for text in texts]
        scores = [Score(None, "no-words" if text.strip() else "empty") for text in texts]
        scorable = [i for i, text in enumerate(texts) if words_of(text)]
        for start in range(0, len(scorable), TEXTS_PER_BLOCK):
            block = scorable[start : start + TEXTS_PER_BLOCK]
            for i, value in zip(block, self._probabilities([texts[i] for i in block]), strict=True):
                scores[i] = Score(float(value))
        return scores

    def _probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        text_features = features(texts)
        logits = text_features @ self._coefficients + self._weights.intercepts
        model = np.zeros(len(texts), np.intp)
        if self._seen:
            nearest = np.asarray((text_features @ self._seen_features).argmax(axis=1)).ravel()
            model = 1 + self._seen_folds[nearest]
        chosen: NDArray[np.float64] = logits[np.arange(len(texts)), model].astype(np.float64)
        return 1 / (1 + np.exp(-chosen))


def open_scorers(names: Sequence[str], training: Mapping[Language, Sequence[Pair]]) -> list[NgramScorer]:
    """The bundled scorer, for a run that uses the pairs of `training`. Errors: ModelError."""
    return [NgramScorer(training) for _ in names]


def available(used: Sequence[str]) -> dict[str, str]:
    """Always."""
    return {"ngram": "ngram"}
