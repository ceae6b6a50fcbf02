"""The paper's printed figures as cells."""

import pandas as pd
import pytest

from engine import published
from engine.config import PAPER_MODELS


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
