"""Shared helpers: selecting cells, complete blocks for fair means, rank correlations."""

from math import nan

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from engine.analysis.metrics import VARIANT
from engine.vocabulary import Strategy, Variant, Verdict


def labels(rows: pd.DataFrame) -> pd.Series:
    """`x-ft-de`, `p-ft-10`, …, `x-ft-mean` of rows with strategy, train_lang and train_fraction."""
    variants = rows[VARIANT].drop_duplicates()
    names = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label
             for s, t, f in variants.itertuples(index=False)]  # fmt: skip
    row_labels = rows[VARIANT].merge(variants.assign(row=names), on=VARIANT, how="left")["row"]
    return row_labels.set_axis(rows.index).astype(object)


def usable_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Trained cells that have a Δ and are not degenerate."""
    is_trained = cells["strategy"] != Strategy.ZS
    return cells[is_trained & cells["delta"].notna() & (cells["verdict"] != Verdict.DEGENERATE)]


def complete(numbers: pd.DataFrame) -> pd.DataFrame:
    """The part of a table, candidates × languages (NaN: no number), that lacks no number: means of its rows compare.

    What lacks the largest share of its numbers is left out, and again, until nothing is missing. Where a candidate and
    a language lack the same share the candidate goes: without the language in which it broke it would look better than
    it is. Candidates that lack the same share go together, and so do languages, so that their order decides nothing.
    """
    while numbers.isna().any(axis=None):
        of_rows, of_columns = numbers.isna().mean(axis=1), numbers.isna().mean()
        if of_rows.max() >= of_columns.max():
            numbers = numbers[of_rows < of_rows.max()]
        else:
            numbers = numbers.loc[:, of_columns < of_columns.max()]
    return numbers


def left_out(numbers: pd.DataFrame, block: pd.DataFrame) -> str:
    """What of a table is not in its `complete` part: `m-ft, x-ft-hi; in am`, or ''."""
    rows = ", ".join(sorted(set(numbers.index) - set(block.index)))
    columns = ", ".join(sorted(set(numbers.columns) - set(block.columns)))
    return "; ".join(filter(None, [rows, columns and f"evaluated in {columns}"]))


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's, without a p-value, which would take most of the time; NaN below three pairs, or where one side does
    not vary."""
    is_valid = (a.notna() & b.notna()).to_numpy()
    ranks = [rankdata(side.to_numpy(dtype=float)[is_valid]) for side in (a, b)]
    if is_valid.sum() < 3 or any(np.ptp(side) == 0 for side in ranks):
        return nan
    return float(np.corrcoef(ranks)[0, 1])
