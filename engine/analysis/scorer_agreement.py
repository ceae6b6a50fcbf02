"""Agreement between scorers."""

from itertools import combinations

import pandas as pd

from engine.analysis.metrics import TOXIC
from engine.analysis.tables import rank_correlation


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
            rows.append(
                {
                    "eval_lang": lang,
                    "scorer_a": a,
                    "scorer_b": b,
                    "n": len(both),
                    "rank_correlation": rank_correlation(both[a], both[b]),
                    "opposite": ((both[a] >= TOXIC) != (both[b] >= TOXIC)).mean(),
                }
            )
    columns = ["eval_lang", "scorer_a", "scorer_b", "n", "rank_correlation", "opposite"]
    return pd.DataFrame(rows, columns=columns)
