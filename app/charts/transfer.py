"""The charts of the Overview page: averages → Altair charts. Knows nothing of Streamlit, and works no number out."""

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.labels import CATEGORIES, Measure, Palette, format_number, lang_name, row_name
from engine.analysis.choice import is_front
from engine.vocabulary import Metric, Strategy

Picture = alt.Chart | alt.LayerChart

SHAPES = {Strategy.X_FT: "circle", Strategy.P_FT: "square", Strategy.M_FT: "diamond"}
FRAME = 60
"""Height in pixels of an axis with its title, which the height of a chart counts in."""
MAX_NAMED = 15
"""Up to so many points have their name beside them; more would hide each other."""


def _colour(models: Sequence[str], theme: str) -> alt.Color:
    colours = CATEGORIES[theme]
    scale = alt.Scale(domain=list(models), range=[colours[i % len(colours)] for i in range(len(models))])
    legend = alt.Legend(orient="top", title=None, columns=2, symbolType="circle", symbolOpacity=1, labelLimit=170)
    return alt.Color("model:N", scale=scale, legend=legend if len(models) > 1 else None)


def _legend_height(models: Sequence[str]) -> int:
    return 30 + 26 * math.ceil(len(models) / 2) if len(models) > 1 else 0


def ranking(averages: pd.DataFrame, models: Sequence[str], measure: Measure, palette: Palette, theme: str) -> Picture:
    """Mean Δ with its interval, one line per language, the best first; models beside each other in it.

    `averages`: lang (what the lines are of), model, shown, ci_low, ci_high (NaN where there is none), verdict and
    is_whole. Languages with a mean that is not whole, or that a model lacks, come last.
    """
    frame = averages.assign(
        name=averages["lang"].map(lang_name),
        delta=[format_number(x, measure.digits + 1, sign=True) for x in averages["shown"]],
        interval=[
            "–"
            if math.isnan(low)
            else f"{format_number(low, measure.digits + 1)} to {format_number(high, measure.digits + 1)}"
            for low, high in zip(averages["ci_low"], averages["ci_high"], strict=True)
        ],
    )
    lines = frame.groupby("name").agg(shown=("shown", "mean"), n_whole=("is_whole", "sum"))
    lines["is_last"] = lines["n_whole"] < len(models)
    order = lines.sort_values(["is_last", "shown"], ascending=[True, False]).index.tolist()
    title = f"mean Δ, {measure.delta_unit}; right of zero: {measure.better}"
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "name:N", sort=order, title=None, axis=alt.Axis(grid=True, ticks=False, domain=False, labelOverlap=False)
        ),
        yOffset=alt.YOffset("model:N", sort=list(models)),
        color=_colour(models, theme),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("name:N", title="language"),
            alt.Tooltip("delta:N", title="mean Δ"),
            alt.Tooltip("interval:N", title="95 % interval"),
            alt.Tooltip("verdict:N", title="basis"),
        ],
    )
    few = alt.Axis(tickCount=6)  # more would touch, and the last be cut off, where intervals are wide
    bars = base.mark_rule(strokeWidth=2, aria=False).encode(x=alt.X("ci_low:Q", title=title, axis=few), x2="ci_high:Q")
    points = base.mark_point(filled=True, size=46, opacity=1).encode(x=alt.X("shown:Q", title=title, axis=few))
    height = FRAME + _legend_height(models) + max(22, 10 * len(models) + 6) * len(order)
    return _configured(_zero(palette, "x") + bars + points, height)


def cost(
    averages: pd.DataFrame,
    models: Sequence[str],
    fluency: str,
    measures: tuple[Measure, Measure],
    palette: Palette,
    theme: str,
) -> Picture:
    """Δ toxicity (up: less toxic) against Δ of a perplexity (right: lower) of every variant, means over languages.

    `averages`: model, row, strategy, and shown, ci_low, ci_high of both with _x (perplexity) and _y (toxicity).
    `measures`: of the perplexity and of toxicity. Named are those that no other of their model beats in both. Printed
    perplexities have a few huge Δ: their scale is logarithmic away from zero.
    """
    of_x, of_y = measures
    frame = averages.assign(name=averages["row"].map(row_name), long=[row_name(r, long=True) for r in averages["row"]])
    points_of = frame.groupby("model", sort=False)[["shown_x", "shown_y"]]
    frame["is_front"] = pd.concat(pd.Series(is_front(p.to_numpy(float)), p.index) for _, p in points_of)
    for side, measure in (("_x", of_x), ("_y", of_y)):
        frame["said" + side] = [
            format_number(delta, measure.digits + 1, sign=True)
            + (
                ""
                if math.isnan(low)
                else f" ({format_number(low, measure.digits + 1)} to {format_number(high, measure.digits + 1)})"
            )
            for delta, low, high in zip(*(frame[c + side] for c in ("shown", "ci_low", "ci_high")), strict=True)
        ]
    is_printed = fluency == Metric.PERPLEXITY_PUBLISHED
    scale = alt.Scale(type="symlog", constant=1) if is_printed else alt.Scale(zero=True)
    ticks = alt.Axis(values=[sign * 10**power for sign in (-1, 1) for power in range(5)]) if is_printed else alt.Axis()
    unit = f", {of_x.delta_unit}" if of_x.delta_unit else ""
    across, up = f"mean Δ perplexity{unit}; right of zero: {of_x.better}", f"mean Δ toxicity; up: {of_y.better}"
    base = alt.Chart(frame).encode(
        color=_colour(models, theme),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("long:N", title="trained on"),
            alt.Tooltip("said_y:N", title="Δ toxicity"),
            alt.Tooltip("said_x:N", title="Δ perplexity"),
        ],
    )
    x, y = alt.X("shown_x:Q", title=across, scale=scale, axis=ticks), alt.Y("shown_y:Q", title=up)
    wide = base.mark_rule(opacity=0.35, aria=False).encode(x=alt.X("ci_low_x:Q", title=across), x2="ci_high_x:Q", y=y)
    tall = base.mark_rule(opacity=0.35, aria=False).encode(x=x, y=alt.Y("ci_low_y:Q", title=up), y2="ci_high_y:Q")
    strategies = [s for s in SHAPES if s in set(frame["strategy"])]
    shape = alt.Shape(
        "strategy:N",
        scale=alt.Scale(domain=strategies, range=[SHAPES[s] for s in strategies]),
        legend=alt.Legend(orient="top", title=None, symbolFillColor=palette.ink, symbolStrokeWidth=0)
        if len(strategies) > 1
        else None,
    )
    points = base.mark_point(filled=True, size=70, opacity=0.95).encode(x=x, y=y, shape=shape)
    layers = _zero(palette, "x") + _zero(palette, "y") + wide + tall + points
    if frame["is_front"].sum() <= MAX_NAMED:
        is_right = "datum.strategy == 'X-FT'"  # the pooled ones to the other side, out of their way
        align, aside = alt.expr(f"{is_right} ? 'left' : 'right'"), alt.expr(f"{is_right} ? 7 : -7")
        names = base.transform_filter("datum.is_front").mark_text(align=align, dx=aside, dy=-7, fontSize=11, aria=False)
        layers += names.encode(x=x, y=y, text="name:N", color=alt.value(palette.ink))
    return _configured(layers, FRAME + 30 + _legend_height(models) + 290)


def agreement(pairs: pd.DataFrame, theme: str) -> Picture:
    """Spearman's rank correlation of every two scorers, by language: see `analysis.agreement`."""
    frame = pairs.assign(
        name=pairs["eval_lang"].map(lang_name), model=pairs["scorer_a"] + " and " + pairs["scorer_b"]
    ).dropna(subset="rank_correlation")
    names = frame["model"].unique().tolist()
    chart = alt.Chart(frame).mark_point(filled=True, size=70, opacity=1)
    chart = chart.encode(
        y=alt.Y("name:N", title=None, axis=alt.Axis(grid=True, ticks=False, domain=False, labelOverlap=False)),
        x=alt.X(
            "rank_correlation:Q",
            title="rank correlation (1: same order)",
            scale=alt.Scale(domainMax=1),
            axis=alt.Axis(tickCount=6),
        ),
        color=_colour(names, theme),
        tooltip=[
            alt.Tooltip("model:N", title="scorers"),
            alt.Tooltip("name:N", title="language"),
            alt.Tooltip("rank_correlation:Q", title="rank correlation", format=".2f"),
            alt.Tooltip("opposite:Q", title="disagreement", format=".1%"),
            alt.Tooltip("n:Q", title="texts", format=","),
        ],
    )
    return _configured(chart, FRAME + _legend_height(names) + 24 * frame["name"].nunique())


def _zero(palette: Palette, channel: str) -> alt.Chart:
    """A line at no change."""
    at = alt.X("zero:Q") if channel == "x" else alt.Y("zero:Q")
    rule = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=palette.ink, opacity=0.6, aria=False)
    line: alt.Chart = rule.encode(at)
    return line


def _configured(chart: alt.Chart | alt.LayerChart, height: int) -> Picture:
    finished: Picture = chart.properties(height=height).configure_view(stroke=None)
    return finished
