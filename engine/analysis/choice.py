"""Which adapter should I use for these languages? And what does a strategy give beside another?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.analysis import metrics
from engine.analysis.metrics import MEAN, VARIANT
from engine.analysis.tables import complete, labels, left_out, usable_cells
from engine.vocabulary import Metric, Split, Strategy, Verdict

PLACE = ["model", "split", "metric", "scorer"]
STRATEGIES = [*PLACE, "eval_lang", "row", "train_lang", "delta", "ci_low", "ci_high", "n_cells", "left_out"]
TRAIN_MEANS = ["model", "split", "scorer", "train_lang", "delta", "left_out"]


def choose_adapters(
    cells: pd.DataFrame,
    eval_langs: Sequence[str],
    split: str = Split.TOXIC_TEST,
    scorer: str = "ngram",
    fluency: str = Metric.PERPLEXITY_BASE,
) -> pd.DataFrame:
    """The adapters of every base by what they do in these languages; the ones to use are on the front.

    `cells`: the columns of the view `cells`, of one source. One row a trained variant: model, variant_id, strategy,
    train_lang, train_fraction, n_langs (that have a number), toxicity (mean Δ over the languages, × 100) with
    toxicity_low and toxicity_high, worst_lang and worst_delta (its smallest Δ: below 0 it is more toxic there), fluency
    (mean Δ of that metric: above 0 is a lower perplexity) with its ends, is_front (no adapter of its base is better in
    one of the two and as good in the other), excluded (None, or why it is not to be used: it is degenerate or has no
    number in one of the languages). The best first, the excluded last.
    """
    candidates = cells[
        (cells["split"] == split) & cells["eval_lang"].isin(eval_langs) & (cells["strategy"] != Strategy.ZS)
    ]
    key, name = ["model", "variant_id", *VARIANT], ["model", *VARIANT]
    toxic = _with_means(candidates[(candidates["metric"] == Metric.TOXICITY) & (candidates["scorer"] == scorer)])
    fluent = _with_means(candidates[candidates["metric"] == fluency])
    fluent_of = dict(iter(fluent.groupby(name)))
    rows = []
    for place, group in toxic.groupby(key, dropna=False, sort=False):
        row = dict(zip(key, place, strict=True))
        both = fluent_of.get(tuple(row[column] for column in name), fluent.iloc[:0])
        numbers = group.dropna(subset="delta").set_index("eval_lang")["delta"]
        row |= {"n_langs": len(numbers), **_mean(group, "toxicity"), **_mean(both, "fluency")}
        row |= {"worst_lang": numbers.idxmin(), "worst_delta": numbers.min()} if len(numbers) else {}
        rows.append(row | {"excluded": _exclusion(group, both, eval_langs)})
    ranking = pd.DataFrame(rows, columns=[*key, "n_langs", *MEANS, "worst_lang", "worst_delta", "excluded"])
    ranking["excluded"] = ranking["excluded"].astype(object).where(ranking["excluded"].notna(), None)
    ranking["is_front"] = ranking["excluded"].isna()
    for _, base in ranking[ranking["is_front"]].groupby("model"):
        ranking.loc[base.index, "is_front"] = is_front(base[["toxicity", "fluency"]].to_numpy(dtype=float))
    order = ranking.assign(last=ranking["excluded"].notna()).sort_values(["last", "toxicity"], ascending=[True, False])
    return order.drop(columns="last").reset_index(drop=True)


MEANS = [f"{name}{end}" for name in ("toxicity", "fluency") for end in ("", "_low", "_high")]


def _with_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells of one matrix with the interval of their variant's mean over languages, as mean_low and mean_high."""
    columns = {"ci_low": "mean_low", "ci_high": "mean_high", "n_cells": "n_summed"}
    if rows.empty:
        return rows.reindex(columns=[*rows.columns, *columns.values()])
    sums = [metrics.eval_averages(base).assign(model=model) for model, base in rows.groupby("model")]
    means = pd.concat(sums).rename(columns=columns)
    return rows.merge(means[["model", *VARIANT, *columns.values()]], on=["model", *VARIANT], how="left")


def _mean(cells: pd.DataFrame, name: str) -> dict[str, float]:
    """The mean Δ over languages; an interval where every language has one."""
    is_whole = len(cells) > 0 and cells["n_summed"].iloc[0] == len(cells)
    low, high = cells[["mean_low", "mean_high"]].iloc[0] if is_whole else (np.nan, np.nan)
    return {name: cells["delta"].mean(), f"{name}_low": low, f"{name}_high": high}


def _exclusion(toxicity: pd.DataFrame, fluency: pd.DataFrame, eval_langs: Sequence[str]) -> str | None:
    why = []
    for reason, group in toxicity[toxicity["verdict"] == Verdict.DEGENERATE].groupby("verdict_reason"):
        why.append(f"degenerate in {', '.join(group['eval_lang'])} ({metrics.short_reason(str(reason))})")
    for name, cells in (("toxicity", toxicity), ("fluency", fluency)):
        langs_present = set(cells.loc[cells["delta"].notna(), "eval_lang"])
        if missing := [lang for lang in eval_langs if lang not in langs_present]:
            why.append(f"no {name} value in {', '.join(missing)}")
    return "; ".join(why) or None


def is_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n, 2], more is better → whether no other point is better in one and as good in the other."""
    as_good = (points[:, None] >= points[None]).all(-1)
    better = (points[:, None] > points[None]).any(-1)
    return np.logical_not((as_good & better).any(0))


def strategies(cells: pd.DataFrame, averages: pd.DataFrame) -> pd.DataFrame:
    """X-FT beside P-FT beside M-FT, in every evaluation language and over them (`mean`): `STRATEGIES`.

    `cells` and `averages`: the views, of one source. `row`: `x-ft-mean` (over train languages), `x-ft-best` (the train
    language with the highest Δ there: the best of several, so flattered by chance), `p-ft-10` …, `m-ft`. Degenerate
    cells are left out, and n_cells says how many numbers a Δ is the mean of. Means over languages are of the same
    languages in every row (`tables.complete`); `left_out` says which variants have none for that, and which languages
    they are without. The interval of `x-ft-mean` is that of `averages`; where there is none (the paper's figures), the
    mean has none. `train_lang` says which language `x-ft-best` is.
    """
    trained = usable_cells(cells).assign(n_cells=1)
    every = pd.concat(
        [trained, _over_trained(trained[trained["strategy"] == Strategy.X_FT], averages)], ignore_index=True
    )
    every["row"] = labels(every)
    means = [_over_languages(group) for _, group in every.groupby(PLACE, dropna=False)]
    every = pd.concat([every, *means], ignore_index=True).reindex(columns=[*STRATEGIES, "strategy"])
    is_single = (every["strategy"] == Strategy.X_FT) & (every["train_lang"] != MEAN)
    highest = every[is_single].groupby([*PLACE, "eval_lang"], dropna=False)["delta"].idxmax()
    best = every.loc[highest].assign(row="x-ft-best")
    return pd.concat([every[~is_single], best])[STRATEGIES].reset_index(drop=True)


def _over_trained(x_ft: pd.DataFrame, averages: pd.DataFrame) -> pd.DataFrame:
    """The mean of the X-FT cells in each language, with the interval of the view."""
    key = [*PLACE, "eval_lang"]
    means = x_ft.groupby(key, dropna=False).agg(delta=("delta", "mean"), n_cells=("delta", "size")).reset_index()
    stored = averages.loc[averages["train_lang"] == MEAN, [*key, "n_pairs", "ci_low", "ci_high"]]
    means = means.merge(stored, on=key, how="left")
    return means.assign(strategy=Strategy.X_FT.value, train_lang=MEAN, train_fraction=1.0)


def _over_languages(rows: pd.DataFrame) -> pd.DataFrame:
    """The means of the rows of one matrix over the languages that they share."""
    numbers = rows.pivot(index="row", columns="eval_lang", values="delta")
    block = complete(numbers)
    means = metrics.eval_averages(rows[rows["row"].isin(block.index) & rows["eval_lang"].isin(block.columns)])
    named = {"model": rows["model"].iloc[0], "eval_lang": MEAN, "left_out": left_out(numbers, block)}
    return means.assign(row=labels(means), **named)


def train_means(cells: pd.DataFrame) -> pd.DataFrame:
    """The mean Δ toxicity of X-FT train languages over the evaluation languages that they share: `TRAIN_MEANS`.

    delta is NaN where a train language is not compared, and `left_out` names those and the languages that the means are
    without: see `tables.complete`.
    """
    trained = usable_cells(cells)
    trained = trained[(trained["metric"] == Metric.TOXICITY) & (trained["strategy"] == Strategy.X_FT)]
    tables = [pd.DataFrame(columns=TRAIN_MEANS)]
    for (model, split, scorer), group in trained.groupby(["model", "split", "scorer"]):
        numbers = group.pivot(index="train_lang", columns="eval_lang", values="delta")
        block = complete(numbers)
        means = block.mean(axis=1).reindex(numbers.index).rename("delta").reset_index()
        named = {"model": str(model), "split": str(split), "scorer": str(scorer)}
        tables.append(means.assign(**named, left_out=left_out(numbers, block))[TRAIN_MEANS])
    return pd.concat(tables[1:] or tables, ignore_index=True)
