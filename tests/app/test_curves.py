"""Losses as they are drawn: every step, beside a mean that says of how many."""

import pandas as pd
import pytest

from app import labels
from app.charts import curves


@pytest.fixture
def rows() -> pd.DataFrame:
    losses = [[float(i) for i in range(100, 0, -1)], [3.0, 1.0]]
    return curves.losses(pd.DataFrame({"label": ["M-FT", "X-FT de"], "epochs": [20, 2], "losses": losses}))


def test_steps_lie_on_the_epochs_they_belong_to(rows: pd.DataFrame) -> None:
    assert len(rows) == 102
    assert rows[rows["label"] == "X-FT de"]["epoch"].tolist() == [1.0, 2.0]
    assert rows[rows["label"] == "M-FT"]["epoch"].iloc[[0, 4, -1]].tolist() == [0.2, 1.0, 20.0]


def test_the_mean_is_of_the_last_tenth(rows: pd.DataFrame) -> None:
    long = rows[rows["label"] == "M-FT"]
    assert long["mean"].iloc[:2].tolist() == [100.0, 99.5]
    assert long["mean"].iloc[-1] == sum(range(1, 11)) / 10
    assert rows[rows["label"] == "X-FT de"]["mean"].tolist() == [3.0, 1.0]


@pytest.mark.parametrize(("is_smoothed", "fields"), [(False, ["loss"]), (True, ["loss", "mean"])])
def test_a_mean_is_drawn_only_when_asked_for(rows: pd.DataFrame, is_smoothed: bool, fields: list[str]) -> None:
    chart = curves.curves(rows, is_smoothed, labels.CATEGORIES["light"], labels.PALETTES["light"]).to_dict()
    assert [layer["encoding"]["y"]["field"] for layer in chart["layer"]] == fields
    assert chart["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["M-FT", "X-FT de"]


def test_no_adapter_is_no_row() -> None:
    assert curves.losses(pd.DataFrame(columns=["label", "epochs", "losses"])).empty


def test_who_cannot_see_the_curves_is_told(rows: pd.DataFrame) -> None:
    assert curves.alt_text(rows).endswith("M-FT from 100 to 1.00 in 100 steps; X-FT de from 3.00 to 1.00 in 2 steps")
