"""The train-language × evaluation-language matrix: a grid → Altair chart. Knows nothing of Streamlit.

A score in greys, as on the ZS row; a Δ on a scale from orange (worse) over neutral to blue (better), symmetric around
zero. What is degenerate has no colour: its number is no sign of anything. A colour is worked out here and not by Vega,
so that one ink reads on all of them.
"""

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from app.labels import MEAN, Measure, Palette, format_number, lang_name, mix, row_name
from app.tables.grid import Order, State, group
from engine.vocabulary import Language, Strategy, parse_label

CELL = "cell"
"""Name of the chart's selection; its fields are `row` and `eval_lang`."""

HINTS = ("Trained on", "Evaluated in", "Value", "Zero-shot", "Δ", "95 % interval", "Prompts", "Verdict")
"""What a tooltip says."""

STEP, COMPACT_STEP = 34, 21
"""Height of a row in pixels, alone and as one of several."""
GAP = 0.3
"""Space between the parts of the matrix, in rows or columns."""


@dataclass(frozen=True)
class Scale:
    """What the colours reach to: |Δ| of full colour, and the lowest and highest score. Matrices may share one."""

    end: float
    low: float
    high: float


def scale(cells: pd.DataFrame) -> Scale:
    """Of `shown` of all cells that count; at most twice the 80th percentile, lest a few pale the rest."""
    counted = cells[~cells["state"].isin([State.MISSING, State.DEGENERATE])]
    is_score = counted["is_score"]
    scores, deltas = counted.loc[is_score, "shown"], counted.loc[~is_score, "shown"].abs()
    end = min(deltas.max(), 2 * deltas.quantile(0.8)) if len(deltas) else 0.0
    low, high = (scores.min(), min(scores.max(), 2 * scores.quantile(0.8))) if len(scores) else (0.0, 0.0)
    return Scale(float(end) or 1.0, float(low), float(high))


def matrix(
    cells: pd.DataFrame,
    measure: Measure,
    palette: Palette,
    colours: Scale,
    chosen: tuple[str, str] = ("", ""),
    order: Order = Order.ALPHABET,
    is_compact: bool = False,
) -> alt.LayerChart:
    """The matrix of a `grid` with its means, arranged. A click selects a cell by its fields row and eval_lang.

    `is_compact`: one of several that are looked at together.
    """
    cells = cells.reset_index(drop=True)
    texts = pd.DataFrame([_texts(cell, measure) for cell in cells.to_dict("records")])
    marks = pd.concat([cells[["row", "eval_lang", "shown", "state", "is_score"]], texts], axis=1)
    marks["fill"] = _fills(marks, colours, palette, measure)
    tall, wide = _positions(cells["row"], order), _positions(cells["eval_lang"], order)
    marks["left"], marks["top"] = marks["eval_lang"].map(wide) + 0.02, marks["row"].map(tall) + 0.03
    marks["right"], marks["bottom"] = marks["left"] + 0.96, marks["top"] + 0.94
    marks["middle"], marks["centre"] = marks["left"] + 0.48, marks["top"] + 0.49
    marks["edge"], marks["corner"] = marks["left"] + 0.86, marks["top"] + 0.16
    across = _axis({round(at + 0.5, 1): lang for lang, at in wide.items()}, "evaluated in", palette.ink, is_compact)
    down = _axis({round(at + 0.5, 1): row_name(row) for row, at in tall.items()}, "trained on", palette.ink, is_compact)
    return _layers(marks, across, down, palette, chosen, is_compact)


def _positions(names: pd.Series, order: Order) -> dict[str, float]:
    """Name → where it begins on its axis, with a gap around ZS, between groups of languages, around means and before
    pooled strategies."""
    parts: dict[tuple[int, str], list[str]] = {(0, ""): []}
    for name in dict.fromkeys(names):
        parts.setdefault(_part(name, order), []).append(name)
    places: dict[str, float] = {}
    at = 0.0
    for _, part in sorted(filter(lambda item: item[1], parts.items()), key=lambda item: item[0][0]):
        places.update({name: round(at + i, 1) for i, name in enumerate(part)})
        at = round(at + len(part) + GAP, 1)  # short decimals: the axis looks its names up by them
    return places


def _part(name: str, order: Order) -> tuple[int, str]:
    """The part of an axis that a row or a language belongs to: its place among parts, and its group of languages."""
    if name == MEAN:
        return 2, ""
    strategy, lang = (Strategy.X_FT, name) if name in set(Language) else parse_label(name)
    return {Strategy.ZS: 0, Strategy.X_FT: 1}.get(strategy, 3), group(lang, order)


def _texts(cell: Mapping[Hashable, Any], measure: Measure) -> dict[str, str]:
    """What a cell shows, what a screen reader says, and the tooltip."""
    fine, missing = measure.digits + 1, cell["state"] == State.MISSING
    low, high = (format_number(cell[end], fine) for end in ("ci_low", "ci_high"))
    counts = {"n": "", "n_valid": " with a value", "n_pairs": " paired with ZS"}
    remarks = [str(word) for word in (cell["verdict"], cell["verdict_reason"]) if isinstance(word, str)]
    number = format_number(cell["shown"], measure.digits)
    mark = f", {cell['state']}" if cell["state"] in (State.UNCERTAIN, State.DEGENERATE) else ""
    place = {"Trained on": row_name(cell["row"], long=True), "Evaluated in": lang_name(cell["eval_lang"])}
    return {
        "label": "×" if missing else number,
        "spoken": f"{' in '.join(place.values())}: {'missing' if missing else number + mark}",
        **place,
        "Value": format_number(cell["value"], fine),
        "Zero-shot": format_number(cell["baseline"], fine),
        "Δ": format_number(cell["delta"], fine, sign=True, unit=measure.delta_unit),
        "95 % interval": "–" if math.isnan(cell["ci_low"]) else f"{low} to {high}",
        "Prompts": ", ".join(f"{cell[n]:.0f}{what}" for n, what in counts.items() if not math.isnan(cell[n])) or "–",
        "Verdict": f"missing: {cell['why']}" if missing else ": ".join(remarks) or "–",
    }


def _fills(marks: pd.DataFrame, colours: Scale, palette: Palette, measure: Measure) -> list[str]:
    """The colour of every cell: greys for a score, worse to better for a Δ, and none for what does not count."""
    span = colours.high - colours.low
    fills = []
    for value, state, is_score in zip(marks["shown"], marks["state"], marks["is_score"], strict=True):
        if state in (State.MISSING, State.DEGENERATE):
            fills.append(palette.missing)
        elif is_score:
            share = min((value - colours.low) / span, 1.0) if span else 0.0
            fills.append(mix(palette.low, palette.high, share))
        else:
            strength = min(abs(value) / colours.end, 1.0)
            side = palette.better if measure.is_better(value) else palette.worse
            fills.append(mix(palette.middle, side, strength))
    return fills


def _axis(names: Mapping[float, str], title: str, ink: str, is_compact: bool) -> tuple[float, alt.Axis]:
    """The length and the axis of one side. Where there is room, a language code has its name below it."""
    codes = set(Language)
    lines = {f"{at:g}": [name, lang_name(name)] if name in codes else [name] for at, name in names.items()}
    has_names = title == "evaluated in" and not is_compact
    name = f"{json.dumps(lines, ensure_ascii=False)}[datum.value]"
    axis = alt.Axis(
        values=list(names),
        labelExpr=f"width < 620 ? {name}[0] : {name}" if has_names else f"{name}[0]",
        labelPadding=alt.expr("width < 620 ? 6 : 20") if has_names else 6,
        labelOverlap=False,
        grid=False,
        ticks=False,
        domain=False,
        title=None if is_compact else title,
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
    is_compact: bool,
) -> alt.LayerChart:
    """Areas, numbers, rings for what is uncertain, triangles for what is degenerate, a frame around the chosen cell."""
    (width, x_axis), (height, y_axis) = across, down
    x_scale = alt.Scale(domain=[0, width], nice=False, zero=False)
    y_scale = alt.Scale(domain=[height, 0], nice=False, zero=False)

    hints = [alt.Tooltip(f"{hint}:N") for hint in HINTS]
    placed = {
        key: (alt.X(f"{x}:Q", scale=x_scale, axis=x_axis), alt.Y(f"{y}:Q", scale=y_scale, axis=y_axis))
        for key, x, y in (("area", "left", "top"), ("text", "middle", "centre"), ("mark", "edge", "corner"))
    }

    def at(key: str, marks: pd.DataFrame) -> alt.Chart:
        x, y = placed[key]
        return alt.Chart(marks).encode(x=x, y=y)

    areas = at("area", marks).mark_rect(cornerRadius=3, cursor="pointer").encode(tooltip=hints, description="spoken:N")
    areas = areas.encode(x2="right:Q", y2="bottom:Q", color=alt.Color("fill:N", scale=None))
    areas = areas.add_params(alt.selection_point(name=CELL, fields=["row", "eval_lang"], toggle=False))
    size = alt.expr(f"width < 420 ? {9 if is_compact else 10} : {11 if is_compact else 13}")
    weight = alt.expr("datum.state == 'plain' ? 600 : 400")
    numbers = at("text", marks).encode(text="label:N", tooltip=hints)
    numbers = numbers.mark_text(fontSize=size, fontWeight=weight, color=palette.ink, cursor="pointer", aria=False)
    layers = [areas, numbers]
    small, large = alt.expr(f"width < 420 ? 11 : {12 if is_compact else 22}"), alt.expr("width < 420 ? 16 : 34")
    if len(uncertain := marks[marks["state"] == State.UNCERTAIN]):
        rings = at("mark", uncertain)
        layers.append(rings.mark_point(size=small, strokeWidth=1.2, color=palette.ink, opacity=0.8, aria=False))
    if len(degenerate := marks[marks["state"] == State.DEGENERATE]):
        size = small if is_compact else large
        triangles = at("mark", degenerate)
        layers.append(
            triangles.mark_point(shape="triangle-up", size=size, filled=True, color=palette.ink, opacity=1, aria=False)
        )
    if len(framed := marks[(marks["row"] == chosen[0]) & (marks["eval_lang"] == chosen[1])]):
        frame = at("area", framed).encode(x2="right:Q", y2="bottom:Q")
        layers.append(frame.mark_rect(filled=False, stroke=palette.ink, strokeWidth=2.2, cornerRadius=3, aria=False))
    height *= COMPACT_STEP if is_compact else STEP
    chart = alt.layer(*layers).properties(height=height).configure_view(stroke=None)
    finished: alt.LayerChart = chart.configure_axisX(orient="top")
    return finished
