"""The numbers of the matrix: plan and cells → one row per cell, with averages, in display order.

Knows nothing of colours, and nothing of Streamlit. Intervals are the engine's.
"""

from enum import StrEnum

import numpy as np
import pandas as pd

from app.labels import MEAN
from engine.analysis.metrics import AVERAGES, KEY, VARIANT, eval_averages
from engine.analysis.tables import complete, left_out
from engine.vocabulary import Language, Status, Strategy, Verdict

NUMBERS = [
    *("n", "n_valid", "n_pairs", "value", "baseline", "delta", "ci_low", "ci_high", "p_value", "q_value"),
    *("verdict", "verdict_reason"),
]
"""The columns of the view `cells` that we show."""


PLACE = ["row", "eval_lang"]
NO_AVERAGES = pd.DataFrame(columns=[*VARIANT, "eval_lang", *AVERAGES])


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
    cells_of_plan = plan.merge(cells[[*PLACE, *KEY, *NUMBERS]], on=PLACE, how="left", validate="1:1")
    is_zs = cells_of_plan["strategy"] == Strategy.ZS
    cells_of_plan["is_score"] = is_zs | (show == Show.SCORE)
    cells_of_plan["shown"] = (
        cells_of_plan["value"].where(cells_of_plan["is_score"], cells_of_plan["delta"]).astype(float)
    )
    too_few = cells_of_plan["verdict"] == Verdict.TOO_FEW
    doubtful = too_few if show == Show.SCORE else too_few | _is_across_zero(cells_of_plan, ~is_zs)
    state = pd.Series(State.PLAIN.value, cells_of_plan.index, dtype=str).mask(
        doubtful & has_intervals, State.UNCERTAIN.value
    )
    state = state.mask(cells_of_plan["verdict"] == Verdict.DEGENERATE, State.DEGENERATE.value)
    cells_of_plan["state"] = state.mask(cells_of_plan["shown"].isna(), State.MISSING.value)
    setting = cells_of_plan["status"].where(
        cells_of_plan["error"].isna(), cells_of_plan["status"] + ": " + cells_of_plan["error"].astype(str)
    )
    not_done = cells_of_plan["n"].isna() & (cells_of_plan["status"] != Status.DONE)
    cells_of_plan["why"] = setting.where(not_done, cells_of_plan["verdict_reason"]).fillna("not measured")
    order = cells_of_plan["strategy"].map({strategy.value: i for i, strategy in enumerate(Strategy)})
    return cells_of_plan.assign(order=order).sort_values(["order", "row", "eval_lang"], ignore_index=True)


def _is_across_zero(cells: pd.DataFrame, is_delta: pd.Series) -> pd.Series:
    """Whether an interval has zero in it, or there is none."""
    return cells["ci_low"].isna() | (is_delta & (cells["ci_low"] <= 0) & (cells["ci_high"] >= 0))


def means(cells: pd.DataFrame, averages: pd.DataFrame, show: Show = Show.DELTA, is_log: bool = False) -> pd.DataFrame:
    """Averages as rows of a grid: each variant's over languages, each language's over X-FT, and all of X-FT.

    `averages`: rows of the view of the same model, split, metric and scorer. Degenerate cells are left out. Variants
    are compared over the languages that they share, and languages over the X-FT variants that they share: their means
    are of these cells alone, and `left_out` names the rest. `is_whole` is False of what is not compared, which has the
    mean of all its cells and is not to be ranked. An interval is there where the engine has one of the same cells, and
    never of scores. `is_log`: scores are perplexities, whose mean is the geometric one.
    """
    counted_cells = cells.assign(shown=cells["shown"].mask(cells["state"] == State.DEGENERATE))
    if is_log:
        counted_cells.loc[counted_cells["is_score"], "shown"] = np.log(
            counted_cells.loc[counted_cells["is_score"], "shown"]
        )
    is_candidate = counted_cells["is_score"] == (show == Show.SCORE)
    x_ft = counted_cells[counted_cells["strategy"] == Strategy.X_FT]
    over_langs, over_x_ft = (
        _comparable(counted_cells[is_candidate], "row", "eval_lang"),
        _comparable(x_ft, "eval_lang", "row"),
    )
    rest = pd.concat([counted_cells[~is_candidate], x_ft.assign(row=MEAN)]).assign(is_whole=True, left_out=None)
    parts = [over_langs.assign(eval_lang=MEAN), rest.assign(eval_lang=MEAN), over_x_ft.assign(row=MEAN)]
    every = pd.concat(parts, ignore_index=True)
    firsts = {name: (name, "first") for name in ("strategy", "is_score", "is_whole", "left_out")}
    rows = every.groupby(PLACE, sort=False).agg(**firsts, shown=("shown", "mean"), n_cells=("shown", "count"))
    rows = rows.reset_index()
    if is_log:
        rows.loc[rows["is_score"], "shown"] = np.exp(rows.loc[rows["is_score"], "shown"])
    rows["value"], rows["delta"] = rows["shown"].where(rows["is_score"]), rows["shown"].mask(rows["is_score"])
    rows = rows.merge(_intervals(over_langs, averages, show), on=[*PLACE, "n_cells"], how="left")
    has_interval = rows["ci_low"].notna()
    state = _is_across_zero(rows, has_interval).map({True: State.UNCERTAIN.value, False: State.PLAIN.value})
    state = state.where(has_interval, State.UNTESTED.value).mask(rows["shown"].isna(), State.MISSING.value)
    kind = has_interval.map({True: "mean", False: "mean without interval"})
    verdict = kind + " of " + rows["n_cells"].astype(str) + " cells"
    verdict += rows["is_whole"].map({True: "", False: ", not ranked"})
    return rows.assign(state=state, verdict=verdict, why="no usable cell")


def _comparable(cells: pd.DataFrame, candidate: str, over: str) -> pd.DataFrame:
    """The cells that the means of candidates are of: see `means`. Adds is_whole and left_out."""
    numbers = cells.pivot(index=candidate, columns=over, values="shown")
    numbers = numbers.dropna(how="all").dropna(axis=1, how="all")  # lost, or not measured yet
    block = complete(numbers)
    is_whole = cells[candidate].isin(block.index)
    named = left_out(numbers, block) if candidate == "row" else left_out(numbers.T, block.T)
    return cells.assign(is_whole=is_whole, left_out=named)[~is_whole | cells[over].isin(block.columns)]


def _intervals(cells: pd.DataFrame, averages: pd.DataFrame, show: Show) -> pd.DataFrame:
    """Of the means of these cells over languages, and of the view's over X-FT: `PLACE`, n_cells, n_pairs, ends."""
    over_langs = eval_averages(cells).merge(cells[["row", *VARIANT]].drop_duplicates(), on=VARIANT)
    over_x_ft = averages[averages["train_lang"] == MEAN].assign(row=MEAN)
    every = pd.concat([over_langs.assign(eval_lang=MEAN), over_x_ft], ignore_index=True)
    every = every.astype({"n_cells": int, **dict.fromkeys(["n_pairs", "ci_low", "ci_high"], float)})
    has_interval = every["ci_low"].notna() & (show == Show.DELTA)
    return every.loc[has_interval, [*PLACE, "n_cells", "n_pairs", "ci_low", "ci_high"]]


def mean_pairs(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The mean Δ of every variant in two metrics, over the cells that count in both: columns of `means` with _x and _y.

    `one` and `other`: grids of one model and split.
    """
    grids = [frame[(frame["row"] != MEAN) & (frame["strategy"] != Strategy.ZS)] for frame in (one, other)]
    grids = [frame[(frame["eval_lang"] != MEAN) & frame["shown"].notna()] for frame in grids]
    grids = [frame[frame["state"] != State.DEGENERATE] for frame in grids]
    places = grids[0][PLACE].merge(grids[1][PLACE])
    sides = [means(frame.merge(places, on=PLACE), NO_AVERAGES) for frame in grids]
    sides = [side[side["row"] != MEAN] for side in sides]
    return sides[0].merge(sides[1], on=[*PLACE, "strategy", "is_whole", "left_out"])


def arrange(cells: pd.DataFrame, order: Order, is_low_best: bool = False) -> pd.DataFrame:
    """A grid with its means, its rows and languages in this order: see `Order`. Means that are not whole come last."""
    whole = cells[(cells["eval_lang"] == MEAN) & (cells["is_whole"] == True)]  # noqa: E712  settings have no means
    means = whole.set_index("row")["shown"] * (1 if is_low_best else -1)

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
