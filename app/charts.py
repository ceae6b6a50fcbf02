"""DataFrame → Altair chart, and the words, numbers and colours of the charts. Knows nothing of Streamlit.

The matrix: a ZS row with the score itself, in greys; below it Δ on a scale from orange (worse) over neutral to blue
(better), symmetric around zero. A colour is worked out here and not by Vega, so that one ink reads on all of them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import pandas as pd

from engine.vocabulary import Language, Metric, Strategy, Verdict

MINUS = "\N{MINUS SIGN}"
CELL = "cell"
"""Name of the chart's selection; its fields are `row` and `eval_lang`."""

HINTS = ("Trained on", "Evaluated in", "Value", "Zero-shot", "Δ", "95 % interval", "Prompts", "Verdict")
"""What a tooltip says."""

STEP = 34
"""Height of a row in pixels."""
GAP = 0.3
"""Space between the parts of the matrix, in rows or columns."""


@dataclass(frozen=True)
class Measure:
    """How a metric is spoken of: the units of its value and of its Δ, and what a positive Δ means."""

    name: str
    unit: str
    delta_unit: str
    better: str
    worse: str
    digits: int


MEASURES: Mapping[str, Measure] = {
    Metric.TOXICITY: Measure("Toxicity", "× 100", "points", "less toxic", "more toxic", 1),
    Metric.PERPLEXITY_SELF: Measure(
        "Perplexity, by the variant itself", "", "nats a token", "more predictable", "less predictable", 2
    ),
    Metric.PERPLEXITY_BASE: Measure("Perplexity, by the base", "", "nats a token", "more fluent", "less fluent", 2),
    Metric.PERPLEXITY_NEUTRAL: Measure("Perplexity of neutral text", "", "nats a token", "better fit", "worse fit", 2),
    Metric.PERPLEXITY_PUBLISHED: Measure("Perplexity, as published", "", "", "lower", "higher", 1),
    Metric.EMPTY_RATE: Measure("Empty completions", "share", "", "fewer", "more", 2),
}
"""The metrics we show, in the order of the choice."""


@dataclass(frozen=True)
class Palette:
    """The colours of one theme. `ink` has a contrast of 4.5 or more on every other one but `faint`."""

    worse: str
    middle: str
    better: str
    low: str
    high: str
    missing: str
    ink: str
    faint: str


PALETTES: Mapping[str, Palette] = {
    "light": Palette("#ee9a4d", "#f6f5f3", "#6aaae4", "#f1f1f4", "#a9acba", "#e4e6ea", "#14181d", "#5f6773"),
    "dark": Palette("#a85a12", "#262a30", "#2367ab", "#24272d", "#62677a", "#343941", "#f4f6f8", "#a3abb6"),
}


def mixed(first: str, second: str, share: float) -> str:
    """The colour `share` of the way from `first` to `second`, both '#rrggbb'."""
    ends = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in ends)


def written(number: float, digits: int, sign: bool = False, unit: str = "") -> str:
    """A number as we write it, with a real minus sign; an en dash for none. Large ones lose their decimals."""
    if math.isnan(number):
        return "–"
    places = digits if abs(number) < 100 else 0
    text = f"{number:{'+' if sign else ''}.{places}f}"
    text = text.replace("-", MINUS) if float(text) else f"{0:.{places}f}"
    return f"{text} {unit}".strip()


def row_name(row: str, long: bool = False) -> str:
    """`x-ft-de` → 'de', or 'German (X-FT)'."""
    strategy = next(s for s in Strategy if row.startswith(s.value.lower()))
    rest = row.removeprefix(strategy.value.lower()).removeprefix("-")
    match strategy:
        case Strategy.X_FT:
            return f"{Language(rest).facts.name} ({strategy})" if long else rest
        case Strategy.P_FT:
            return f"{rest} % of every language ({strategy})" if long else f"{strategy} {rest} %"
        case Strategy.M_FT:
            return f"All languages ({strategy})" if long else strategy.value
        case _:
            return f"Zero-shot ({strategy})" if long else strategy.value


def grid(plan: pd.DataFrame, cells: pd.DataFrame, has_intervals: bool) -> pd.DataFrame:
    """One row for every setting of the plan, with its cell or without.

    `plan`: row, strategy, eval_lang, status, error of one model. `cells`: those of one split, metric and scorer.
    Sorted by strategy, variant and language. Adds `shown` (the value on the ZS row, Δ elsewhere; NaN where missing), `why` (for a missing one), `state`
    (missing, uncertain, plain).
    """
    numbers = cells.drop(columns=["model", "strategy", "train_lang", "train_fraction", "variant_id"], errors="ignore")
    found = plan.merge(numbers, on=["row", "eval_lang"], how="left", validate="one_to_one")
    is_zs = found["strategy"] == Strategy.ZS
    found["shown"] = found["value"].where(is_zs, found["delta"]).astype(float)
    missing = found["shown"].isna()
    no_interval = found["ci_low"].isna()
    across_zero = ~is_zs & (found["ci_low"] <= 0) & (found["ci_high"] >= 0)
    doubtful = has_intervals & (no_interval | across_zero | (found["verdict"] == Verdict.TOO_FEW))
    found["state"] = doubtful.map({True: "uncertain", False: "plain"}).mask(missing, "missing")
    setting = found["status"].where(found["error"].isna(), found["status"] + ": " + found["error"].astype(str))
    not_done = found["n"].isna() & (found["status"] != "done")
    found["why"] = setting.where(not_done, found["verdict_reason"]).fillna("not measured")
    order = found["strategy"].map({strategy.value: i for i, strategy in enumerate(Strategy)})
    return found.assign(order=order).sort_values(["order", "row", "eval_lang"], ignore_index=True)


def colour_end(found: pd.DataFrame) -> float:
    """Where the colours of Δ end: the largest |Δ|, but no further than twice the 90th percentile."""
    sizes = found.loc[found["strategy"] != Strategy.ZS, "shown"].abs().dropna()
    return float(min(sizes.max(), 2 * sizes.quantile(0.9))) or 1.0 if len(sizes) else 1.0


def means(found: pd.DataFrame) -> pd.DataFrame:
    """Means of Δ over the cells that have one: each row's, each language's and the whole of X-FT."""
    tuned = found[found["strategy"] != Strategy.ZS]
    alone = tuned[tuned["strategy"] == Strategy.X_FT].assign(row="mean")
    parts = [tuned.assign(eval_lang="mean"), alone, alone.assign(eval_lang="mean")]
    whole = pd.concat(parts).groupby(["row", "eval_lang"], sort=False)["shown"].agg(["mean", "count"]).reset_index()
    return whole.rename(columns={"mean": "shown"})


def matrix(
    found: pd.DataFrame, measure: Measure, palette: Palette, chosen: tuple[str | None, str | None]
) -> alt.LayerChart:
    """The matrix of `grid`, with its means. A click selects a cell by its fields row and eval_lang."""
    average = means(found)
    tall = _places(found["row"], average["row"].eq("mean").any())
    wide = _places(found["eval_lang"], True)
    marks = pd.concat([_described(found, measure), _described_means(average, measure)], ignore_index=True)
    marks[list(HINTS)] = marks[list(HINTS)].fillna("–")
    marks["fill"] = _fills(marks, colour_end(found), palette)
    marks["left"], marks["top"] = marks["eval_lang"].map(wide) + 0.02, marks["row"].map(tall) + 0.03
    marks["right"], marks["bottom"] = marks["left"] + 0.96, marks["top"] + 0.94
    marks["middle"], marks["centre"] = marks["left"] + 0.48, marks["top"] + 0.49
    marks["edge"], marks["corner"] = marks["left"] + 0.86, marks["top"] + 0.16
    columns = {place + 0.5: _column_name(lang) for lang, place in wide.items()}
    rows = {place + 0.5: "mean" if row == "mean" else row_name(row) for row, place in tall.items()}
    return _layers(marks, _axis(columns, "evaluated in"), _axis(rows, "trained on"), palette, chosen)


def _places(names: pd.Series, with_mean: bool) -> dict[str, float]:
    """Name → where it begins on its axis; a gap between ZS, X-FT, its mean, and the pooled strategies."""
    single = [n for n in dict.fromkeys(names) if not n.startswith(("zs", "p-ft", "m-ft"))]
    pooled = [n for n in dict.fromkeys(names) if n.startswith(("p-ft", "m-ft"))]
    parts = [["zs"] if "zs" in set(names) else [], single, ["mean"] if with_mean else [], pooled]
    places, at = {}, 0.0
    for part in filter(None, parts):
        places.update({name: at + i for i, name in enumerate(part)})
        at = round(at + len(part) + GAP, 1)  # short decimals: the axis looks its names up by them
    return places


def _column_name(lang: str) -> list[str]:
    return ["mean", ""] if lang == "mean" else [lang, Language(lang).facts.name]


def _described(found: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """What a cell shows and what its tooltip says, as text."""
    written_rows = []
    for cell in found.itertuples():
        low, high = (written(end, measure.digits + 1) for end in (cell.ci_low, cell.ci_high))
        counts = zip((cell.n, cell.n_valid, cell.n_pairs), ("", " with a value", " in the pair with ZS"), strict=True)
        number = "×" if cell.state == "missing" else written(cell.shown, measure.digits)
        texts = {
            "label": number,
            "Trained on": row_name(cell.row, long=True),
            "Evaluated in": Language(cell.eval_lang).facts.name,
            "Value": written(cell.value, measure.digits + 1, unit=measure.unit),
            "Zero-shot": written(cell.baseline, measure.digits + 1, unit=measure.unit),
            "Δ": written(cell.delta, measure.digits + 1, sign=True, unit=measure.delta_unit),
            "95 % interval": "none" if math.isnan(cell.ci_low) else f"{low} to {high}",
            "Prompts": ", ".join(f"{n:.0f}{what}" for n, what in counts if not math.isnan(n)) or "–",
            "Verdict": f"no number: {cell.why}"
            if cell.state == "missing"
            else _verdict(cell.verdict, cell.verdict_reason),
        }
        texts["spoken"] = (
            f"{texts['Trained on']} in {texts['Evaluated in']}: {'no number' if number == '×' else number}"
        )
        written_rows.append(
            {"row": cell.row, "eval_lang": cell.eval_lang, "shown": cell.shown, "state": cell.state, **texts}
        )
    return pd.DataFrame(written_rows)


def _verdict(verdict: str | float, reason: str | float) -> str:
    return ": ".join(str(part) for part in (verdict, reason) if isinstance(part, str)) or "none published"


def _described_means(average: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The same for a mean. Its eval_lang or row is 'mean', which opens nothing."""
    missing = average["shown"].isna()
    label = average["shown"].map(lambda mean: written(mean, measure.digits)).mask(missing, "×")
    return average.assign(
        label=label,
        state=missing.map({True: "missing", False: "mean"}),
        spoken="Mean of " + average["count"].astype(str) + " cells: " + label,
        **{"Trained on": average["row"].map(lambda r: "mean of X-FT" if r == "mean" else row_name(r, long=True))},
        **{"Evaluated in": average["eval_lang"].map(lambda e: "mean" if e == "mean" else Language(e).facts.name)},
        **{"Δ": average["shown"].map(lambda d: written(d, measure.digits + 1, sign=True, unit=measure.delta_unit))},
        **{"Verdict": "mean of " + average["count"].astype(str) + " cells that have a value"},
    )


def _fills(marks: pd.DataFrame, end: float, palette: Palette) -> list[str]:
    zs = marks.loc[marks["row"] == "zs", "shown"].dropna()
    low, span = zs.min(), zs.max() - zs.min()
    fills = []
    for row, shown, state in marks[["row", "shown", "state"]].itertuples(index=False):
        if state == "missing":
            fills.append(palette.missing)
        elif row == "zs":
            fills.append(mixed(palette.low, palette.high, (shown - low) / span if span else 0.0))
        else:
            strength = min(abs(shown) / end, 1.0)
            fills.append(mixed(palette.middle, palette.better if shown > 0 else palette.worse, strength))
    return fills


def _axis(names: Mapping[float, str | list[str]], title: str) -> tuple[list[float], alt.Axis]:
    """The domain and the axis of one side. Two-line names lose their second line where there is no room for it."""
    lookup = json.dumps({place: name for place, name in names.items()}, ensure_ascii=False)
    name = f"{lookup}[datum.value]"
    two_lines = any(isinstance(name, list) for name in names.values())
    axis = alt.Axis(
        values=list(names),
        labelExpr=f"isArray({name}) && width < 620 ? {name}[0] : {name}",
        title=title,
        **dict.fromkeys(("grid", "ticks", "domain", "labelBound"), False),
        labelOverlap=False,
        labelPadding=alt.expr("width < 620 ? 6 : 20") if two_lines else 6,
        titleFontWeight="normal",
    )
    return [0, max(names) + 0.5], axis


def _layers(
    marks: pd.DataFrame,
    across: tuple[list[float], alt.Axis],
    down: tuple[list[float], alt.Axis],
    palette: Palette,
    chosen: tuple[str | None, str | None],
) -> alt.LayerChart:
    (width, x_axis), (height, y_axis) = across, down
    x_scale = alt.Scale(domain=width, nice=False, zero=False)
    y_scale = alt.Scale(domain=height[::-1], nice=False, zero=False)

    def at(x: str, y: str, data: pd.DataFrame = marks) -> alt.Chart:
        return alt.Chart(data).encode(
            x=alt.X(f"{x}:Q", scale=x_scale, axis=x_axis),
            y=alt.Y(f"{y}:Q", scale=y_scale, axis=y_axis),
            tooltip=[alt.Tooltip(f"{hint}:N") for hint in HINTS],
        )

    pick = alt.selection_point(name=CELL, fields=["row", "eval_lang"], toggle=False)
    areas = at("left", "top").mark_rect(cornerRadius=3, cursor="pointer").add_params(pick)
    areas = areas.encode(x2="right:Q", y2="bottom:Q", color=alt.Color("fill:N", scale=None), description="spoken:N")
    size = alt.expr("width < 420 ? 10 : 13")
    weight = alt.expr("datum.state == 'plain' ? 600 : 400")
    numbers = at("middle", "centre").mark_text(
        fontSize=size, fontWeight=weight, color=palette.ink, cursor="pointer", aria=False
    )
    unsure = marks[marks["state"] == "uncertain"]
    rings = at("edge", "corner", unsure).mark_point(
        size=alt.expr("width < 420 ? 11 : 22"), strokeWidth=1.2, color=palette.ink, opacity=0.8, aria=False
    )
    outline = at("left", "top", marks[(marks["row"] == chosen[0]) & (marks["eval_lang"] == chosen[1])])
    outline = outline.mark_rect(filled=False, stroke=palette.ink, strokeWidth=2.2, cornerRadius=3, aria=False)
    layers = alt.layer(
        areas, numbers.encode(text="label:N"), rings, outline.encode(x2="right:Q", y2="bottom:Q")
    ).properties(height=height[1] * STEP)
    return layers.configure_view(stroke=None).configure_axisX(orient="top")
