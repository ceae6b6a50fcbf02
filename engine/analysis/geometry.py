"""Geometry of sentence embeddings: similarity of groups, silhouettes of languages, a projection. Numpy in and out.

Lengths are taken away first (`unit`), so that only directions count: on vectors of length 1 the cosine and the
Euclidean distance order everything alike, and similarities, silhouettes, map and distances speak of one space.
Knows nothing of models, text or results.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.vocabulary import Language, Part, Side

Vectors = NDArray[np.float64]
"""[sentences, dimensions]."""

COMBINED = "combined"
"""Both parts together."""

MAP_SENTENCES = 100
"""The most sentences of a group that a map keeps."""


@dataclass(frozen=True)
class Axes:
    """The two directions of a map: `centre` [d] and `directions` [2, d]."""

    centre: Vectors
    directions: Vectors


@dataclass(frozen=True)
class Geometry:
    """What is known of one variant's embeddings. Tables as the functions here make them; `map_share`: how much of
    the variance the map shows."""

    n_sentences: int
    similarities: pd.DataFrame
    silhouettes: pd.DataFrame
    distances: pd.DataFrame
    points: pd.DataFrame
    map_share: float


def measure(vectors: NDArray[np.floating], sentences: pd.DataFrame, axes: Axes) -> Geometry:
    """All of it, of one variant.

    `vectors`: [sentences, dimensions]. `sentences`: eval_lang, part, side and sentence_index of each; sentence i of
    the toxic side is the pair of sentence i of the neutral one.
    """
    units = unit(vectors)
    points, share = project(units, axes)
    is_kept = (sentences["sentence_index"] < MAP_SENTENCES).to_numpy()
    return Geometry(
        n_sentences=len(units),
        similarities=similarities(units, sentences),
        silhouettes=silhouettes(units, sentences),
        distances=distances(units, sentences),
        points=sentences.assign(x=points[:, 0], y=points[:, 1])[is_kept],
        map_share=share,
    )


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """The same directions, of length 1."""
    exact = np.asarray(vectors, dtype=float)
    units: Vectors = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return units


def groups_of(sentences: pd.DataFrame) -> pd.Series:
    """The group of each sentence, `de train toxic`: its language, part and side."""
    return sentences["eval_lang"] + " " + sentences["part"] + " " + sentences["side"]


def similarities(units: Vectors, sentences: pd.DataFrame) -> pd.DataFrame:
    """Mean cosine similarity over all pairs of sentences of two groups, and of one with itself: group_a, group_b,
    n_pairs, similarity. Each two groups once, in the order of language, part and side.

    No sentence is paired with itself, so a group of one has no similarity with itself: NaN.
    The mean over pairs is a product of sums, so nothing of the size of all pairs is ever made.
    """
    of = groups_of(sentences).to_numpy()
    names = [f"{lang} {part} {side}" for lang in Language for part in Part for side in Side]
    sums = {name: units[of == name].sum(0) for name in names if (of == name).any()}
    sizes = {name: int((of == name).sum()) for name in sums}
    rows = []
    for i, a in enumerate(sums):
        for b in list(sums)[i:]:
            n_self = sizes[a] if a == b else 0
            n_pairs = (sizes[a] * sizes[b] - n_self) // (2 if n_self else 1)
            total = (float(sums[a] @ sums[b]) - n_self) / (2 if n_self else 1)
            rows.append((a, b, n_pairs, total / n_pairs if n_pairs else np.nan))
    return pd.DataFrame(rows, columns=["group_a", "group_b", "n_pairs", "similarity"])


def silhouettes(units: Vectors, sentences: pd.DataFrame) -> pd.DataFrame:
    """Mean silhouette (Rousseeuw 1987, cosine distance) of a language's sentences: clusters, part, eval_lang, n,
    silhouette. Near 1 a sentence lies with its cluster, at 0 between two, below 0 with another one.

    `clusters` is `language` (all languages of a part, each a cluster) or `toxicity` (the two sides within a
    language). NaN where there is but one cluster.
    """
    langs = sentences["eval_lang"].to_numpy()
    rows = []
    for part, is_in in _parts(sentences):
        by_language = _silhouettes(units[is_in], langs[is_in])
        for lang in _languages(sentences):
            of_lang = by_language[langs[is_in] == lang]
            rows.append(("language", part, lang, len(of_lang), of_lang.mean()))
            is_own = is_in & (langs == lang)
            by_toxicity = _silhouettes(units[is_own], sentences["side"].to_numpy()[is_own])
            rows.append(("toxicity", part, lang, len(by_toxicity), by_toxicity.mean()))
    return pd.DataFrame(rows, columns=["clusters", "part", "eval_lang", "n", "silhouette"])


def _silhouettes(units: Vectors, labels: NDArray[np.object_]) -> Vectors:
    from sklearn.metrics import silhouette_samples

    if not 1 < len(np.unique(labels)) < len(labels):
        return np.full(len(labels), np.nan)
    silhouettes: Vectors = silhouette_samples(units, labels, metric="cosine")
    return silhouettes


def distances(units: Vectors, sentences: pd.DataFrame) -> pd.DataFrame:
    """How far toxic text lies from neutral text of its language: part, eval_lang, n_pairs, pair_distance,
    mean_distance. Cosine distances: of a toxic sentence from its own rewrite, on average; and of the mean directions.
    """
    langs, sides = sentences["eval_lang"].to_numpy(), sentences["side"].to_numpy()
    rows = []
    for part, is_in in _parts(sentences):
        for lang in _languages(sentences):
            is_own = is_in & (langs == lang)
            toxic, neutral = units[is_own & (sides == Side.TOXIC)], units[is_own & (sides == Side.NEUTRAL)]
            mean_t, mean_n = toxic.mean(0), neutral.mean(0)
            between = 1 - mean_t @ mean_n / np.linalg.norm(mean_t) / np.linalg.norm(mean_n)
            rows.append((part, lang, len(toxic), 1 - (toxic * neutral).sum(1).mean(), between))
    return pd.DataFrame(rows, columns=["part", "eval_lang", "n_pairs", "pair_distance", "mean_distance"])


def map_axes(vectors: NDArray[np.floating]) -> Axes:
    """The two main directions of these embeddings (principal components), always the same for the same numbers."""
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, svd_solver="covariance_eigh").fit(unit(vectors))
    return Axes(fitted.mean_, fitted.components_)


def project(units: Vectors, axes: Axes) -> tuple[Vectors, float]:
    """Where each sentence lies on the map [sentences, 2], and the share of their variance that it shows."""
    points = (units - axes.centre) @ axes.directions.T
    return points, float(points.var(0).sum() / units.var(0).sum())


def _parts(sentences: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for part in sentences["part"].unique():
        yield str(part), (sentences["part"] == part).to_numpy()
    yield COMBINED, np.ones(len(sentences), dtype=bool)


def _languages(sentences: pd.DataFrame) -> list[str]:
    return [str(lang) for lang in sentences["eval_lang"].unique()]
