"""The train-language × evaluation-language matrix: cells → Altair chart. Knows nothing of Streamlit.

A ZS row with the score itself, in greys; below it Δ on a scale from orange (worse) over neutral to blue
(better), symmetric around zero. A colour is worked out here and not by Vega, so that one ink reads on all of them.
"""

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any

import altair as alt
import pandas as pd

from app.words import MEAN, Measure, Palette, lang_name, mixed, row_name, written
from engine.vocabulary import Language, Status, Strategy, Verdict

CELL = "cell"
"""Name of the chart's selection; its fields are `row` and `eval_lang`."""

HINTS = ("Trained on", "Evaluated in", "Value", "Zero-shot", "Δ", "95 % interval", "Prompts", "Verdict")
"""What a tooltip says."""

NUMBERS = ["n", "n_valid", "n_pairs", "value", "baseline", "delta", "ci_low", "ci_high", "verdict", "verdict_reason"]
"""The columns of the view `cells` that we show."""

STEP = 34
"""Height of a row in pixels."""
GAP = 0.3
"""Space between the parts of the matrix, in rows or columns."""


def grid(plan: pd.DataFrame, cells: pd.DataFrame, has_intervals: bool) -> pd.DataFrame:
    """One row for every setting of the plan, with its cell or without, by strategy, variant and language.

    `plan`: row, strategy, eval_lang, status, error of one model. `cells`: those of one split, metric and scorer.
    Adds `shown` (the value on the ZS row, Δ elsewhere; NaN where missing), `state` (missing, uncertain, plain) and
    `why` (for a missing one).
    """
    numbers = cells[["row", "eval_lang", *NUMBERS]]
    found = plan.merge(numbers, on=["row", "eval_lang"], how="left", validate="one_to_one")
    is_zs = found["strategy"] == Strategy.ZS
    found["shown"] = found["value"].where(is_zs, found["delta"]).astype(float)
    across_zero = ~is_zs & (found["ci_low"] <= 0) & (found["ci_high"] >= 0)
    no_verdict = found["verdict"].isin([Verdict.TOO_FEW, Verdict.DEGENERATE])
    doubtful = has_intervals & (found["ci_low"].isna() | across_zero | no_verdict)
    found["state"] = doubtful.map({True: "uncertain", False: "plain"}).mask(found["shown"].isna(), "missing")
    setting = found["status"].where(found["error"].isna(), found["status"] + ": " + found["error"].astype(str))
    not_done = found["n"].isna() & (found["status"] != Status.DONE)
    found["why"] = setting.where(not_done, found["verdict_reason"]).fillna("not measured")
    order = found["strategy"].map({strategy.value: i for i, strategy in enumerate(Strategy)})
    return found.assign(order=order).sort_values(["order", "row", "eval_lang"], ignore_index=True)


def colour_end(found: pd.DataFrame) -> float:
    """The |Δ| of full colour: the largest, but at most twice the 80th percentile, lest a few pale the rest."""
    sizes = found.loc[found["strategy"] != Strategy.ZS, "shown"].abs().dropna()
    return float(min(sizes.max(), 2 * sizes.quantile(0.8))) or 1.0 if len(sizes) else 1.0


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Means of Δ over the cells that have one, as rows of a grid: each row's, each language's and all of X-FT."""
    tuned = found[found["strategy"] != Strategy.ZS]
    alone = tuned[tuned["strategy"] == Strategy.X_FT].assign(row=MEAN)
    parts = pd.concat([tuned.assign(eval_lang=MEAN), alone, alone.assign(eval_lang=MEAN)])
    rows = parts.groupby(["row", "eval_lang"], sort=False)["shown"].agg(["mean", "count"]).reset_index()
    return rows.assign(
        shown=rows["mean"],
        delta=rows["mean"],
        state=rows["mean"].isna().map({True: "missing", False: MEAN}),
        why="no cell has one",
        verdict="mean of " + rows["count"].astype(str) + " cells",
    )


def matrix(found: pd.DataFrame, measure: Measure, palette: Palette, chosen: tuple[str, str]) -> alt.LayerChart:
    """The matrix of a `grid`, with its means. A click selects a cell by its fields row and eval_lang."""
    cells = pd.concat([found, means(found)], ignore_index=True)
    texts = pd.DataFrame([_texts(cell, measure) for cell in cells.to_dict("records")])
    marks = pd.concat([cells[["row", "eval_lang", "shown", "state"]], texts], axis=1)
    marks["fill"] = _fills(marks, colour_end(found), palette, measure.is_reversed)
    tall, wide = _places(cells["row"]), _places(cells["eval_lang"])
    marks["left"], marks["top"] = marks["eval_lang"].map(wide) + 0.02, marks["row"].map(tall) + 0.03
    marks["right"], marks["bottom"] = marks["left"] + 0.96, marks["top"] + 0.94
    marks["middle"], marks["centre"] = marks["left"] + 0.48, marks["top"] + 0.49
    marks["edge"], marks["corner"] = marks["left"] + 0.86, marks["top"] + 0.16
    across = _axis({at + 0.5: lang for lang, at in wide.items()}, "evaluated in", palette.ink)
    down = _axis({at + 0.5: row_name(row) for row, at in tall.items()}, "trained on", palette.ink)
    return _layers(marks, across, down, palette, chosen)


def _places(names: pd.Series) -> dict[str, float]:
    """Name → where it begins on its axis, with a gap around ZS, around means and before pooled strategies."""
    parts: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: []}
    for name in dict.fromkeys(names):
        number = {"zs": 0, MEAN: 2}.get(name, 3 if name.startswith(("p-ft", "m-ft")) else 1)
        parts[number].append(name)
    places: dict[str, float] = {}
    at = 0.0
    for part in filter(None, parts.values()):
        places.update({name: at + i for i, name in enumerate(part)})
        at = round(at + len(part) + GAP, 1)  # short decimals: the axis looks its names up by them
    return places


def _texts(cell: Mapping[Hashable, Any], measure: Measure) -> dict[str, str]:
    """What a cell shows, what a screen reader says, and the tooltip."""
    fine, missing = measure.digits + 1, cell["state"] == "missing"
    low, high = (written(cell[end], fine) for end in ("ci_low", "ci_high"))
    counts = {"n": "", "n_valid": " with a value", "n_pairs": " in the pair with ZS"}
    said = [str(word) for word in (cell["verdict"], cell["verdict_reason"]) if isinstance(word, str)]
    number = written(cell["shown"], measure.digits)
    place = {"Trained on": row_name(cell["row"], long=True), "Evaluated in": lang_name(cell["eval_lang"])}
    return {
        "label": "×" if missing else number,
        "spoken": f"{' in '.join(place.values())}: {'no number' if missing else number}",
        **place,
        "Value": written(cell["value"], fine),
        "Zero-shot": written(cell["baseline"], fine),
        "Δ": written(cell["delta"], fine, sign=True, unit=measure.delta_unit),
        "95 % interval": "–" if math.isnan(cell["ci_low"]) else f"{low} to {high}",
        "Prompts": ", ".join(f"{cell[n]:.0f}{what}" for n, what in counts.items() if not math.isnan(cell[n])) or "–",
        "Verdict": f"no number: {cell['why']}" if missing else ": ".join(said) or "–",
    }


def _fills(marks: pd.DataFrame, end: float, palette: Palette, is_reversed: bool) -> list[str]:
    """The colour of every cell: greys over the range of the ZS row, worse to better over ±`end` elsewhere."""
    zs = marks.loc[marks["row"] == "zs", "shown"]
    low, span = zs.min(), zs.max() - zs.min()
    fills = []
    for row, shown in zip(marks["row"], marks["shown"], strict=True):
        if math.isnan(shown):
            fills.append(palette.missing)
        elif row == "zs":
            fills.append(mixed(palette.low, palette.high, (shown - low) / span if span else 0.0))
        else:
            strength = min(abs(shown) / end, 1.0)
            is_better = (shown > 0) is not is_reversed
            fills.append(mixed(palette.middle, palette.better if is_better else palette.worse, strength))
    return fills


def _axis(names: Mapping[float, str], title: str, ink: str) -> tuple[float, alt.Axis]:
    """The length and the axis of one side. Where there is room, a language code has its name below it."""
    codes = set(Language)
    lines = {at: [name, lang_name(name)] if name in codes else [name] for at, name in names.items()}
    is_across = title == "evaluated in"
    name = f"{json.dumps(lines, ensure_ascii=False)}[datum.value]"
    axis = alt.Axis(
        values=list(names),
        labelExpr=f"width < 620 ? {name}[0] : {name}" if is_across else f"{name}[0]",
        labelPadding=alt.expr("width < 620 ? 6 : 20") if is_across else 6,
        labelOverlap=False,
        grid=False,
        ticks=False,
        domain=False,
        title=title,
        titleFontWeight="normal",
        labelColor=ink,
        titleColor=ink,
        labelOpacity=0.8,
        titleOpacity=0.8,
    )
    return max(names) + 0.5, axis


def _layers(
    marks: pd.DataFrame,
    across: tuple[float, alt.Axis],
    down: tuple[float, alt.Axis],
    palette: Palette,
    chosen: tuple[str, str],
) -> alt.LayerChart:
    """Areas, numbers, rings for what is uncertain, and a frame around the chosen cell."""
    (width, x_axis), (height, y_axis) = across, down
    x_scale = alt.Scale(domain=[0, width], nice=False, zero=False)
    y_scale = alt.Scale(domain=[height, 0], nice=False, zero=False)

    def at(x: str, y: str, data: pd.DataFrame) -> alt.Chart:
        return alt.Chart(data).encode(
            x=alt.X(f"{x}:Q", scale=x_scale, axis=x_axis),
            y=alt.Y(f"{y}:Q", scale=y_scale, axis=y_axis),
            tooltip=[alt.Tooltip(f"{hint}:N") for hint in HINTS],
        )

    areas = at("left", "top", marks).mark_rect(cornerRadius=3, cursor="pointer")
    areas = areas.encode(x2="right:Q", y2="bottom:Q", color=alt.Color("fill:N", scale=None), description="spoken:N")
    areas = areas.add_params(alt.selection_point(name=CELL, fields=["row", "eval_lang"], toggle=False))
    size, weight = alt.expr("width < 420 ? 10 : 13"), alt.expr("datum.state == 'plain' ? 600 : 400")
    numbers = at("middle", "centre", marks).encode(text="label:N")
    numbers = numbers.mark_text(fontSize=size, fontWeight=weight, color=palette.ink, cursor="pointer", aria=False)
    ring = alt.expr("width < 420 ? 11 : 22")
    rings = at("edge", "corner", marks[marks["state"] == "uncertain"])
    rings = rings.mark_point(size=ring, strokeWidth=1.2, color=palette.ink, opacity=0.8, aria=False)
    frame = at("left", "top", marks[(marks["row"] == chosen[0]) & (marks["eval_lang"] == chosen[1])])
    frame = frame.mark_rect(filled=False, stroke=palette.ink, strokeWidth=2.2, cornerRadius=3, aria=False)
    layers = alt.layer(areas, numbers, rings, frame.encode(x2="right:Q", y2="bottom:Q"))
    layers = layers.properties(height=height * STEP).configure_view(stroke=None)
    chart: alt.LayerChart = layers.configure_axisX(orient="top")
    return chart
