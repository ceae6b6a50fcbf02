"""Charts of sentence embeddings: similarity matrix, numbers before and after, the map. DataFrame → Altair.

Knows nothing of Streamlit. What is drawn of before and of after has the same scales, so that the eye may compare.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from app.labels import LANGUAGE_COLOURS, RAMPS, SIDE_COLOURS, Palette, lang_name
from engine.vocabulary import Language, Part, Side

LANG_GAP = 0.6
"""Space between two languages of the matrix, in cells."""

MATRIX_HEIGHT, ROW_HEIGHT, MAP_HEIGHT = 460, 27, 400
"""Pixels."""

OTHERS, OTHERS_COLOUR = "other variants", "#9299a3"
PLAIN_AXIS: Mapping[str, Any] = {"grid": False, "ticks": False, "domain": False, "title": None, "labelOverlap": False}

LANGUAGE_NAMES: Mapping[str, str] = {lang: lang_name(lang) for lang in Language}

Ends = tuple[float, float]


def symmetric(similarities: pd.DataFrame) -> pd.DataFrame:
    """All of a matrix whose pairs are stored once: group_a, group_b, similarity."""
    half = similarities[["group_a", "group_b", "similarity"]]
    other = half[half["group_a"] != half["group_b"]].rename(columns={"group_a": "group_b", "group_b": "group_a"})
    return pd.concat([half, other], ignore_index=True)


def change(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """after − before of two whole matrices, as a matrix."""
    both = before.merge(after, on=["group_a", "group_b"], suffixes=("_before", ""), validate="one_to_one")
    return both.assign(similarity=both["similarity"] - both["similarity_before"])


def within_and_between(matrix: pd.DataFrame) -> tuple[float, float]:
    """Mean similarity of groups of the same language and of two languages, of a whole matrix; NaN where none are."""
    langs = (matrix[group].str.split().str[0] for group in ("group_a", "group_b"))
    is_same = next(langs) == next(langs)
    return float(matrix.loc[is_same, "similarity"].mean()), float(matrix.loc[~is_same, "similarity"].mean())


def ends_of(values: pd.Series, is_change: bool = False) -> Ends:
    """The lowest and the highest number; of changes, the largest on both sides of zero."""
    if is_change:
        end = float(values.abs().max()) or 1.0
        return -end, end
    return float(values.min()), float(values.max())


def similarity_matrix(
    matrix: pd.DataFrame, ends: Ends, palette: Palette, theme: str, is_change: bool = False
) -> alt.Chart:
    """A whole matrix, a block a language, in it train toxic, train neutral, test toxic and test neutral.

    `ends`: the numbers of the first and the last colour. A change has the colours of a Δ, with none at zero.
    """
    places = _positions({*matrix["group_a"]})
    names = {group: group_name(group) for group in places}
    cells = matrix.assign(
        left=matrix["group_b"].map(places),
        top=matrix["group_a"].map(places),
        a=matrix["group_a"].map(names),
        b=matrix["group_b"].map(names),
    )
    cells["right"], cells["bottom"] = cells["left"] + 1, cells["top"] + 1
    colours = [palette.worse, palette.middle, palette.better] if is_change else list(RAMPS[theme])
    scale = alt.Scale(domain=[ends[0], 0, ends[1]] if is_change else list(ends), range=colours)
    length = max(places.values()) + 1
    legend = alt.Legend(
        title="change" if is_change else "mean cosine similarity",
        titleFontWeight="normal",
        orient="bottom",
        gradientLength=200,
        gradientThickness=10,
        format="+.3~f" if is_change else ".2f",
    )
    chart: alt.Chart = (
        alt.Chart(cells)
        .mark_rect(aria=False)  # a thousand cells are no help to a screen reader; the page says it in a sentence
        .encode(
            x=alt.X("left:Q", scale=alt.Scale(domain=[0, length], nice=False), axis=_language_axis(places, palette)),
            x2="right:Q",
            y=alt.Y("top:Q", scale=alt.Scale(domain=[length, 0], nice=False), axis=_language_axis(places, palette)),
            y2="bottom:Q",
            color=alt.condition(
                "isValid(datum.similarity)",
                alt.Color("similarity:Q", scale=scale, legend=legend),
                alt.value(palette.missing),
            ),
            tooltip=[
                alt.Tooltip("a:N", title="Sentences"),
                alt.Tooltip("b:N", title="and"),
                alt.Tooltip(
                    "similarity:Q", title="Change" if is_change else "Similarity", format="+.3f" if is_change else ".3f"
                ),
            ],
        )
        .properties(height=MATRIX_HEIGHT)
        .configure_view(stroke=None)
        .configure_axisX(orient="top")
    )
    return chart


def group_name(group: str) -> str:
    """`de train toxic` → 'German, train, toxic'."""
    lang, part, side = group.split()
    return f"{LANGUAGE_NAMES[lang]}, {part}, {side}"


def _positions(groups: set[str]) -> dict[str, float]:
    """Where each group's row begins, in cells."""
    order = [f"{lang} {part} {side}" for lang in Language for part in Part for side in Side]
    present = [group for group in order if group in groups]
    langs = list(dict.fromkeys(group.split()[0] for group in present))
    return {group: round(i + LANG_GAP * langs.index(group.split()[0]), 1) for i, group in enumerate(present)}


def _language_axis(places: Mapping[str, float], palette: Palette) -> alt.Axis:
    """The code of each language at the middle of its block."""
    blocks: dict[str, list[float]] = {}
    for group, place in places.items():
        blocks.setdefault(group.split()[0], []).append(place)
    middles = {round((at[0] + at[-1] + 1) / 2, 2): lang for lang, at in blocks.items()}
    names = ", ".join(f"'{at:g}': '{lang}'" for at, lang in middles.items())
    return alt.Axis(
        values=list(middles),
        labelExpr=f"({{{names}}})[datum.value]",
        labelColor=palette.ink,
        labelFontSize=12,
        **PLAIN_AXIS,
    )


def before_and_after(
    values: pd.DataFrame, names: Sequence[str], title: str, palette: Palette, theme: str
) -> alt.LayerChart:
    """A line a language from its number before (diamond) to that after (circle); the other variants are small.

    `values`: eval_lang, name (of a variant), value. `names`: of before and after; one, where there is no other.
    """
    frame = values.dropna(subset="value").copy()
    frame["language"] = frame["eval_lang"].map(LANGUAGE_NAMES)
    frame["kind"] = frame["name"].where(frame["name"].isin(names), OTHERS)
    kinds = [kind for kind in (*names, OTHERS) if kind in set(frame["kind"])]
    looks = {
        names[0]: ("diamond", palette.ink),
        names[-1]: ("circle", RAMPS[theme][1]),
        OTHERS: ("circle", OTHERS_COLOUR),
    }
    y = alt.Y(
        "language:N",
        sort=list(LANGUAGE_NAMES.values()),
        axis=alt.Axis(labelColor=palette.ink, labelLimit=90, **PLAIN_AXIS),
    )
    x = alt.X(
        "value:Q",
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(title=title, titleFontWeight="normal", titleColor=palette.ink, tickCount=5),
    )
    legend = alt.Legend(title=None, orient="top", labelLimit=260, columns=2)
    frame = frame.sort_values("kind", key=lambda kind: kind.map(kinds.index), ascending=False)
    base = alt.Chart(frame).encode(x=x, y=y)
    line = base.transform_filter(f"datum.kind != '{OTHERS}'").encode(detail="language:N")
    line = line.mark_line(strokeWidth=2, opacity=0.45, color=palette.ink, aria=False)
    marks = base.mark_point(filled=True, opacity=1, strokeWidth=1.5).encode(
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=kinds, range=[looks[kind][1] for kind in kinds]),
            legend=legend,
        ),
        shape=alt.Shape(
            "kind:N",
            scale=alt.Scale(domain=kinds, range=[looks[kind][0] for kind in kinds]),
            legend=legend,
        ),
        size=alt.condition(f"datum.kind == '{OTHERS}'", alt.value(20), alt.value(95)),
        tooltip=[
            alt.Tooltip("language:N", title="Language"),
            alt.Tooltip("name:N", title="Variant"),
            alt.Tooltip("value:Q", title=title, format=".3f"),
        ],
    )
    layers = alt.layer(line, marks)
    chart: alt.LayerChart = layers.properties(height=alt.Step(ROW_HEIGHT)).configure_view(stroke=None)
    return chart


def sentence_map(
    points: pd.DataFrame, by_language: bool, frame: tuple[Ends, Ends], palette: Palette, theme: str
) -> alt.Chart:
    """Sentences where they lie: eval_lang, part, side, sentence_index, x, y. `frame`: the ends of both axes.

    A click on a name of the legend leaves that colour alone in full.
    """
    field = "language" if by_language else "side"
    colours = LANGUAGE_COLOURS[theme] if by_language else SIDE_COLOURS[theme]
    present = [code for code in colours if code in set(points["eval_lang" if by_language else "side"])]
    names = [LANGUAGE_NAMES[code] if by_language else code for code in present]
    marks = points.assign(language=points["eval_lang"].map(LANGUAGE_NAMES), number=points["sentence_index"] + 1)
    marks = marks[["language", "part", "side", "number", "x", "y"]]
    chosen = alt.selection_point(fields=[field], bind="legend")
    axis = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)

    def along(column: str, ends: Ends) -> dict[str, Any]:
        return {"shorthand": f"{column}:Q", "scale": alt.Scale(domain=list(ends), nice=False), "axis": axis}

    chart: alt.Chart = (
        alt.Chart(marks)
        .mark_circle(size=24)
        .encode(
            x=alt.X(**along("x", frame[0])),
            y=alt.Y(**along("y", frame[1])),
            color=alt.Color(
                f"{field}:N",
                scale=alt.Scale(domain=names, range=[colours[code] for code in present]),
                legend=alt.Legend(title=None, orient="bottom", columns=5 if by_language else 2, symbolSize=70),
            ),
            opacity=alt.condition(chosen, alt.value(0.7), alt.value(0.05)),
            tooltip=[
                alt.Tooltip("language:N", title="Language"),
                alt.Tooltip("part:N", title="Part"),
                alt.Tooltip("side:N", title="Side"),
                alt.Tooltip("number:Q", title="Sentence"),
            ],
        )
        .add_params(chosen)
        .properties(height=MAP_HEIGHT)
        .configure_view(stroke=palette.missing)
    )
    return chart


def frame_of(points: pd.DataFrame) -> tuple[Ends, Ends]:
    """The ends of the axes that hold all of these points, with a little room."""

    def ends(values: pd.Series) -> Ends:
        room = 0.04 * float(values.max() - values.min())
        return float(values.min()) - room, float(values.max()) + room

    return ends(points["x"]), ends(points["y"])
