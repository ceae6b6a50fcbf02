"""What several answers are made with: picking cells, means over languages, rank correlations."""

from math import nan

import pandas as pd
from scipy.stats import spearmanr

from engine.vocabulary import Strategy, Variant, Verdict


def labels(rows: pd.DataFrame) -> pd.Series:
    """`x-ft-de`, `p-ft-10`, …, `x-ft-mean` of rows with strategy, train_lang and train_fraction."""
    variants = rows[["strategy", "train_lang", "train_fraction"]].itertuples(index=False)
    found = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label for s, t, f in variants]
    return pd.Series(found, index=rows.index, dtype=object)


def usable(cells: pd.DataFrame) -> pd.DataFrame:
    """Trained cells that have a Δ and are not degenerate."""
    is_trained = cells["strategy"] != Strategy.ZS
    return cells[is_trained & cells["delta"].notna() & (cells["verdict"] != Verdict.DEGENERATE)]


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's; NaN below three pairs, or where one side does not vary."""
    both = pd.DataFrame({"a": a, "b": b}).dropna()
    if len(both) < 3 or (both.nunique() < 2).any():
        return nan
    return float(spearmanr(both["a"], both["b"]).statistic)
