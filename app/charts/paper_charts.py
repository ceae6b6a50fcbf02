"""A run against the paper: results of `engine.analysis` → a chart and tables. No Streamlit."""

from collections.abc import Hashable, Mapping
from typing import Any

import altair as alt
import pandas as pd

from app.charts.strategy_charts import Layers
from app.labels import Measure, format_number, lang_name
from app.tables.paper_table import DIGITS, Entry, Mark, Row, Table

WILD_TICKS = [-5000, -1000, -200, -50, -10, 0, 10, 50, 200, 1000, 5000]
"""Where Δ runs over orders of magnitude."""


def scatter(
    pairs: pd.DataFrame, measure: Measure, their_measure: Measure, colours: Mapping[bool, str], ink: str
) -> Layers:
    """Our Δ with its interval over the paper's, a point a cell; hollow where the signs differ.

    `pairs`: the cells of `analysis.against_published`. `colours`: by whether the signs agree.
    """
    frame = pairs.assign(
        Cell=lambda t: [
            f"{lang_name(a)} → {lang_name(b)}" for a, b in zip(t["train_lang"], t["eval_lang"], strict=True)
        ],
        Ours=lambda t: [format_number(d, DIGITS, sign=True) for d in t["delta"]],
        Paper=lambda t: [format_number(d, DIGITS, sign=True) for d in t["published_delta"]],
        Signs=lambda t: t["is_same_sign"].map({True: "same sign", False: "signs differ"}),
    )
    # Perplexities of the paper have Δ in the thousands beside others below one.
    is_wild = pairs["published_delta"].abs().max() > 50
    x_scale = alt.Scale(type="symlog", constant=5) if is_wild else alt.Scale()
    x_axis = alt.Axis(values=WILD_TICKS) if is_wild else alt.Axis()
    across, title = _side("the paper's Δ", their_measure, "right"), _side("our Δ", measure, "up")
    x = alt.X("published_delta:Q", scale=x_scale, axis=x_axis, title=across)
    names = ["same sign", "signs differ"]
    scale = alt.Scale(domain=names, range=[colours[True], colours[False]])
    legend = alt.Legend(orient="top", title=None, symbolOpacity=1)
    base = alt.Chart(frame).encode(x=x, color=alt.Color("Signs:N", scale=scale, legend=legend))
    spans = base.mark_rule(opacity=0.35).encode(y=alt.Y("ci_low:Q", title=title), y2="ci_high:Q")
    shapes = alt.Scale(domain=names, range=["circle", "triangle-down"])
    points = base.mark_point(filled=True, size=55, opacity=0.95).encode(
        y=alt.Y("delta:Q", title=title),
        shape=alt.Shape("Signs:N", scale=shapes, legend=legend),
        tooltip=[alt.Tooltip(f"{field}:N") for field in ("Cell", "Ours", "Paper", "Signs")],
    )
    zeros = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(color=ink, opacity=0.45)
    layers = alt.layer(
        zeros.encode(x=alt.X("at:Q", scale=x_scale, axis=x_axis, title=across)),
        zeros.encode(y=alt.Y("at:Q", title=title)),
        spans,
        points,
    )
    return layers.properties(height=420)


def _side(whose: str, measure: Measure, way: str) -> str:
    return f"{whose} ({', '.join(filter(None, [measure.delta_unit, f'{way}: {measure.better}']))})"


def two_values(pairs: pd.DataFrame, measure: Measure, their_measure: Measure, caption: str) -> Table:
    """Trained on × evaluated in, our Δ over the paper's in every cell."""
    columns = sorted(set(pairs["eval_lang"]))
    places = {(c["train_lang"], c["eval_lang"]): c for c in pairs.to_dict("records")}
    rows = [
        Row("", lang, tuple(_pair_entry(places.get((lang, column)), measure, their_measure) for column in columns))
        for lang in sorted(set(pairs["train_lang"]))
    ]
    return Table(caption, "trained on", tuple(columns), tuple(rows))


def _pair_entry(cell: Mapping[Hashable, Any] | None, measure: Measure, their_measure: Measure) -> Entry:
    if cell is None:
        return Entry("", Mark.MISSING, remark="missing, or ours is degenerate")
    ours, printed = (
        format_number(cell["delta"], measure.digits),
        format_number(cell["published_delta"], their_measure.digits),
    )
    low, high = (format_number(cell[end], DIGITS) for end in ("ci_low", "ci_high"))
    remark = f"ours {ours}{'' if pd.isna(cell['ci_low']) else f' ({low} to {high})'}, the paper's {printed}"
    return Entry(f"{ours} | {printed}", Mark.PLAIN if cell["is_same_sign"] else Mark.OPPOSITE, remark=remark)


def copies(rows: pd.DataFrame) -> list[str]:
    """A sentence for each two printed rows that are the same numbers. `rows`: `analysis.copied_rows`."""
    return [
        f"{row['model']}: the rows {row['row_a']} and {row['row_b']} have the same numbers in {row['n_equal']} of "
        f"{row['n']} cells (tables {', '.join(map(str, row['tables']))}). One is probably a copy; which one is "
        "unknown. Other rows share at most a few per cent of their numbers."
        for row in rows.to_dict("records")
    ]


def audit_table(wrong: pd.DataFrame, caption: str) -> Table:
    """The printed averages that are not those of the printed numbers. `wrong`: `analysis.audit`."""
    rows = []
    for line in wrong.to_dict("records"):
        row = "all X-FT rows" if line["train_lang"] == "mean" else f"row {line['train_lang']}"
        column = "all columns" if line["eval_lang"] == "mean" else f"column {line['eval_lang']}"
        texts = (
            f"{column}, mean of {row}",
            format_number(line["value"], DIGITS),
            format_number(line["recomputed"], DIGITS),
        )
        rows.append(Row("", f"Table {line['table']}", tuple(map(Entry, texts))))
    return Table(caption, "table", ("average", "printed", "recomputed"), tuple(rows), is_text=True)
