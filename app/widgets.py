"""Widgets that several pages share: choices kept in the URL, the content notice, text of any script, the legend.

What a model or a data set wrote is escaped HTML in an element with its language and direction; it is never read as
Markdown or HTML. It is blurred until asked for, by a click on it or by the switch for the visit.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.charts.matrix import Scale
from app.labels import MEAN, MEASURES, PALETTES, SPLITS, Measure, Palette, format_number
from app.tables import exports, paper_table
from app.tables.grid import Show
from app.text import diff
from engine.analysis.metrics import MIN_PAIRS_FOR_VERDICT
from engine.vocabulary import Language

STYLE = Path(__file__).parent / "style.css"


def style() -> None:
    """The few rules that theming has no word for."""
    st.html(STYLE)


def notice() -> None:
    """What a visitor should know before reading on: above every page, until it is acknowledged, once a visit."""
    if st.session_state.get("is warned"):
        return
    with st.container(border=True, key="notice"):
        st.html(
            '<section aria-label="Content notice"><p class="x-notice">This app shows offensive text.</p>'
            '<p class="x-note">Prompts and completions contain toxic text written by people and by models. It is '
            "blurred: click a text (or press Enter) to show it, or use the switch in the sidebar to show everything."
            "</p></section>"
        )
        st.button("Understood", key="understood", on_click=lambda: st.session_state.update({"is warned": True}))


def note(*lines: str) -> None:
    """Quiet lines of our own words."""
    st.html(f'<p class="x-note">{"<br>".join(map(escape, lines))}</p>')


def left_out(cells: pd.DataFrame, of: str = "") -> None:
    """What means are compared without, where there is something. `cells`: a grid with its means; `of`: which one."""
    is_over_langs = cells["eval_lang"] == MEAN
    means = {
        "languages use only the languages that all compared variants share": is_over_langs,
        "X-FT use only the variants that all compared languages share": ~is_over_langs,
    }
    for what, is_it in means.items():
        if any(named := cells.loc[is_it, "left_out"].dropna().unique()):
            note(f"{of}Means over {what}. Excluded: {named[0]}.")


def nothing_yet() -> None:
    """What a page says of a run that has no finished setting."""
    st.info("This run has no finished settings yet. Come back later, or choose other results in the sidebar.")


def lead(text: str) -> None:
    """A sentence to read first."""
    st.html(f'<p class="x-lead">{escape(text)}</p>')


def choose(
    label: str,
    options: Iterable[str],
    key: str,
    format_func: Callable[[str], str] = str,
    optional: bool = False,
    nothing: str = "none",
) -> str:
    """A select box whose choice stands in the address under `key`, so that a copied address shows the same, and is
    kept for the other pages of the visit.

    Where nothing was chosen, or something that is no option here: the first one, or '' when `optional`, and then the
    box says `nothing`.
    """
    options = [str(option) for option in options]  # Streamlit refuses an enum on one page and words on the next
    recall(key, options, optional)
    picked = st.selectbox(
        label,
        options,
        index=None if optional else 0,
        key=key,
        format_func=format_func,
        placeholder=nothing,
    )
    set_parameter(key, picked or "")
    return picked or ""


def choose_several(label: str, options: Sequence[str], key: str, format_func: Callable[[str], str] = str) -> list[str]:
    """A box for any number of `options`, all at first; kept like a single choice, joined by commas in the address."""
    selected = None if st.session_state.get("is_arrival") else st.session_state.get(key)
    if selected is None:
        in_address = st.query_params.get(key, st.session_state.get("kept", {}).get(key)) or ""
        selected = set(in_address.split(",")) & set(options) or options
    st.session_state[key] = [option for option in options if option in selected]
    picked = st.multiselect(label, options, key=key, format_func=format_func)
    set_parameter(key, ",".join(picked))
    return picked


def recall(key: str, options: Iterable[str], optional: bool = False) -> None:
    """Sets what a widget under `key` is going to hold: its `parameter`, where that is one of the options."""
    options = list(options)
    value = parameter(key)
    fallback = None if optional else options[0]
    st.session_state[key] = value if value in options else fallback


def set_parameter(key: str, value: str) -> None:
    """Puts a choice into the address, and keeps it for the visit: Streamlit drops both when the page changes."""
    st.session_state.setdefault("kept", {})[key] = value
    if not value:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != value:
        st.query_params[key] = value


def parameter(key: str) -> str:
    """What `choose` holds under `key`, before it is drawn: this page's choice, else the address's, else the visit's.

    On arrival at a page the address comes first: a link may say more than what was chosen before.
    """
    if st.session_state.get("is_arrival") and key in st.query_params:
        return st.query_params[key]
    value = st.session_state.get("kept", {}).get(key)
    return st.session_state.get(key, st.query_params.get(key, value)) or ""


def arrive(page: str) -> None:
    """Notes whether this run is the first one on a page."""
    st.session_state["is_arrival"] = st.session_state.get("page") != page
    st.session_state["page"] = page


def choose_page(pages: int, of: str) -> int:
    """The number of the page, from 1 on. It goes back to 1 when something else is looked for: `of` says what."""
    requested = parameter("page")
    is_same = st.session_state.setdefault("browsed", of) == of
    st.session_state["browsed"] = of
    default = min(int(requested), pages) if is_same and requested.isdecimal() and int(requested) else 1
    at = st.pagination(pages, default=default, key=f"page of {of}") if pages > 1 else 1
    set_parameter("page", str(at) if at > 1 else "")
    return at


def choose_measure(cells: pd.DataFrame) -> tuple[str, str, str, str]:
    """Model, split, metric and scorer of `cells`, each with what there is to choose from; scorer '' where none is."""
    with st.container(horizontal=True, key="choices"):
        model = choose("Model", cells["model"].unique(), "model")
        cells = cells[cells["model"] == model]
        split = choose("Split", [s for s in SPLITS if s in cells["split"].unique()], "split")
        cells = cells[cells["split"] == split]
        present = set(cells["metric"].unique())
        metrics = [m for m in MEASURES if m in present]
        metric = choose("Metric", metrics, "metric", format_func=lambda m: MEASURES[m].name)
        scorers = sorted(cells.loc[cells["metric"] == metric, "scorer"].dropna().unique())
        scorer = choose("Scorer", scorers, "scorer") if len(scorers) > 1 else "".join(scorers)
    return model, split, metric, scorer


def passage(text: str, lang: Language, reveal: bool, marked: Sequence[diff.Span] = ()) -> str:
    """A text as HTML: blurred in a <details> that a click or Enter opens, or in the open when `reveal`.

    `marked`: the parts to point out, in their order.
    """
    attributes = f'lang="{lang}" dir="{lang.facts.direction}"'
    words = _highlighted(text, marked) if text.strip() else "<em>(empty)</em>"
    html = f'<div class="x-text" {attributes}>{words}</div>'
    if reveal or not text.strip():
        return html
    veil = _veil(words, attributes)
    name = '<span class="x-spoken">Show or hide this text</span>'
    return f'<details class="x-veil"><summary>{name}{veil}</summary>{html}</details>'


def blurred_passage(text: str, lang: Language) -> str:
    """A text as HTML that no click opens, for one that is still being written: it would close with the next token."""
    veil = _veil(escape(text), f'lang="{lang}" dir="{lang.facts.direction}"')
    return f'<div class="x-veil">{veil}</div>'


def _veil(words: str, attributes: str) -> str:
    return f'<span class="x-text x-blur" {attributes} aria-hidden="true">{words}</span>'


def _highlighted(text: str, spans: Sequence[diff.Span]) -> str:
    """A text escaped, with <mark> around its spans."""
    pieces, done = [], 0
    for start, end in spans:
        pieces += [escape(text[done:start]), f"<mark>{escape(text[start:end])}</mark>"]
        done = end
    return "".join([*pieces, escape(text[done:])])


def completions(rows: pd.DataFrame, lang: Language, names: Sequence[str], reveal: bool) -> None:
    """Prompts, each with its completions side by side. `rows`: see `reads.side_by_side`.

    `names`: what to call the variant, after ZS when both are shown.
    """
    heads = (f"<span>Prompt {index + 1}</span>" for index in rows["prompt_index"])
    items = zip(rows.to_dict("records"), heads, strict=True)
    st.html("".join(article(row, head, lang, names, reveal) for row, head in items))


def article(row: Mapping[Hashable, Any], head: str, lang: Language, names: Sequence[str], reveal: bool) -> str:
    """One of those rows, under a head of HTML; in two completions the words that differ are marked."""
    ends = ("_zs", "") if len(names) == 2 else ("",)
    texts = [row["completion" + end] for end in ends]
    is_pair = len(texts) == 2 and all(isinstance(text, str) for text in texts)
    marked = diff.differences(*texts) if is_pair else ([], [])
    sides = (
        f"<div>{_head(name, _score(row['toxicity' + end], row['reason' + end]))}"
        f"{_completion(text, lang, reveal, spans)}</div>"
        for name, end, text, spans in zip(names, ends, texts, marked, strict=False)
    )
    change = "" if len(names) < 2 or pd.isna(row["change"]) else f"Δ {format_number(row['change'], 1, sign=True)}"
    prompt = f'<div class="x-head">{head}<span>{change}</span></div>{passage(row["sentence"], lang, reveal)}'
    return f'<article class="x-row">{prompt}<div class="x-pair">{"".join(sides)}</div></article>'


def _head(left: str, right: str) -> str:
    return f'<div class="x-head"><span>{escape(left)}</span><span>{escape(right)}</span></div>'


def _score(toxicity: float, reason: str | float) -> str:
    if pd.isna(toxicity):
        return f"not scored: {reason if isinstance(reason, str) else 'pending'}"
    return f"toxicity {format_number(toxicity, 1)}"


def _completion(text: str | float, lang: Language, reveal: bool, marked: Sequence[diff.Span]) -> str:
    return passage(text, lang, reveal, marked) if isinstance(text, str) else '<p class="x-note">no completion</p>'


def alarm(text: str) -> None:
    """What nobody may overlook."""
    st.html(f'<p class="x-alarm" role="alert">▲ {escape(text)}</p>')


def palette() -> Palette:
    """The colours of the visitor's theme."""
    return PALETTES[st.context.theme.type or "light"]


def legend(measure: Measure, palette: Palette, colours: Scale, has_intervals: bool, show: Show) -> None:
    """What the colours and marks of the matrix mean."""
    low, high = (format_number(number, measure.digits) for number in (colours.low, colours.high))
    greys = f'{low} <i style="width:2.6rem;background:linear-gradient(to right, {palette.low}, {palette.high})"></i>'
    missing = f'style="background:{palette.missing};color:{palette.ink}"'
    few = f"fewer than {MIN_PAIRS_FOR_VERDICT} prompts"
    if show == Show.DELTA:
        scale = f"linear-gradient(to right, {palette.worse}, {palette.middle}, {palette.better})"
        sign = ", Δ below zero" if measure.is_reversed else ""
        end = format_number(colours.end, measure.digits, unit=measure.delta_unit)
        full = f"{measure.better}{sign} (full colour at ±{end})"
        parts = [f'{measure.worse} <i style="width:7rem;background:{scale}"></i> {full}']
        parts.append(f"{greys} {high} zero-shot score")
        few = f"interval includes zero or is missing, or {few}"
    else:
        parts = [f"{greys} {high} score"]
    if has_intervals:
        parts.append(f'<i class="x-mark">○</i> uncertain: {few}')
        parts.append(f'<i class="x-mark" {missing}>▲</i> degenerate: not a valid completion')
    parts.append(f'<i class="x-mark" {missing}>×</i> missing')
    st.html(f'<div class="x-legend">{"".join(f"<span>{part}</span>" for part in parts)}</div>')


def chart(drawn: exports.Chart, name: str, *, alt: str, **options: Any) -> None:
    """A chart with its export menu. `name` begins the files' names; `options` are those of st.altair_chart."""
    st.altair_chart(drawn, alt=alt, **options)
    colours, theme = palette(), st.context.theme.type or "light"
    background = str(st.get_option(f"theme.{theme}.backgroundColor"))
    export(
        name,
        {
            "PNG": ("png", "image/png", lambda: exports.picture(drawn, "png", colours, background)),
            "SVG": ("svg", "image/svg+xml", lambda: exports.picture(drawn, "svg", colours, background)),
        },
    )


def table(paper: paper_table.Table, name: str) -> None:
    """A table with its export menu."""
    st.html(paper_table.html(paper))
    export(
        name,
        {
            "CSV": ("csv", "text/csv", lambda: exports.to_csv(paper)),
            "LaTeX": ("tex", "text/x-tex", lambda: exports.to_latex(paper)),
            "Markdown": ("md", "text/markdown", lambda: exports.to_markdown(paper)),
        },
    )


def export(name: str, files: Mapping[str, tuple[str, str, Callable[[], str | bytes]]]) -> None:
    """A small menu of files: what to call each → its suffix, its MIME type, and what makes it, at the click alone."""
    stem = exports.file_name(name)
    with st.popover("Export", type="tertiary", icon=":material/download:", key=f"export {name}"):
        for label, (suffix, mime, make) in files.items():
            st.download_button(
                label, make, f"{stem}.{suffix}", mime, key=f"export {name} {suffix}", on_click="ignore", type="tertiary"
            )
