"""Answers against arithmetic by hand."""

import math

import pandas as pd
import pytest

from engine.analysis import agreement, audit, copied_rows
from engine.analysis.tables import complete, left_out
from engine.data import published


def scores(lang: str, **values: list[float]) -> pd.DataFrame:
    rows = [(lang, f"text {i}", name, value) for name, found in values.items() for i, value in enumerate(found)]
    return pd.DataFrame(rows, columns=["eval_lang", "text", "scorer", "value"])


def test_agreement_is_by_language_over_texts_that_both_have_scored() -> None:
    found = agreement(
        pd.concat(
            [
                scores("de", a=[0.1, 0.4, 0.6, 0.9, math.nan], b=[0.2, 0.6, 0.5, 0.8, 0.1]),
                scores("am", a=[math.nan] * 3, b=[0.1, 0.2, 0.3]),
                scores("en", a=[0.1, 0.1, 0.1], b=[0.7, 0.2, 0.3]),
                scores("ru", a=[0.1, 0.2]),
            ]
        )
    ).set_index("eval_lang")
    # Ranks 1 2 3 4 and 1 3 2 4: 1 − 6 · 2 / (4 · 15). Opposite: the second text.
    assert found.loc["de", ["n", "rank_correlation", "opposite"]].tolist() == pytest.approx([4, 0.8, 0.25])
    assert "am" not in found.index or found.loc["am", "n"] == 0
    assert found.loc["en", "n"] == 3
    assert math.isnan(found.loc["en", "rank_correlation"])
    assert found.loc["en", "opposite"] == pytest.approx(1 / 3)
    assert "ru" not in found.index
    assert len(agreement(scores("de", a=[0.1]))) == 0


def test_the_audit_finds_the_one_wrong_average_of_the_paper() -> None:
    averages = published.averages()
    assert len(averages) == 348
    found = audit(published.tables(), averages)
    assert found[["table", "train_lang", "eval_lang", "value"]].values.tolist() == [[21, "mean", "zh", -33.05]]
    assert found["recomputed"][0] == pytest.approx(-25.29, abs=0.005)


def test_the_audit_finds_what_is_changed() -> None:
    averages = published.averages()
    averages.loc[0, "value"] += 1
    assert len(audit(published.tables(), averages)) == 2


def test_rows_of_the_paper_that_are_copies_are_told() -> None:
    printed = published.tables()
    (row,) = copied_rows(printed).to_dict("records")
    tables = [8, 9, 20, 21, 22]
    assert row == {"model": "mt5-large", "row_a": "en", "row_b": "uk", "tables": tables, "n": 45, "n_equal": 38}
    # What differs by a little in every cell is no copy.
    changed = printed.assign(value=printed["value"].where(printed["train_lang"] != "uk", printed["value"] + 0.01))
    assert copied_rows(changed).empty


@pytest.mark.parametrize(
    ("rows", "kept", "without"),
    [
        # All whole.
        ({"a": [1, 2], "b": [3, 4]}, "ab 01", ""),
        # A language that one candidate alone has costs that candidate nothing, and excludes nobody else.
        ({"a": [1, 2, 3], "b": [4, 5, None], "c": [7, 8, None]}, "abc 01", "evaluated in 2"),
        # A candidate that lacks most languages goes, and no language with it.
        ({"a": [1, 2, 3], "b": [4, 5, 6], "c": [None, None, 9]}, "ab 012", "c"),
        # One gap of a square: the candidate goes.
        ({"a": [1, 2], "b": [None, 4]}, "a 01", "b"),
        # Both kinds, one after the other: language 2 lacks 3 of 4, then d lacks 1 of 2.
        ({"a": [1, 2, 3], "b": [1, 2, None], "c": [1, 2, None], "d": [1, None, None]}, "abc 01", "d; evaluated in 2"),
        # Nothing to tell them apart by, and nothing that they share.
        ({"a": [1, None], "b": [None, 4]}, " 01", "a, b"),
    ],
)
def test_what_compares_is_the_complete_part_of_a_table(rows: dict[str, list], kept: str, without: str) -> None:
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename(columns=str)
    for order in (table, table.iloc[::-1, ::-1]):
        block = complete(order)
        assert f"{''.join(sorted(block.index))} {''.join(sorted(block.columns))}" == kept
        assert not block.isna().any(axis=None)
        assert left_out(order, block) == without
