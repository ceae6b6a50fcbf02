"""The Models page: the paper's table of a model and split, a run's next to the printed one. It computes no mean."""

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.tables import paper_table
from engine.analysis.metrics import MIN_PAIRS_FOR_VERDICT
from engine.store import PUBLISHED
from engine.vocabulary import Metric


def main() -> None:
    source = st.session_state["source"]
    cells = queries.cells(source)
    if cells.empty:
        widgets.nothing_yet()
        return
    model, split, metric, scorer = widgets.choose_measure(cells)
    cells_here = of_source(source, model, split, metric, scorer)
    tables = [paper_table.of_grid(cells_here, labels.MEASURES[metric], caption(source, model, split, metric, scorer))]
    names = [f"{source} {model} {split} {metric} {scorer}"]
    notes = [
        "Δ = zero-shot − variant. Means are over the cells that have a number; a language's mean is over X-FT only, "
        "and means of perplexities are geometric."
    ]
    if source != PUBLISHED:
        published, beside = beside_it(model, split, metric)
        if published is not None:
            tables.append(published)
            names.append(f"paper {beside} {split} {metric}")
        notes += remarks(metric, beside)
    columns = st.container(key="tables")
    with columns:
        for table, name in zip(tables, names, strict=True):
            with st.container():
                widgets.table(table, name)
    widgets.note(*signs(tables), *notes)
    widgets.left_out(cells_here)
    explain(tables)


def of_source(source: str, model: str, split: str, metric: str, scorer: str) -> pd.DataFrame:
    """The grid of a table: see `reads.matrix`."""
    return queries.matrix(source, model, split, metric, scorer)


def beside_it(model: str, split: str, metric: str) -> tuple[paper_table.Table | None, str]:
    """The printed table to stand beside a run's, and its model; None where the paper has no such metric."""
    their_metric = labels.PUBLISHED_AS.get(metric)
    if their_metric is None:
        return None, ""
    beside = published_model(model)
    cells = of_source(PUBLISHED, beside, split, their_metric, "")
    return paper_table.of_grid(
        cells, labels.MEASURES[their_metric], caption(PUBLISHED, beside, split, their_metric, "")
    ), beside


def published_model(model: str) -> str:
    """The paper's model that a run's is compared with: the same one, else the reader's choice."""
    models = queries.cells(PUBLISHED)["model"].unique()
    return model if model in models else widgets.choose("Compare with the paper's model", models, "beside")


def caption(source: str, model: str, split: str, metric: str, scorer: str) -> str:
    """Where the numbers of a table come from: metric, model, split, scorer, and the run or the paper's table."""
    name = labels.MEASURES[metric].name
    if source != PUBLISHED:
        by = f", scorer {scorer}" if scorer else ""
        return f"{name}: {model} on {split}{by}. Run {queries.sources()[source]}."
    printed = queries.paper_tables().query("model == @model and split == @split")
    metric_there = "toxicity" if metric == "toxicity" else "perplexity"
    number = printed.loc[printed["metric"] == metric_there, "table"].iloc[0]
    by = ", scorer perspective" if metric == "toxicity" else ""
    return f"{name}: {model} on {split}{by}. Published: table {number} of Beniwal et al., Breaking mBad!"


def remarks(metric: str, beside: str) -> list[str]:
    """What to keep in mind when a run stands beside the paper."""
    if not beside:
        if metric.startswith("perplexity"):
            return [f"Compare the paper's perplexity with “{labels.MEASURES[Metric.PERPLEXITY_SELF].name}”."]
        return ["The paper does not report this metric."]
    notes = [
        "One training seed: intervals cover variation between prompts, not between training runs. The paper prints "
        "no intervals."
    ]
    if metric == "toxicity":
        notes.append("The scorers differ: compare signs and ranks, not magnitudes.")
    else:
        notes.append(
            "Our Δ is in nats per token; the paper's is a difference of mean perplexities: compare signs and "
            "ranks only."
        )
    return notes


def signs(tables: list[paper_table.Table]) -> list[str]:
    """What the marks mean, of those that are there."""
    marks = {entry.mark for table in tables for row in table.rows for entry in row.entries}
    legend = ["Bold: best Δ in the column."]
    few = f"the interval includes zero or is missing, or fewer than {MIN_PAIRS_FOR_VERDICT} prompts"
    meanings = {
        paper_table.Mark.UNCERTAIN: f"uncertain: {few}",
        paper_table.Mark.DEGENERATE: "degenerate text; excluded from bolding",
        paper_table.Mark.MISSING: "missing",
    }
    legend += [f"{mark} {meaning}." for mark, meaning in meanings.items() if mark in marks]
    return [" ".join(legend)]


def explain(tables: list[paper_table.Table]) -> None:
    """Every degenerate or missing entry, with the reason."""
    lines = [line for table in tables for line in paper_table.footnotes(table)]
    if lines:
        with st.expander(f"Degenerate and missing cells ({len(lines)})"):
            widgets.note(*lines)


main()
