"""Means of a matrix, and what is ranked by them."""

import math

import pandas as pd
import pytest

from app import grid, tables, words
from app.grid import Order
from engine.metrics import AVERAGES, VARIANT

NAN = math.nan
DELTAS = {"de": (4.0, 2.0), "es": (5.0, -1.0), "hi": (9.0, NAN)}
"""Train language → Δ in German and in English, where Hindi has no number."""


@pytest.fixture
def cells() -> pd.DataFrame:
    rows = [
        {"row": f"x-ft-{lang}", "strategy": "X-FT", "train_lang": lang, "train_fraction": 1.0, "eval_lang": eval_lang,
         "status": "done", "error": None, "value": 30.0, "delta": delta, "ci_low": delta - 1, "ci_high": delta + 1,
         "verdict": "ok" if delta == delta else "unscored", "verdict_reason": None}
        for lang, deltas in DELTAS.items()
        for eval_lang, delta in zip(("de", "en"), deltas, strict=True)
    ]  # fmt: skip
    every = pd.DataFrame(rows).reindex(columns=[*rows[0], *set(grid.NUMBERS) - set(rows[0])])
    plan = every[["row", *VARIANT, "eval_lang", "status", "error"]]
    found = grid.grid(plan, every.drop(columns=["strategy", "train_lang", "train_fraction", "status", "error"]), True)
    means = grid.means(found, pd.DataFrame(columns=[*VARIANT, "eval_lang", *AVERAGES]))
    return pd.concat([found, means], ignore_index=True)


def test_a_mean_that_lacks_a_language_is_not_whole_and_comes_last(cells: pd.DataFrame) -> None:
    over_langs = cells[(cells["eval_lang"] == words.MEAN) & (cells["row"] != words.MEAN)].set_index("row")
    assert over_langs["shown"].to_dict() == {"x-ft-de": 3.0, "x-ft-es": 2.0, "x-ft-hi": 9.0}
    assert over_langs["is_whole"].to_dict() == {"x-ft-de": True, "x-ft-es": True, "x-ft-hi": False}
    over_trained = cells[(cells["row"] == words.MEAN) & (cells["eval_lang"] != words.MEAN)].set_index("eval_lang")
    assert over_trained["is_whole"].to_dict() == {"de": True, "en": False}
    order = grid.arranged(cells, Order.MEAN)["row"].drop_duplicates().tolist()
    assert order == ["x-ft-de", "x-ft-es", "x-ft-hi", words.MEAN]


def test_the_best_of_a_column_is_among_what_compares(cells: pd.DataFrame) -> None:
    table = tables.of_grid(grid.arranged(cells, Order.ALPHABET), words.MEASURES["toxicity"], "")
    best = {(row.name, column) for row in table.rows for column, entry in zip(table.columns, row.entries, strict=True)
            if entry.is_best}  # fmt: skip
    assert best == {("hi", "de"), ("de", "en"), ("de", words.MEAN)}
