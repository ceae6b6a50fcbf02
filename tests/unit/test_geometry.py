"""The arithmetic of embeddings against numbers worked out by hand, against all pairs one by one, and scikit-learn."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples
from sklearn.metrics.pairwise import cosine_similarity

from engine.analysis import geometry

SIDES = ("toxic", "neutral")


def places(langs: tuple[str, ...], sizes: dict[str, int]) -> pd.DataFrame:
    """Sentences in the order in which they are embedded, so many a part and side."""
    rows = [
        (lang, part, side, index)
        for lang, (part, size), side in product(langs, sizes.items(), SIDES)
        for index in range(size)
    ]
    return pd.DataFrame(rows, columns=["eval_lang", "part", "side", "sentence_index"])


@pytest.fixture(scope="module")
def sentences() -> pd.DataFrame:
    return places(("de", "en", "zh"), {"train": 5, "test": 3})


@pytest.fixture(scope="module")
def vectors(sentences: pd.DataFrame) -> NDArray[np.float64]:
    """Languages apart, sides a little, lengths of all sizes."""
    rng = np.random.default_rng(1)
    centres = {lang: rng.normal(size=6) for lang in ("de", "en", "zh")}
    rows = [centres[lang] + 0.3 * (side == "toxic") for lang, side in sentences[["eval_lang", "side"]].to_numpy()]
    return (np.array(rows) + rng.normal(scale=0.4, size=(len(rows), 6))) * rng.uniform(0.1, 50, (len(rows), 1))


def test_similarities_of_right_angles_by_hand() -> None:
    """Toxic: east, north, east. Neutral: east, south, west. 2 pairs of 3 within toxic are orthogonal, 1 is equal."""
    sentences = places(("de",), {"train": 3})
    east, north = [2.0, 0.0], [0.0, 3.0]
    vectors = np.array([east, north, east, east, [0.0, -1.0], [-5.0, 0.0]])
    found = geometry.similarities(geometry.unit(vectors), sentences).set_index(["group_a", "group_b"])
    toxic, neutral = "de train toxic", "de train neutral"
    assert found["n_pairs"].to_dict() == {(toxic, toxic): 3, (toxic, neutral): 9, (neutral, neutral): 3}
    assert found.loc[(toxic, toxic), "similarity"] == pytest.approx(1 / 3)
    assert found.loc[(toxic, neutral), "similarity"] == pytest.approx((1 - 1 - 1 + 1 - 1) / 9)
    assert found.loc[(neutral, neutral), "similarity"] == pytest.approx(-1 / 3)


def test_similarities_are_means_over_all_pairs_but_of_a_sentence_with_itself(
    vectors: NDArray[np.float64], sentences: pd.DataFrame
) -> None:
    found = geometry.similarities(geometry.unit(vectors), sentences)
    assert len(found) == 12 * 13 // 2
    pairs, of = cosine_similarity(vectors), geometry.groups_of(sentences).to_numpy()
    for row in found.itertuples():
        block = pairs[np.ix_(of == row.group_a, of == row.group_b)]
        values = block[~np.eye(len(block), dtype=bool)] if row.group_a == row.group_b else block
        assert row.similarity == pytest.approx(values.mean())
    assert list(found["group_a"].unique()[:3]) == ["de train toxic", "de train neutral", "de test toxic"]


def test_a_single_sentence_has_no_similarity_with_its_own_group() -> None:
    sentences = places(("de",), {"test": 1})
    found = geometry.similarities(geometry.unit(np.array([[1.0, 0.0], [1.0, 1.0]])), sentences)
    assert found["n_pairs"].tolist() == [0, 1, 0]
    assert found["similarity"].isna().tolist() == [True, False, True]
    assert found["similarity"][1] == pytest.approx(0.5**0.5)


def test_silhouettes_are_scikit_learns_by_part(vectors: NDArray[np.float64], sentences: pd.DataFrame) -> None:
    found = geometry.silhouettes(geometry.unit(vectors), sentences)
    assert len(found) == 2 * 3 * 3
    for row in found.itertuples():
        is_in = (sentences["part"] == row.part) | (row.part == geometry.COMBINED)
        is_own = sentences["eval_lang"] == row.eval_lang
        if row.clusters == "toxicity":
            is_in &= is_own
        label = sentences.loc[is_in, "eval_lang" if row.clusters == "language" else "side"]
        samples = silhouette_samples(vectors[is_in], label, metric="cosine")
        assert row.silhouette == pytest.approx(samples[is_own[is_in]].mean())
        assert row.n == (is_in & is_own).sum()


def test_languages_at_right_angles_have_a_silhouette_of_one() -> None:
    sentences = places(("de", "en"), {"test": 2})
    vectors = np.repeat([[1.0, 0.0], [0.0, 1.0]], 4, axis=0)
    found = geometry.silhouettes(geometry.unit(vectors), sentences).query("clusters == 'language' and part == 'test'")
    assert found["silhouette"].tolist() == pytest.approx([1.0, 1.0])


def test_one_language_alone_has_no_silhouette_by_language(
    vectors: NDArray[np.float64], sentences: pd.DataFrame
) -> None:
    is_own = (sentences["eval_lang"] == "de").to_numpy()
    found = geometry.silhouettes(geometry.unit(vectors[is_own]), sentences[is_own])
    assert found.groupby("clusters")["silhouette"].apply(lambda s: s.isna().all()).to_dict() == {
        "language": True,
        "toxicity": False,
    }


def test_distances_by_hand() -> None:
    """Each toxic sentence at a right angle to its rewrite, and yet the two means point the same way."""
    sentences = places(("de",), {"train": 2, "test": 1})
    east, north = [1.0, 0.0], [0.0, 4.0]
    vectors = np.array([east, north, north, east, east, [-1.0, 0.0]])
    found = geometry.distances(geometry.unit(vectors), sentences).set_index("part")
    assert found["n_pairs"].to_dict() == {"train": 2, "test": 1, "combined": 3}
    assert found["pair_distance"].to_dict() == pytest.approx({"train": 1.0, "test": 2.0, "combined": 4 / 3})
    # Combined: toxic sums to (2, 1), neutral to (0, 1).
    by_hand = {"train": 0.0, "test": 2.0, "combined": 1 - 1 / 5**0.5}
    assert found["mean_distance"].to_dict() == pytest.approx(by_hand)


def test_the_map_is_that_of_scikit_learn_and_keeps_its_axes_for_others(
    vectors: NDArray[np.float64], sentences: pd.DataFrame
) -> None:
    axes = geometry.map_axes(vectors)
    units = geometry.unit(vectors)
    plain = PCA(n_components=2, svd_solver="full").fit(units)
    points, share = geometry.project(units, axes)
    np.testing.assert_allclose(points, plain.transform(units), atol=1e-9)
    assert share == pytest.approx(plain.explained_variance_ratio_.sum())
    moved = vectors + np.random.default_rng(2).normal(size=vectors.shape)
    other = geometry.measure(moved, sentences, axes)
    np.testing.assert_allclose(other.points[["x", "y"]], plain.transform(geometry.unit(moved)), atol=1e-9)
    assert 0 < other.map_share < 1


def test_a_map_keeps_the_first_hundred_sentences_of_a_group() -> None:
    sentences = places(("de",), {"train": 130, "test": 3})
    vectors = np.random.default_rng(3).normal(size=(len(sentences), 4))
    found = geometry.measure(vectors, sentences, geometry.map_axes(vectors))
    sizes = found.points.groupby(["part", "side"])["sentence_index"].agg(["size", "max"])
    assert sizes.loc["train"].to_numpy().tolist() == [[100, 99], [100, 99]]
    assert sizes.loc["test"].to_numpy().tolist() == [[3, 2], [3, 2]]
    assert found.n_sentences == 266


def test_lengths_of_vectors_do_not_matter(vectors: NDArray[np.float64], sentences: pd.DataFrame) -> None:
    axes = geometry.map_axes(vectors)
    long = vectors * np.random.default_rng(4).uniform(0.5, 2, (len(vectors), 1))
    one, other = (geometry.measure(each, sentences, axes) for each in (vectors, long))
    for name in ("similarities", "silhouettes", "distances", "points"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
