"""The heatmap page: trained on × evaluated in, and the completions behind a cell. It computes no number of its own."""

import pandas as pd
import streamlit as st

from app import components, matrix, reads, words
from engine.store import PUBLISHED
from engine.vocabulary import Language, Strategy

PAGE_SIZE = 10
ORDERS = {"Largest improvements first": False, "Largest deteriorations first": True}


def main() -> None:
    source = st.session_state["source"]
    st.title("Train on one language, evaluate in another")
    plan, cells = reads.plan(source), reads.cells(source)
    if cells.empty:
        components.nothing_yet()
        return
    model, split, metric, scorer = components.choose_measure(cells)
    measure = words.MEASURES[metric]
    picked = cells.query("model == @model and split == @split and metric == @metric")
    picked = picked[picked["scorer"] == scorer] if scorer else picked
    found = matrix.grid(plan[plan["model"] == model], picked, has_intervals=source != PUBLISHED)
    draw(found, measure, source)
    remarks(source, scorer)
    cell = choose_cell(found)
    if cell is not None:
        components.lead(story(cell, measure, split))
        read_completions(source, found, cell, split, scorer or next(iter(cells["scorer"].dropna()), ""))


def draw(found: pd.DataFrame, measure: words.Measure, source: str) -> None:
    """The matrix and its legend."""
    palette = components.palette()
    chosen = (components.chosen("row"), components.chosen("eval"))
    # A new key for every chosen cell: the chart forgets its own selection, and the same cell can be clicked again.
    key = f"matrix {chosen}"
    components.chart(
        matrix.matrix(found, measure, palette, chosen),
        f"{source} heatmap {found['model'].iloc[0]} {measure.name}",
        key=key,
        on_select=lambda: open_clicked(key),
        selection_mode=matrix.CELL,
        alt=f"{measure.name}: trained on (rows) by evaluated in (columns), difference from zero-shot",
    )
    components.legend(measure, palette, matrix.colour_end(found), source != PUBLISHED)


def open_clicked(key: str) -> None:
    """The clicked cell becomes the chosen one; a mean opens nothing."""
    for cell in st.session_state[key]["selection"][matrix.CELL]:
        if "mean" not in (cell["row"], cell["eval_lang"]):
            st.session_state["row"], st.session_state["eval"] = cell["row"], cell["eval_lang"]


def remarks(source: str, scorer: str) -> None:
    """What to keep in mind about these numbers."""
    said = [
        "Δ = zero-shot − variant. A mean is over the cells that have a number; the row of means is over X-FT alone."
    ]
    if source == PUBLISHED:
        said.append("The paper prints no intervals: nothing here tells a difference from chance.")
    else:
        said.append("One training seed: the intervals speak of prompts, not of training luck.")
    gap = reads.scorer_gap(source, scorer) if scorer and source != PUBLISHED else None
    if gap:
        learnt, unseen = (words.written(mean, 1) for mean in gap)
        said.append(
            f"Scorer {scorer}: neutral sentences the variants learnt score {learnt}, unseen ones {unseen}. "
            "Some of Δ may be that gap."
        )
    components.note(*said)


def choose_cell(found: pd.DataFrame) -> pd.Series | None:
    """The cell that was clicked, or chosen in the two boxes; None when there is none."""
    st.subheader("Read a cell")
    with st.container(horizontal=True, key="cell"):
        row = components.choose(
            "Trained on", found["row"].unique(), "row", lambda r: words.row_name(r, long=True), optional=True
        )
        lang = components.choose(
            "Evaluated in", found["eval_lang"].unique(), "eval", lambda e: Language(e).facts.name, optional=True
        )
    if not row or not lang:
        components.note("Click a cell of the matrix, or choose one here, to read what was written.")
        return None
    return found[(found["row"] == row) & (found["eval_lang"] == lang)].iloc[0]


def story(cell: pd.Series, measure: words.Measure, split: str) -> str:
    """The cell in one or two sentences."""
    lang = words.lang_name(cell["eval_lang"])
    place = f"{words.row_name(cell['row'], long=True)}, evaluated in {lang} on {split}."
    if cell["state"] == "missing":
        return f"{place} No number: {cell['why']}."
    value, baseline, low, high = (
        words.written(cell[column], measure.digits + 1) for column in ("value", "baseline", "ci_low", "ci_high")
    )
    interval = "" if pd.isna(cell["ci_low"]) else f" (95\N{NO-BREAK SPACE}% interval {low} to {high})"
    pairs = "" if pd.isna(cell["n_pairs"]) else f"{cell['n_pairs']:.0f} of "
    over = f"{interval}; {pairs}{cell['n']:.0f} prompts."
    if cell["strategy"] == Strategy.ZS:
        return f"{place} {measure.name}: {value}{over}"
    delta = words.written(cell["delta"], measure.digits + 1, sign=True, unit=measure.delta_unit)
    return f"{place} {measure.name}: {value} against {baseline} zero-shot, Δ {delta}{over}"


def read_completions(source: str, found: pd.DataFrame, cell: pd.Series, split: str, scorer: str) -> None:
    """The completions of a cell, ten at a time."""
    if source == PUBLISHED:
        st.info("The paper's completions are not published. Choose a run in the sidebar to read completions.")
        return
    base = next(iter(found.loc[found["strategy"] == Strategy.ZS, "variant_id"]), None)
    variant = None if cell["strategy"] == Strategy.ZS else cell["variant_id"]
    rows = reads.side_by_side(source, cell["eval_lang"], split, scorer, base, variant)
    if rows.empty:
        st.info("No completions of this cell are finished.")
        return
    names = ["Zero-shot (ZS)"] if variant is None else ["Zero-shot (ZS)", words.row_name(cell["row"], long=True)]
    if variant is not None:
        order = st.segmented_control(
            "Order", list(ORDERS), default=next(iter(ORDERS)), required=True, label_visibility="collapsed"
        )
        rows = rows.sort_values("change", ascending=ORDERS[order], kind="stable", na_position="last")
    pages = -(-len(rows) // PAGE_SIZE)
    at = st.pagination(pages, key=f"page {cell['row']} {cell['eval_lang']} {split}") if pages > 1 else 1
    shown = rows.iloc[(at - 1) * PAGE_SIZE : at * PAGE_SIZE]
    components.completions(shown, Language(cell["eval_lang"]), names, st.session_state["reveal"])


main()
