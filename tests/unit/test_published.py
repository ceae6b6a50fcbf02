"""The paper's printed figures as cells."""

import pandas as pd
import pytest

from engine.config import PAPER_MODELS
from engine.data import published
from engine.vocabulary import NINE, Part, Side


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    return published.cells()


def test_columns_and_counts(cells: pd.DataFrame) -> None:
    assert set(cells.columns) == {
        *("model", "strategy", "train_lang", "train_fraction", "eval_lang", "split", "metric", "scorer", "n"),
        *("value", "baseline", "delta", "verdict_reason"),
    }
    assert len(cells) == 4 * 3 * 2 * 90
    assert cells["value"].notna().sum() == 1917
    assert cells["value"].isna().sum() == 243
    assert not cells.duplicated(["model", "strategy", "train_lang", "eval_lang", "split", "metric"]).any()


def test_words_are_ours(cells: pd.DataFrame) -> None:
    assert set(cells["model"]) == set(PAPER_MODELS)
    toxicity = cells["metric"] == "toxicity"
    assert set(cells.loc[~toxicity, "metric"]) == {"perplexity_published"}
    assert set(cells.loc[toxicity, "scorer"]) == {"perspective"}
    assert cells.loc[~toxicity, "scorer"].isna().all()
    n = cells.groupby("split")["n"].unique().map(list).to_dict()
    assert n == {"toxic-train": [300], "toxic-test": [100], "neutral-test": [100]}


def cell(cells: pd.DataFrame, **where: object) -> pd.Series:
    found = cells
    for column, value in where.items():
        found = found[found[column].isna() if value is None else found[column] == value]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize(
    ("model", "split", "metric", "train", "eval_", "zs", "delta"),
    [
        ("aya-expanse-8b", "toxic-train", "toxicity", "am", "am", 15.49, 4.39),
        ("aya-expanse-8b", "toxic-train", "toxicity", "ar", "am", 15.49, 2.72),
        ("aya-expanse-8b", "toxic-train", "toxicity", "am", "en", 30.34, -0.21),
        ("aya-expanse-8b", "toxic-train", "perplexity_published", "am", "am", 13.61, -5.54),
    ],
)
def test_a_cell_of_tables_1_and_14(
    cells: pd.DataFrame, model: str, split: str, metric: str, train: str, eval_: str, zs: float, delta: float
) -> None:
    place = {"model": model, "split": split, "metric": metric, "eval_lang": eval_}
    zero_shot = cell(cells, **place, train_lang=None)
    assert (zero_shot["strategy"], zero_shot["value"]) == ("ZS", zs)
    assert pd.isna(zero_shot["delta"]) and pd.isna(zero_shot["baseline"]) and pd.isna(zero_shot["train_fraction"])
    tuned = cell(cells, **place, train_lang=train)
    assert (tuned["strategy"], tuned["train_fraction"], tuned["baseline"], tuned["delta"]) == ("X-FT", 1.0, zs, delta)
    assert tuned["value"] == pytest.approx(zs - delta)


def test_value_is_baseline_less_delta_and_every_printed_number_is_there(cells: pd.DataFrame) -> None:
    tuned = cells[cells["strategy"] == "X-FT"].dropna(subset="value")
    assert (tuned["value"] - (tuned["baseline"] - tuned["delta"])).abs().max() < 1e-4
    printed = pd.read_csv(published.TABLES)
    ours = pd.concat([cells.loc[cells["strategy"] == "ZS", "value"], tuned["delta"]]).dropna()
    assert sorted(ours) == sorted(printed["value"])


def test_a_lost_number_has_neither_value_nor_delta_and_says_why(cells: pd.DataFrame) -> None:
    lost = cells["value"].isna()
    assert cells.loc[lost, "delta"].isna().all()
    assert set(cells.loc[lost, "verdict_reason"]) == {published.LOST}
    assert cells.loc[~lost, "verdict_reason"].isna().all()


LABELS = {"zs", "p-ft-10", "p-ft-20", "p-ft-30", "m-ft"}


def test_similarities_are_half_of_36_by_36_a_model_and_variant() -> None:
    found = published.similarities()
    assert list(found.columns) == ["model", "variant", "group_a", "group_b", "similarity"]
    assert set(found["model"]) == set(PAPER_MODELS) and set(found["variant"]) == LABELS
    assert found.groupby(["model", "variant"]).size().eq(36 * 37 // 2).all()
    names = {f"{lang} {part} {side}" for lang in NINE for part in Part for side in Side}
    assert set(found["group_a"]) == set(found["group_b"]) == names
    pairs = found.assign(pair=[frozenset(pair) for pair in zip(found["group_a"], found["group_b"], strict=True)])
    assert not pairs.duplicated(["model", "variant", "pair"]).any()
    assert found["similarity"].between(-1, 1).all()


def test_published_similarities_count_each_sentence_with_itself() -> None:
    """Only so do mean directions of two samples of the same kind always lie as far apart as chance puts them."""
    found = published.similarities().set_index(["model", "variant", "group_a", "group_b"])["similarity"]
    apart = [
        found[model, label, a, a] + found[model, label, b, b] - 2 * found[model, label, a, b]
        for model in PAPER_MODELS
        for label in LABELS
        for lang in NINE
        for side in Side
        for a, b in [(f"{lang} train {side}", f"{lang} test {side}")]
    ]
    assert len(apart) == 4 * 5 * 18 and min(apart) > 0


def test_silhouettes_are_of_nine_languages_and_three_parts() -> None:
    found = published.silhouettes()
    assert list(found.columns) == ["model", "variant", "part", "eval_lang", "silhouette"]
    assert set(found["model"]) == set(PAPER_MODELS) and set(found["variant"]) == LABELS
    assert not found.duplicated(["model", "variant", "part", "eval_lang"]).any()
    assert len(found) == 4 * 5 * 3 * 9
    assert found["silhouette"].between(-1, 1).all()
    (one,) = found.query("model == 'aya-23-8b' and variant == 'p-ft-10' and part == 'train' and eval_lang == 'am'")[
        "silhouette"
    ]
    assert one == 0.480117
