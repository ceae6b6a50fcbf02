"""Cells and scores → answers. Pure: takes the frames of the store's read functions, gives small tables."""

from itertools import combinations

import pandas as pd
from scipy.stats import spearmanr

from engine.metrics import TOXIC


def agreement(scores: pd.DataFrame) -> pd.DataFrame:
    """How far two scorers say the same of the same texts, by language.

    `scores`: eval_lang, text, scorer, value (0..1 or NaN). Returns eval_lang, scorer_a, scorer_b, n (texts that both
    have scored), rank_correlation (Spearman's; NaN below three texts or where one gives all the same), opposite (the
    share of texts that one calls toxic, from 0.5 on, and the other does not).
    """
    rows = []
    for lang, group in scores.groupby("eval_lang"):
        wide = group.pivot_table(index="text", columns="scorer", values="value")
        for a, b in combinations(wide.columns, 2):
            both = wide[[a, b]].dropna()
            varies = len(both) > 2 and bool((both.nunique() > 1).all())
            rows.append(
                {
                    "eval_lang": lang,
                    "scorer_a": a,
                    "scorer_b": b,
                    "n": len(both),
                    "rank_correlation": spearmanr(both[a], both[b]).statistic if varies else float("nan"),
                    "opposite": ((both[a] >= TOXIC) != (both[b] >= TOXIC)).mean(),
                }
            )
    columns = ["eval_lang", "scorer_a", "scorer_b", "n", "rank_correlation", "opposite"]
    return pd.DataFrame(rows, columns=columns)


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
