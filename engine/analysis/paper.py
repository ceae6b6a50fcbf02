"""Checks the paper's printed averages, and compares its Δ with those of a run."""

from itertools import combinations

import numpy as np
import pandas as pd

from engine.analysis.tables import complete, rank_correlation, usable_cells
from engine.vocabulary import Metric, Strategy

PLACE = ["model", "published_model", "split", "metric", "scorer"]

MOST_EQUAL = 0.5

OURS = {Metric.PERPLEXITY_PUBLISHED.value: Metric.PERPLEXITY_SELF.value}
"""The paper's metric → the one of ours that stands beside it."""


def audit(printed: pd.DataFrame, averages: pd.DataFrame) -> pd.DataFrame:
    """The printed averages that are not the average of the printed numbers: `averages`, recomputed.

    `printed`: table, train_lang (NaN: ZS), eval_lang, value. `averages`: table, train_lang (`mean`: of the X-FT rows),
    eval_lang (or `mean`), value. Two digits are printed, some of them cut and not rounded: 0.01 is forgiven. An average
    of numbers that are lost is left out.
    """
    numbers = printed.assign(train_lang=printed["train_lang"].fillna("ZS"))
    rows = numbers.groupby(["table", "train_lang"])["value"].mean().rename("recomputed").reset_index()
    trained = numbers[numbers["train_lang"] != "ZS"]
    columns = trained.groupby(["table", "eval_lang"])["value"].mean().rename("recomputed").reset_index()
    recomputed = pd.concat([rows.assign(eval_lang="mean"), columns.assign(train_lang="mean")])
    both = averages.merge(recomputed, on=["table", "train_lang", "eval_lang"])
    return both[(both["value"] - both["recomputed"]).abs() > 0.01].reset_index(drop=True)


def copied_rows(printed: pd.DataFrame) -> pd.DataFrame:
    """Two rows (train languages) of a base that are the same numbers in more than `MOST_EQUAL` of their cells.

    `printed`: see `audit`, with model. Columns: model, row_a, row_b, tables (a list), n (cells that both have) and
    n_equal. Two other rows of the paper's agree in 7 % of their cells at most: two decimals seldom meet by chance.
    """
    trained = printed[printed["train_lang"].notna()]
    rows = []
    for model, of_model in trained.groupby("model"):
        wide = of_model.pivot_table(index=["table", "eval_lang"], columns="train_lang", values="value")
        for a, b in combinations(wide.columns, 2):
            both = wide[[a, b]].dropna()
            equal = both[both[a] == both[b]]
            if len(equal) > MOST_EQUAL * len(both):
                tables = sorted(equal.index.get_level_values("table").unique().tolist())
                rows.append((model, a, b, tables, len(both), len(equal)))
    return pd.DataFrame(rows, columns=["model", "row_a", "row_b", "tables", "n", "n_equal"])


def against_published(cells: pd.DataFrame, published: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run's X-FT cells beside the paper's: every base of ours beside every base of the paper.

    `cells` and `published`: the columns of the view `cells`. Toxicity stands beside toxicity, `perplexity_self` (what
    the authors' code computes, but in nats per token) beside `perplexity_published`, of which only signs and ranks
    compare. Returns two tables. Cells: `PLACE`, train_lang, eval_lang, delta, ci_low, ci_high, published_delta,
    is_same_sign (no change is a sign of its own). Degenerate cells are left out. Summary, a row each of `PLACE`: n
    (cells with both numbers), rank_correlation (Spearman's, of the train languages by their mean Δ over the languages
    that they share: `tables.complete`), sign_agreement (share of the n), cell_correlation (Spearman's, over the n).
    """
    key = ["split", "metric", "train_lang", "eval_lang"]
    theirs = published[published["strategy"] == Strategy.X_FT].replace({"metric": OURS})
    theirs = theirs[["model", *key, "delta"]].rename(columns={"model": "published_model", "delta": "published_delta"})
    ours = usable_cells(cells)
    ours = ours.loc[ours["strategy"] == Strategy.X_FT, ["model", "scorer", *key, "delta", "ci_low", "ci_high"]]
    both = ours.merge(theirs, on=key).dropna(subset="published_delta")
    both["is_same_sign"] = np.sign(both["delta"]) == np.sign(both["published_delta"])
    rows = []
    for place, group in both.groupby(PLACE, dropna=False):
        own, printed = (
            complete(group.pivot(index="train_lang", columns="eval_lang", values=side)).mean(axis=1)
            for side in ("delta", "published_delta")
        )
        rows.append(
            {
                **dict(zip(PLACE, place, strict=True)),
                "n": len(group),
                "rank_correlation": rank_correlation(own, printed),
                "sign_agreement": group["is_same_sign"].mean(),
                "cell_correlation": rank_correlation(group["delta"], group["published_delta"]),
            }
        )
    order = [*PLACE, "train_lang", "eval_lang", "delta", "ci_low", "ci_high", "published_delta", "is_same_sign"]
    columns = [*PLACE, "n", "rank_correlation", "sign_agreement", "cell_correlation"]
    return both[order].reset_index(drop=True), pd.DataFrame(rows, columns=columns)
