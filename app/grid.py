"""The numbers behind the matrix: plan and cells → one row a cell of it, averages among them, and their order.

Knows nothing of colours, and nothing of Streamlit. It makes no interval: those of cells and averages are the store's.
"""

from enum import StrEnum

import numpy as np
import pandas as pd

from app.words import MEAN
from engine.metrics import VARIANT
from engine.vocabulary import Language, Status, Strategy, Verdict

NUMBERS = [
    *("n", "n_valid", "n_pairs", "value", "baseline", "delta", "ci_low", "ci_high", "p_value", "q_value"),
    *("verdict", "verdict_reason"),
]
"""The columns of the view `cells` that we show."""


PLACE = ["row", "eval_lang"]


class Show(StrEnum):
    """What a matrix shows of its variants."""

    DELTA = "delta"
    SCORE = "score"


class Order(StrEnum):
    """How the languages of a matrix are arranged; `mean` is of rows alone."""

    ALPHABET = "alphabet"
    FAMILY = "family"
    SCRIPT = "script"
    MEAN = "mean"


class State(StrEnum):
    """How a cell is marked."""

    PLAIN = "plain"
    UNCERTAIN = "uncertain"
    DEGENERATE = "degenerate"
    MISSING = "missing"
    UNTESTED = "untested"
    """A plain mean: nothing is known of its error."""


def grid(plan: pd.DataFrame, cells: pd.DataFrame, has_intervals: bool, show: Show = Show.DELTA) -> pd.DataFrame:
    """One row for every setting of the plan, with its cell or without, by strategy, variant and language.

    `plan`: row, strategy, train_lang, train_fraction, eval_lang, status, error of one model. `cells`: those of one
    split, metric and scorer. Adds `shown` (the value on the ZS row, elsewhere what `show` says; NaN where missing),
    `state` and `why` (for a missing one).
    """
    found = plan.merge(cells[[*PLACE, *NUMBERS]], on=PLACE, how="left", validate="1:1")
    is_zs = found["strategy"] == Strategy.ZS
    found["is_score"] = is_zs | (show == Show.SCORE)
    found["shown"] = found["value"].where(found["is_score"], found["delta"]).astype(float)
    too_few = found["verdict"] == Verdict.TOO_FEW
    doubtful = too_few if show == Show.SCORE else too_few | _is_across_zero(found, ~is_zs)
    state = pd.Series(State.PLAIN.value, found.index, dtype=str).mask(doubtful & has_intervals, State.UNCERTAIN.value)
    state = state.mask(found["verdict"] == Verdict.DEGENERATE, State.DEGENERATE.value)
    found["state"] = state.mask(found["shown"].isna(), State.MISSING.value)
    setting = found["status"].where(found["error"].isna(), found["status"] + ": " + found["error"].astype(str))
    not_done = found["n"].isna() & (found["status"] != Status.DONE)
    found["why"] = setting.where(not_done, found["verdict_reason"]).fillna("not measured")
    order = found["strategy"].map({strategy.value: i for i, strategy in enumerate(Strategy)})
    return found.assign(order=order).sort_values(["order", "row", "eval_lang"], ignore_index=True)


def _is_across_zero(found: pd.DataFrame, is_delta: pd.Series) -> pd.Series:
    """Whether an interval has zero in it, or there is none."""
    return found["ci_low"].isna() | (is_delta & (found["ci_low"] <= 0) & (found["ci_high"] >= 0))


def means(found: pd.DataFrame, averages: pd.DataFrame, show: Show = Show.DELTA, is_log: bool = False) -> pd.DataFrame:
    """Averages as rows of a grid: each variant's over languages, each language's over X-FT, and all of X-FT.

    `averages`: rows of the view of the same model, split, metric and scorer; they come with intervals. Where there is
    none, and of scores, it is the plain mean of the cells that have a number and are not degenerate, without an
    interval (`is_log`: the geometric one). `is_whole`: no cell that others of its kind have is missing from it; means
    over other cells are not to be ranked beside it.
    """
    some = found if show == Show.SCORE else found[found["strategy"] != Strategy.ZS]
    some = some.assign(shown=some["shown"].mask(some["state"] == State.DEGENERATE))
    alone = some[some["strategy"] == Strategy.X_FT].assign(row=MEAN)
    parts = pd.concat([some.assign(eval_lang=MEAN), alone, alone.assign(eval_lang=MEAN)])
    groups = parts.assign(shown=np.log(parts["shown"]) if is_log else parts["shown"]).groupby(PLACE, sort=False)
    rows = groups.agg(strategy=("strategy", "first"), shown=("shown", "mean"), n_cells=("shown", "count"))
    if is_log:
        rows["shown"] = np.exp(rows["shown"])
    stored = _stored(found, averages)
    rows = rows.reset_index().merge(stored if show == Show.DELTA else stored[:0], on=PLACE, how="left")
    rows["n_cells"] = rows["n_cells_stored"].fillna(rows["n_cells"])
    if show == Show.DELTA:
        rows["shown"] = rows["delta"] = rows["delta"].fillna(rows["shown"])
    has_interval = rows["ci_low"].notna()
    state = _is_across_zero(rows, has_interval).map({True: State.UNCERTAIN.value, False: State.PLAIN.value})
    state = state.where(has_interval, State.UNTESTED.value).mask(rows["shown"].isna(), State.MISSING.value)
    n_langs, n_trained = (
        part.loc[part["shown"].notna(), name].nunique() for part, name in ((some, "eval_lang"), (alone, "train_lang"))
    )
    # Of X-FT as a whole there is one row, which is ranked with none.
    n_whole = np.where(rows["eval_lang"] == MEAN, np.where(rows["row"] == MEAN, 0, n_langs), n_trained)
    kind = has_interval.map({True: "mean", False: "plain mean"})
    verdict = kind + " of " + rows["n_cells"].astype(int).astype(str) + " cells"
    rows = rows.drop(columns="n_cells_stored")
    rows = rows.assign(is_score=show == Show.SCORE, state=state, verdict=verdict, why="no cell has one that counts")
    return rows.assign(is_whole=rows["n_cells"] >= n_whole)


def _stored(found: pd.DataFrame, averages: pd.DataFrame) -> pd.DataFrame:
    """The averages that have an interval: `PLACE`, n_cells_stored, n_pairs, delta, ci_low, ci_high."""
    labels = found[["row", *VARIANT]].drop_duplicates()
    made = averages.astype({"train_fraction": float}).merge(labels, on=VARIANT, how="left")
    made = made.assign(row=made["row"].fillna(MEAN)).rename(columns={"n_cells": "n_cells_stored"})
    return made.loc[made["ci_low"].notna(), [*PLACE, "n_cells_stored", "n_pairs", "delta", "ci_low", "ci_high"]]


def arranged(cells: pd.DataFrame, order: Order, is_reversed: bool = False) -> pd.DataFrame:
    """A grid with its means, its rows and languages in this order: see `Order`. `is_reversed`: a low mean is best;
    means that are not whole come last."""
    whole = cells[(cells["eval_lang"] == MEAN) & (cells["is_whole"] == True)]  # noqa: E712  settings have no means
    means = whole.set_index("row")["shown"] * (1 if is_reversed else -1)

    def place(lang: str, row: str) -> tuple[object, ...]:
        if lang not in set(Language):
            return (0, row)
        if order == Order.MEAN:
            mean = means.get(row, np.nan)
            return (1, np.inf if np.isnan(mean) else mean, lang)
        return (1, group(lang, order), lang)

    langs = sorted(set(cells["eval_lang"].astype(str)), key=lambda lang: (lang == MEAN, *place(lang, MEAN)))
    variants = cells[cells["row"] != MEAN].drop_duplicates("row")
    names = zip(
        variants["order"], variants["train_lang"].fillna("").astype(str), variants["row"].astype(str), strict=True
    )
    keys = {row: (number, *place(lang, row)) for number, lang, row in names}
    rows = [*sorted(keys, key=keys.__getitem__), MEAN]
    at = cells["row"].map(rows.index) * 100 + cells["eval_lang"].map(langs.index)
    return cells.iloc[at.argsort(kind="stable")].reset_index(drop=True)


def group(lang: str, order: Order) -> str:
    """What a language is grouped by in an order; '' where there are no groups."""
    if lang not in set(Language) or order not in (Order.FAMILY, Order.SCRIPT):
        return ""
    facts = Language(lang).facts
    return facts.family if order == Order.FAMILY else facts.script
