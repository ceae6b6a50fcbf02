"""The Heatmap page: train language × evaluation language, and the details of a cell. It computes no number of its
own.
"""

from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import differences, matrix
from app.tables.grid import Order, Show, State, arrange, group
from engine.store import PUBLISHED
from engine.vocabulary import Language, Strategy

PAGE_SIZE = 10
FIRST = {"improved": "Largest decrease", "worsened": "Largest increase"}
SHOW_LABELS = {Show.DELTA: "Δ vs. zero-shot", Show.SCORE: "Score"}
ORDERS = {
    Order.ALPHABET: "By language code",
    Order.FAMILY: "By language family",
    Order.SCRIPT: "By script",
    Order.MEAN: "By mean, best first",
}
ONE, MODELS, SPLITS = "one", "models", "splits"
MATRICES = {ONE: "One", MODELS: "All models", SPLITS: "All splits"}


@dataclass(frozen=True)
class View:
    """What a matrix is of. scorer: '' where the metric needs none."""

    source: str
    model: str
    split: str
    metric: str
    scorer: str
    show: Show
    order: Order

    @property
    def measure(self) -> labels.Measure:
        return labels.MEASURES[self.metric]

    @property
    def has_intervals(self) -> bool:
        return self.source != PUBLISHED


def main() -> None:
    source = st.session_state["source"]
    measures = queries.measures(source)
    if measures.empty:
        widgets.nothing_yet()
        return
    view, matrices = choose_view(source, measures)
    if matrices != ONE:
        draw_several(view, matrices, measures)
        return
    cells = grid_of(view)
    draw(view, cells)
    widgets.left_out(cells)
    remarks(view)
    cell = choose_cell(cells)
    if cell is not None:
        tell(view, cells, cell)


def choose_view(source: str, measures: pd.DataFrame) -> tuple[View, str]:
    """What to show, and whether of one model and split or of several at once."""
    model, split, metric, scorer = widgets.choose_measure(measures)
    of_metric = measures[measures["metric"] == metric]
    several = {
        MODELS: of_metric.loc[of_metric["split"] == split, "model"].nunique() > 1,
        SPLITS: of_metric.loc[of_metric["model"] == model, "split"].nunique() > 1,
    }
    with st.container(horizontal=True, key="view"):
        show = widgets.choose("Show", SHOW_LABELS, "show", lambda s: SHOW_LABELS[Show(s)])
        order = widgets.choose("Order", ORDERS, "order", lambda o: ORDERS[Order(o)])
        offered = [ONE, *(which for which, is_there in several.items() if is_there)]
        matrices = widgets.choose("Matrices", offered, "matrices", MATRICES.__getitem__)
    return View(source, model, split, metric, scorer, Show(show), Order(order)), matrices


def grid_of(view: View) -> pd.DataFrame:
    """The grid of a view with its averages, arranged: see `app.tables.grid`."""
    cells = queries.matrix(view.source, view.model, view.split, view.metric, view.scorer, view.show)
    # A Δ above zero is what a lower score gives.
    return arrange(cells, view.order, not view.measure.is_better(-1.0 if view.show == Show.SCORE else 1.0))


def draw(view: View, cells: pd.DataFrame) -> None:
    """The matrix and its legend."""
    palette, colours = widgets.palette(), matrix.scale(cells)
    chosen = (widgets.parameter("row"), widgets.parameter("eval"))
    # A new key for every chosen cell: the chart forgets its own selection, and the same cell can be clicked again.
    key = f"matrix {chosen}"
    widgets.chart(
        matrix.matrix(cells, view.measure, palette, colours, chosen, view.order),
        f"{view.source} heatmap {view.model} {view.measure.name}",
        key=key,
        on_select=lambda: open_clicked(key),
        selection_mode=matrix.CELL,
        alt=f"{view.measure.name}: trained on (rows) by evaluated in (columns), {SHOW_LABELS[view.show]}",
    )
    widgets.legend(view.measure, palette, colours, view.has_intervals, view.show)


def open_clicked(key: str, **panel: str) -> None:
    """The clicked cell becomes the chosen one, of the matrix that was clicked; a mean chooses none."""
    for cell in st.session_state[key]["selection"][matrix.CELL]:
        if labels.MEAN not in (cell["row"], cell["eval_lang"]):
            st.session_state["row"], st.session_state["eval"] = cell["row"], cell["eval_lang"]
        open_panel(**panel)


def open_panel(**panel: str) -> None:
    """One of several matrices becomes the only one. `panel`: the model or the split it is of."""
    if panel:
        st.session_state.update(panel, matrices=ONE)


def draw_several(view: View, matrices: str, measures: pd.DataFrame) -> None:
    """Small matrices of all models, or of all splits, on one colour scale; a click opens one."""
    is_same = measures["metric"] == view.metric
    if matrices == MODELS:
        names = measures.loc[is_same & (measures["split"] == view.split), "model"].unique()
        views = {("model", str(name)): replace(view, model=str(name)) for name in names}
    else:
        names = measures.loc[is_same & (measures["model"] == view.model), "split"].unique()
        views = {("split", str(name)): replace(view, split=str(name)) for name in labels.SPLITS if name in names}
    grids = {place: grid_of(panel) for place, panel in views.items()}
    palette, colours = widgets.palette(), matrix.scale(pd.concat(grids.values()))
    widgets.legend(view.measure, palette, colours, view.has_intervals, view.show)
    with st.container(key="panels"):
        for place, panel in views.items():
            with st.container(key=f"panel {place}", gap="xsmall"):
                draw_panel(panel, grids[place], place, palette, colours)
    widgets.note("Click a cell to open its matrix. All matrices share one colour scale.")
    remarks(view)


def draw_panel(
    view: View, cells: pd.DataFrame, place: tuple[str, str], palette: labels.Palette, colours: matrix.Scale
) -> None:
    """One small matrix, under a button that opens it. `place`: the choice that it is of, and its value."""
    key, name = f"matrix {place}", place[1]
    opened = {place[0]: name}
    st.button(
        name, key=f"open {name}", type="tertiary", icon=":material/open_in_full:", on_click=open_panel, kwargs=opened
    )
    st.altair_chart(
        matrix.matrix(cells, view.measure, palette, colours, order=view.order, is_compact=True),
        key=key,
        on_select=lambda: open_clicked(key, **opened),
        selection_mode=matrix.CELL,
        alt=f"{name}, {view.measure.name}: trained on (rows) by evaluated in (columns), {SHOW_LABELS[view.show]}",
    )
    widgets.left_out(cells)


def remarks(view: View) -> None:
    """What to keep in mind about these numbers."""
    notes = []
    if view.order in (Order.FAMILY, Order.SCRIPT):
        groups: dict[str, list[str]] = {}
        for lang in sorted(queries.plan(view.source)["eval_lang"].unique()):
            groups.setdefault(group(lang, view.order), []).append(lang)
        notes.append(" · ".join(f"{name}: {', '.join(langs)}" for name, langs in sorted(groups.items())))
    if view.show == Show.SCORE:
        notes.append("Means of scores exclude degenerate cells; means of perplexities are geometric.")
    else:
        better = "For this metric, a negative Δ is better. " if view.measure.is_reversed else ""
        notes.append(
            f"Δ = zero-shot − variant. {better}Means exclude degenerate cells; the mean row is over X-FT only."
        )
    if view.source == PUBLISHED:
        notes.append("The paper prints no intervals, so differences cannot be told from chance.")
    else:
        notes.append("One training seed: intervals cover variation between prompts, not between training runs.")
    gap = queries.scorer_gap(view.source, view.scorer) if view.scorer and view.source != PUBLISHED else None
    if gap:
        on_training, unseen = (labels.format_number(mean, 1) for mean in gap)
        notes.append(
            f"Scorer {view.scorer}: neutral training sentences score {on_training}, held-out ones {unseen}. "
            "This gap may explain part of Δ."
        )
    widgets.note(*notes)


def choose_cell(cells: pd.DataFrame) -> pd.Series | None:
    """The cell that was clicked, or chosen in the two boxes; None when there is none."""
    st.subheader("Inspect a cell")
    cells = cells[(cells["row"] != labels.MEAN) & (cells["eval_lang"] != labels.MEAN)]
    with st.container(horizontal=True, key="cell"):
        row = widgets.choose(
            "Trained on", cells["row"].unique(), "row", lambda r: labels.row_name(r, long=True), optional=True
        )
        lang = widgets.choose(
            "Evaluated in", cells["eval_lang"].unique(), "eval", lambda e: Language(e).facts.name, optional=True
        )
    if not row or not lang:
        widgets.note("Click a cell of the matrix, or choose one here, to read its completions.")
        return None
    return cells[(cells["row"] == row) & (cells["eval_lang"] == lang)].iloc[0]


def tell(view: View, cells: pd.DataFrame, cell: pd.Series) -> None:
    """The story of a cell: its numbers, its verdict, how its prompts changed, and what was written."""
    if cell["state"] == State.DEGENERATE:
        widgets.alarm(f"Degenerate: {cell['verdict_reason']}. Its number says nothing about the quality of the text.")
    widgets.lead(story(cell, view.measure, view.split))
    widgets.note(*standing(cell), *of_seeds(view, cell))
    if view.source == PUBLISHED:
        st.info("The paper's completions are not published. Choose a run in the sidebar to read completions.")
        return
    base = next(iter(cells.loc[cells["strategy"] == Strategy.ZS, "variant_id"].dropna()), None)
    variant = None if cell["strategy"] == Strategy.ZS else cell["variant_id"]
    scorer = view.scorer or next(iter(queries.scorers(view.source)), "")
    rows = queries.side_by_side(view.source, cell["eval_lang"], view.split, scorer, base, variant)
    if rows.empty:
        st.info("This cell has no finished completions.")
        return
    if variant is not None and base is not None:
        draw_differences(view, cell, rows)
    read_completions(view, cell, rows, is_pair=variant is not None)


def story(cell: pd.Series, measure: labels.Measure, split: str) -> str:
    """The cell in one or two sentences."""
    lang = labels.lang_name(cell["eval_lang"])
    place = f"{labels.row_name(cell['row'], long=True)}, evaluated in {lang} on {split}."
    if cell["state"] == State.MISSING:
        return f"{place} Missing: {cell['why']}."
    value, baseline, low, high = (
        labels.format_number(cell[column], measure.digits + 1) for column in ("value", "baseline", "ci_low", "ci_high")
    )
    interval = "" if pd.isna(cell["ci_low"]) else f" (95\N{NO-BREAK SPACE}% interval {low} to {high})"
    pairs = "" if pd.isna(cell["n_pairs"]) else f"{cell['n_pairs']:.0f} of "
    over = f"{interval}; {pairs}{cell['n']:.0f} prompts."
    if cell["strategy"] == Strategy.ZS:
        return f"{place} {measure.name}: {value}{over}"
    delta = labels.format_number(cell["delta"], measure.digits + 1, sign=True, unit=measure.delta_unit)
    change = f"Δ {delta}, {measure.direction(cell['delta'])}"
    return f"{place} {measure.name}: {value} vs. {baseline} zero-shot, {change}{over}"


def standing(cell: pd.Series) -> list[str]:
    """The verdict of a cell with its reason, and how it stands against chance."""
    sentences = []
    if isinstance(cell["verdict"], str) and cell["state"] != State.DEGENERATE:
        reason = f", {cell['verdict_reason']}" if isinstance(cell["verdict_reason"], str) else ""
        sentences.append(f"Verdict: {cell['verdict']}{reason}.")
    if pd.notna(cell["ci_low"]) and cell["strategy"] != Strategy.ZS:
        has_zero = cell["ci_low"] <= 0 <= cell["ci_high"]
        sentences.append(
            "The interval includes zero: the difference may be chance." if has_zero else "The interval excludes zero."
        )
    if pd.notna(cell["q_value"]):
        sentences.append(f"q-value over all cells of the matrix: {labels.format_p(cell['q_value'])}.")
    elif pd.notna(cell["p_value"]):
        sentences.append(f"p-value: {labels.format_p(cell['p_value'])}; q-values are computed when the sweep ends.")
    return [" ".join(sentences)] if sentences else []


def of_seeds(view: View, cell: pd.Series) -> list[str]:
    """What the other seeds of the run's plan say of a cell; nothing where there are none."""
    if view.source == PUBLISHED:
        return []
    pooled = queries.pooled_seeds(view.source)
    place = {"model": view.model, "row": cell["row"], "eval_lang": cell["eval_lang"], "split": view.split}
    for column, value in {**place, "metric": view.metric}.items():
        pooled = pooled[pooled[column] == value]
    pooled = pooled[pooled["scorer"] == view.scorer] if view.scorer else pooled
    sentences = []
    for seed in pooled.to_dict("records"):
        mean, spread, low, high = (
            labels.format_number(seed[name], view.measure.digits + 1)
            for name in ("delta", "seed_sd", "ci_low", "ci_high")
        )
        sentences.append(
            f"{seed['n_seeds']} seeds ({seed['seeds']}): mean Δ {mean}, standard deviation across seeds {spread}; "
            f"95 % interval over prompts and seeds {low} to {high}."
        )
    return sentences


def draw_differences(view: View, cell: pd.Series, rows: pd.DataFrame) -> None:
    """How the prompts of a cell changed, one by one."""
    deltas = differences.differences(rows, view.metric)
    if deltas.empty or pd.isna(cell["delta"]):
        return
    st.altair_chart(
        differences.histogram(deltas, cell, view.measure, widgets.palette()),
        alt=f"Histogram of per-prompt changes: {view.measure.name}, zero-shot − variant",
    )
    widgets.note("Line: mean over prompts. Band: its 95 % interval. Dashes: no change.")


def read_completions(view: View, cell: pd.Series, rows: pd.DataFrame, is_pair: bool) -> None:
    """The completions of a cell, ten at a time."""
    first = ""
    if is_pair:
        widgets.recall("first", FIRST)
        name = FIRST.__getitem__
        first = str(st.segmented_control("Sort by toxicity", FIRST, format_func=name, required=True, key="first"))
        widgets.set_parameter("first", first)
        rows = rows.sort_values("change", ascending=first == "worsened", kind="stable", na_position="last")
    pages = -(-len(rows) // PAGE_SIZE)
    at = widgets.choose_page(pages, f"{cell['model']} {cell['row']} {cell['eval_lang']} {view.split} {first}")
    names = ["Zero-shot (ZS)", *([labels.row_name(cell["row"], long=True)] if is_pair else [])]
    page = rows.iloc[(at - 1) * PAGE_SIZE : at * PAGE_SIZE]
    widgets.completions(page, Language(cell["eval_lang"]), names, st.session_state["reveal"])


main()
