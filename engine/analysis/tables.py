"""What several answers are made with: picking cells, means over languages, rank correlations."""

from math import nan

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from engine.metrics import VARIANT
from engine.vocabulary import Strategy, Variant, Verdict


def labels(rows: pd.DataFrame) -> pd.Series:
    """`x-ft-de`, `p-ft-10`, …, `x-ft-mean` of rows with strategy, train_lang and train_fraction."""
    variants = rows[VARIANT].drop_duplicates()
    names = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label
             for s, t, f in variants.itertuples(index=False)]  # fmt: skip
    found = rows[VARIANT].merge(variants.assign(row=names), on=VARIANT, how="left")["row"]
    return found.set_axis(rows.index).astype(object)


def usable(cells: pd.DataFrame) -> pd.DataFrame:
    """Trained cells that have a Δ and are not degenerate."""
    is_trained = cells["strategy"] != Strategy.ZS
    return cells[is_trained & cells["delta"].notna() & (cells["verdict"] != Verdict.DEGENERATE)]


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's, without a p-value, which would take most of the time; NaN below three pairs, or where one side does
    not vary."""
    there = (a.notna() & b.notna()).to_numpy()
    ranks = [rankdata(side.to_numpy(dtype=float)[there]) for side in (a, b)]
    if there.sum() < 3 or any(np.ptp(side) == 0 for side in ranks):
        return nan
    return float(np.corrcoef(ranks)[0, 1])
