"""Strategies and adapters compared: results of `engine.analysis` → charts and tables. No Streamlit."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from app.labels import MEAN, MEASURES, Measure, format_number, format_p, lang_name, row_name
from app.tables.paper_table import DIGITS, Entry, Mark, Row, Table
from engine.vocabulary import Strategy, parse_label

Layers = alt.LayerChart | alt.FacetChart
"""What `alt.layer` says that it returns."""

BEST = "x-ft-best"
ROW_NAMES = {"x-ft-mean": "X-FT, mean of languages", BEST: "X-FT, best language"}
WHICH = "best train language"
SHAPES = {"x-ft-mean": "circle", BEST: "triangle-up", "p-ft-10": "square", "p-ft-20": "cross"}
SHAPES |= {"p-ft-30": "diamond", "m-ft": "triangle-down"}
STEP = 11
"""Height of a strategy within a language, in pixels."""


def strategy_of(row: str) -> Strategy:
    """`x-ft-best` → X-FT."""
    return parse_label(row)[0]


def strategy_name(row: str) -> str:
    return ROW_NAMES.get(row) or row_name(row)


def adapter_name(row: str) -> str:
    """`x-ft-de` → 'X-FT de'."""
    name = row_name(row)
    return name if name.startswith(strategy_of(row)) else f"{strategy_of(row)} {name}"


def interval(low: float, high: float, digits: int) -> str:
    return "–" if pd.isna(low) else f"{format_number(low, digits)} to {format_number(high, digits)}"


def languages(rows: pd.DataFrame) -> list[str]:
    """Those of a table, the mean over them last."""
    return sorted(rows["eval_lang"].unique(), key=lambda lang: (lang == MEAN, lang))


def by_language(numbers: pd.DataFrame, measure: Measure, colours: Mapping[str, str], ink: str) -> Layers:
    """Δ of every strategy in every language, with intervals.

    `numbers`: row, train_lang, eval_lang, delta, ci_low, ci_high, n_cells.
    """
    frame = numbers[numbers["delta"].notna()].assign(
        Strategy=lambda t: t["row"].map(strategy_name),
        Language=lambda t: t["eval_lang"].map(lang_name),
        trained=lambda t: [_trained_on(*place) for place in zip(t["row"], t["train_lang"], strict=True)],
        told=lambda t: [format_number(d, DIGITS, sign=True, unit=measure.delta_unit) for d in t["delta"]],
        span=lambda t: [interval(a, b, DIGITS) for a, b in zip(t["ci_low"], t["ci_high"], strict=True)],
    )
    rows = [row for row in SHAPES if row in set(frame["row"])]
    names, langs = [strategy_name(row) for row in rows], languages(numbers)
    sides = f"← {measure.worse}  ·  Δ{f' in {measure.delta_unit}' if measure.delta_unit else ''}  ·  {measure.better} →"
    x_axis = alt.Axis(title=sides if not measure.is_reversed else _reversed_title(measure), grid=True)
    y = alt.Y("eval_lang:N", sort=langs, title="evaluated in", scale=alt.Scale(paddingInner=0.25, paddingOuter=0.1))
    offset = alt.YOffset("Strategy:N", sort=names, scale=alt.Scale(domain=names))
    legend = alt.Legend(
        orient="top",
        title=None,
        columns=alt.expr("width < 520 ? 2 : 6"),
        labelLimit=220,
        symbolStrokeWidth=2,
        symbolOpacity=1,
    )
    scale = alt.Scale(domain=names, range=[colours[strategy_of(row)] for row in rows])
    colour = alt.Color("Strategy:N", scale=scale, legend=legend, sort=names)
    base = alt.Chart(frame).encode(y=y, yOffset=offset, color=colour)
    tips = [
        alt.Tooltip("Strategy:N"),
        alt.Tooltip("Language:N", title="Evaluated in"),
        alt.Tooltip("told:N", title="Δ"),
        alt.Tooltip("span:N", title="95 % interval"),
        alt.Tooltip("n_cells:Q", title="Cells"),
        alt.Tooltip("trained:N", title="Trained on"),
    ]
    spans = base.mark_rule(strokeWidth=1.6, opacity=0.65).encode(x=alt.X("ci_low:Q", axis=x_axis), x2="ci_high:Q")
    shapes = alt.Scale(domain=names, range=[SHAPES[row] for row in rows])
    points = base.mark_point(filled=True, size=52, opacity=1).encode(
        x=alt.X("delta:Q", axis=x_axis), shape=alt.Shape("Strategy:N", scale=shapes, legend=legend), tooltip=tips
    )
    zero = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(color=ink, opacity=0.6).encode(x=alt.X("at:Q", axis=x_axis))
    layers = alt.layer(zero, spans, points)
    return layers.properties(height=max(len(langs), 1) * (len(rows) * STEP + 12))


def _trained_on(row: str, train_lang: str) -> str:
    return lang_name(train_lang) if row == BEST else {"x-ft-mean": "each language"}.get(row, "all languages")


def _reversed_title(measure: Measure) -> str:
    return f"← {measure.better}  ·  Δ  ·  {measure.worse} →"


def strategy_table(numbers: pd.DataFrame, caption: str) -> Table:
    """The numbers of `by_language`: strategies down, languages across."""
    columns = languages(numbers)
    places = {(c["row"], c["eval_lang"]): c for c in numbers.to_dict("records")}
    rows = []
    for row in (row for row in SHAPES if row in set(numbers["row"])):
        cells = [places.get((row, c)) for c in columns]
        rows.append(Row("", strategy_name(row), tuple(map(_entry, cells, columns))))
        if row == BEST:
            trained = (str(cell["train_lang"]) if cell else "" for cell in cells)
            rows.append(Row("", WHICH, tuple(map(Entry, trained))))
    return Table(caption, "strategy", tuple(columns), tuple(rows))


def _entry(cell: Mapping[Hashable, Any] | None, column: str) -> Entry:
    if cell is None:
        return Entry("", Mark.MISSING, remark="languages differ" if column == MEAN else "no number")
    is_sure = not pd.isna(cell["ci_low"]) and not cell["ci_low"] <= 0 <= cell["ci_high"]
    remark = f"95 % interval {interval(cell['ci_low'], cell['ci_high'], DIGITS)}; {cell['n_cells']} cells"
    has_interval = not pd.isna(cell["ci_low"])
    mark = Mark.PLAIN if is_sure or not has_interval else Mark.UNCERTAIN
    return Entry(format_number(cell["delta"], DIGITS), mark, remark=remark)


def front(adapters: pd.DataFrame, fluency: Measure, colours: Mapping[str, str], ink: str) -> Layers:
    """Toxicity against fluency: a point an adapter with both intervals, the front a line and named, excluded hollow.

    `adapters`: `analysis.choose_adapters` of one model, with `row`.
    """
    frame = adapters[adapters["toxicity"].notna() & adapters["fluency"].notna()].assign(
        Adapter=lambda t: [row_name(row, long=True) for row in t["row"]],
        label=lambda t: t["row"].map(row_name),
        is_in=lambda t: t["excluded"].isna(),
        Excluded=lambda t: t["excluded"].fillna("–"),
        less=lambda t: [format_number(d, DIGITS, sign=True) for d in t["toxicity"]],
        fluent=lambda t: [format_number(d, DIGITS, sign=True) for d in t["fluency"]],
    )
    unit = f" in {fluency.delta_unit}" if fluency.delta_unit else ""
    few = alt.Axis(tickCount=8)
    right, up = f"Δ {_lower(fluency.name)}{unit} (right: lower)", "Δ toxicity in points (up: less toxic)"
    x, y = alt.X("fluency:Q", title=right, axis=few), alt.Y("toxicity:Q", title=up)
    strategies = [s.value for s in Strategy if s.value in set(frame["strategy"])]
    scale = alt.Scale(domain=strategies, range=[colours[s] for s in strategies])
    legend = alt.Legend(orient="top", title=None, symbolOpacity=1)
    colour = alt.Color("strategy:N", scale=scale, legend=legend)
    faded = alt.condition("datum.is_in", alt.value(0.45), alt.value(0.2))
    base = alt.Chart(frame)
    across = base.mark_rule().encode(
        x=alt.X("fluency_low:Q", title=right, axis=few), x2="fluency_high:Q", y=y, color=colour, opacity=faded
    )
    down = base.mark_rule().encode(
        x=x, y=alt.Y("toxicity_low:Q", title=up), y2="toxicity_high:Q", color=colour, opacity=faded
    )
    line = alt.Chart(frame[frame["is_front"].astype(bool)]).mark_line(
        color=ink, strokeWidth=1.5, strokeDash=[5, 3], opacity=0.8, interpolate="linear"
    )
    tips = [
        alt.Tooltip("Adapter:N"),
        alt.Tooltip("less:N", title="Δ toxicity"),
        alt.Tooltip("fluent:N", title="Δ fluency"),
        alt.Tooltip("Excluded:N"),
    ]
    shape = alt.Shape("strategy:N", scale=alt.Scale(domain=strategies), legend=legend)
    inside = base.transform_filter("datum.is_in").mark_point(filled=True, size=75, opacity=1)
    outside = base.transform_filter("!datum.is_in").mark_point(filled=False, size=75, strokeWidth=1.6)
    names = base.transform_filter("datum.is_front").mark_text(dx=9, dy=-9, align="left", fontSize=12, color=ink)
    zeros = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(color=ink, opacity=0.35)
    layers = alt.layer(
        zeros.encode(x=alt.X("at:Q", title=right, axis=few)),
        zeros.encode(y=alt.Y("at:Q", title=up)),
        across,
        down,
        line.encode(x=x, y=y, order="fluency:Q"),
        inside.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        outside.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        names.encode(x=x, y=y, text="label:N"),
    )
    return layers.properties(height=430)


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


CHOOSER = ("Δ toxicity", "95 % interval", "worst language", "Δ fluency", "fluency interval", "Pareto-optimal")


def adapter_table(adapters: pd.DataFrame, caption: str) -> Table:
    """The ranked adapters, and below them those that are excluded and why."""
    columns = (*CHOOSER, "why excluded") if adapters["excluded"].notna().any() else CHOOSER
    rows = []
    for adapter in adapters.to_dict("records"):
        is_in = not isinstance(adapter["excluded"], str)
        worst = (
            "–"
            if not isinstance(adapter["worst_lang"], str)
            else (f"{adapter['worst_lang']} {format_number(adapter['worst_delta'], DIGITS, sign=True)}")
        )
        texts = [
            format_number(adapter["toxicity"], DIGITS, sign=True),
            interval(adapter["toxicity_low"], adapter["toxicity_high"], DIGITS),
            worst,
            format_number(adapter["fluency"], DIGITS, sign=True),
            interval(adapter["fluency_low"], adapter["fluency_high"], DIGITS),
            "yes" if is_in and adapter["is_front"] else "",
            "" if is_in else adapter["excluded"],
        ]
        entries = tuple(map(Entry, texts))
        group = "Ranked by Δ toxicity" if is_in else "Excluded"
        rows.append(Row(group, adapter_name(adapter["row"]), entries[: len(columns)]))
    return Table(caption, "adapter", columns, tuple(rows), is_text=True)


def transfer_table(answer: pd.DataFrame, measure: Measure, where: str) -> Table:
    """RQ1: what Δ follows, a row a predictor: see `analysis.transfer`."""
    rows = [
        (row["predictor"], *(format_number(row[name], DIGITS, sign=True) for name in ("effect", "correlation")),
         format_p(row["p_value"]), f"{row['n']}")
        for row in answer.to_dict("records")
    ]  # fmt: skip
    caption = f"RQ1: predictors of Δ {_lower(measure.name)}. {where}"
    return _of_words(caption, "predictor", ("effect", "correlation", "p", "n"), rows)


def share_table(answer: pd.DataFrame, measure: Measure, where: str) -> Table:
    """RQ2: a part of the data beside all of it: see `analysis.share_of_data`."""
    rows = [
        (f"{row_name(row['row'])}, {row['compared_with']}",
         *(format_number(row[name], DIGITS, sign=True) for name in ("delta", "delta_with")),
         format_number(100 * row["kept"], 0, unit="%"), f"{row['n']}")
        for row in answer.to_dict("records")
    ]  # fmt: skip
    caption = f"RQ2: P-FT versus M-FT (full data), Δ {_lower(measure.name)}. {where}"
    return _of_words(caption, "P-FT", ("Δ", "M-FT Δ", "share of M-FT Δ", "languages"), rows)


def cost_table(answer: pd.DataFrame, measure: Measure, where: str) -> Table:
    """RQ3: Δ toxicity and what it costs in perplexity, by strategy: see `analysis.cost`."""
    rows = [
        (f"{row['strategy']}, {_lower(MEASURES[row['fluency']].name)}",
         *(format_number(row[number], DIGITS, sign=True) for number in ("delta", "fluency_delta", "correlation")),
         f"{row['n']}")
        for row in answer.to_dict("records")
    ]  # fmt: skip
    caption = f"RQ3: Δ toxicity and Δ perplexity (negative: perplexity rose). {where}"
    return _of_words(caption, "strategy", ("Δ toxicity", "Δ perplexity", "correlation", "settings"), rows)


def _of_words(caption: str, corner: str, columns: tuple[str, ...], rows: Iterable[Sequence[str]]) -> Table:
    entries = (Row("", name, tuple(map(Entry, texts))) for name, *texts in rows)
    return Table(caption, corner, columns, tuple(entries), is_text=True)
