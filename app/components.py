"""Widgets that several pages share: choices kept in the address, the content notice, text of any script, the legend.

What a model or a data set wrote is escaped HTML in an element with its language and direction; it is never read as
Markdown or HTML. It is blurred until asked for, by a click on it or by the switch for the visit.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape

import pandas as pd
import streamlit as st

from app.charts import Measure, Palette, written
from engine.metrics import MIN_PAIRS_FOR_VERDICT
from engine.vocabulary import Language

STYLE = """<style>
.stMainBlockContainer { max-width: 76rem; }
.x-note { font-size: .86rem; opacity: .78; margin: 0; }
.x-lead { font-size: 1.02rem; margin: 0; max-width: 62rem; font-variant-numeric: tabular-nums; }
.x-text { font-family: "Source Sans", "Noto Sans", "Noto Sans Ethiopic", "Abyssinica SIL", Nyala, Ebrima, Kefa,
    "Noto Sans Arabic", "Noto Naskh Arabic", "Geeza Pro", "Noto Sans Devanagari", "Kohinoor Devanagari", "Nirmala UI",
    "Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif;
    display: block; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; text-align: start; }
.x-veil > summary { list-style: none; cursor: pointer; border-radius: .3rem; }
.x-veil > summary::-webkit-details-marker { display: none; }
.x-veil .x-blur { filter: blur(.38rem); user-select: none; max-height: 4.7em; overflow: hidden; }
.x-veil[open] > summary { font-size: .78rem; opacity: .7; width: fit-content; }
.x-veil[open] > summary::after { content: "hide"; text-decoration: underline; }
.x-veil[open] .x-blur { display: none; }
.x-row { padding: .9rem 0 1.1rem; border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.x-pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .9rem 2rem; margin-top: .8rem; }
.x-pair > div { min-width: 0; }
.x-head { display: flex; gap: .3rem .8rem; justify-content: space-between; flex-wrap: wrap; font-size: .8rem; margin-bottom: .2rem; }
.x-head > span:first-child { opacity: .75; }
.x-head > span { font-variant-numeric: tabular-nums; }
.x-legend { display: flex; flex-wrap: wrap; gap: .35rem 1.4rem; align-items: center; font-size: .84rem; font-variant-numeric: tabular-nums; }
.x-legend span { display: inline-flex; align-items: center; gap: .4rem; }
.x-legend i { display: inline-block; height: .8rem; border-radius: .2rem; font-style: normal; }
.x-legend .x-mark { width: 1.3rem; text-align: center; line-height: .8rem; font-size: .8rem; }
</style>"""


def style() -> None:
    """The few rules that theming has no word for."""
    st.html(STYLE)


def notice() -> None:
    """What a reader should know before reading on."""
    note("The completions quote toxic text, written by people and by models. It stays blurred until you ask for it.")


def note(*lines: str) -> None:
    """Quiet lines of our own words."""
    st.html(f'<p class="x-note">{"<br>".join(map(escape, lines))}</p>')


def lead(text: str) -> None:
    """A sentence to read first."""
    st.html(f'<p class="x-lead">{escape(text)}</p>')


def choose(
    label: str,
    options: Iterable[str],
    key: str,
    format_func: Callable[[str], str] = str,
    optional: bool = False,
) -> str | None:
    """A select box whose choice stands in the address under `key`, so that a copied address shows the same.

    The first option holds when nothing was chosen, or none when `optional`; so it does when the choice is not there.
    """
    options = list(options)
    found = chosen(key)
    fallback = None if optional else options[0]
    st.session_state[key] = found if found in options else fallback
    picked = st.selectbox(
        label,
        options,
        index=None if optional else 0,
        key=key,
        format_func=format_func,
        placeholder="none",
    )
    if picked is None:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != picked:
        st.query_params[key] = picked
    return picked


def chosen(key: str) -> str | None:
    """What `choose` holds under `key`, before it is drawn: the visit's choice, else the address's."""
    held: str | None = st.session_state.get(key, st.query_params.get(key))
    return held


def passage(text: str, lang: Language, reveal: bool) -> str:
    """A text as HTML: blurred in a <details> that a click or Enter opens, or in the open when `reveal`."""
    attributes = f'lang="{lang}" dir="{lang.facts.direction}"'
    words = escape(text) if text.strip() else "<em>(empty)</em>"
    shown = f'<div class="x-text" {attributes}>{words}</div>'
    if reveal or not text.strip():
        return shown
    blurred = f'<span class="x-text x-blur" {attributes} aria-hidden="true">{words}</span>'
    return f'<details class="x-veil"><summary aria-label="Show or hide this text">{blurred}</summary>{shown}</details>'


def completions(rows: pd.DataFrame, lang: Language, names: Sequence[str], reveal: bool) -> None:
    """Prompts, each with its completions side by side. `rows`: see `reads.side_by_side`.

    `names`: what to call the variant, after ZS when both are shown.
    """
    st.html("".join(_row(row._asdict(), lang, names, reveal) for row in rows.itertuples()))


def _row(row: dict, lang: Language, names: Sequence[str], reveal: bool) -> str:
    ends = ("_zs", "") if len(names) == 2 else ("",)
    sides = (
        f"<div>{_head(name, _score(row['toxicity' + end], row['reason' + end]))}"
        f"{_completion(row['completion' + end], lang, reveal)}</div>"
        for name, end in zip(names, ends, strict=True)
    )
    change = "" if len(names) < 2 or pd.isna(row["change"]) else f"Δ {written(row['change'], 1, sign=True)}"
    head = _head(f"Prompt {row['prompt_index'] + 1}", change)
    return f'<article class="x-row">{head}{passage(row["sentence"], lang, reveal)}<div class="x-pair">{"".join(sides)}</div></article>'


def _head(left: str, right: str) -> str:
    return f'<div class="x-head"><span>{escape(left)}</span><span>{escape(right)}</span></div>'


def _score(toxicity: float, reason: str | float) -> str:
    if pd.isna(toxicity):
        return f"not scored: {reason if isinstance(reason, str) else 'not yet'}"
    return f"toxicity {written(toxicity, 1)}"


def _completion(text: str | float, lang: Language, reveal: bool) -> str:
    return passage(text, lang, reveal) if isinstance(text, str) else '<p class="x-note">no completion</p>'


def legend(measure: Measure, palette: Palette, end: float, has_intervals: bool) -> None:
    """What the colours and marks of the matrix mean."""
    scale = f"linear-gradient(to right, {palette.worse}, {palette.middle}, {palette.better})"
    limit = written(end, measure.digits, unit=measure.delta_unit)
    greys = f"linear-gradient(to right, {palette.low}, {palette.high})"
    missing = f'<i class="x-mark" style="background:{palette.missing};color:{palette.ink}">×</i>'
    parts = [
        f'{measure.worse} <i style="width:7rem;background:{scale}"></i> {measure.better}, up to ±{limit}',
        f'<i style="width:2.6rem;background:{greys}"></i> zero-shot score',
        f"{missing} no number",
    ]
    if has_intervals:
        parts.insert(
            2,
            f'<i class="x-mark">○</i> uncertain: the interval has zero in it, or there are fewer than {MIN_PAIRS_FOR_VERDICT} prompts',
        )
    st.html(f'<div class="x-legend">{"".join(f"<span>{part}</span>" for part in parts)}</div>')
