"""The Paper page: a run against the published figures, an audit of these, and where each of them is shown."""

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import paper_charts
from app.tables import paper_index
from engine.store import PUBLISHED
from engine.vocabulary import Split

LINK = "app_pages/{}.py"
SERIES_WIDTH = 172
"""Pixels of a link: four stand in a row, and two on a phone."""


def main() -> None:
    source = st.session_state["source"]
    cells = queries.cells(source)
    if source == PUBLISHED:
        widgets.note("Choose a run in the sidebar to compare it with the paper, cell by cell.")
    elif cells.empty:
        widgets.nothing_yet()
    else:
        compare(source)
    audit()
    index(source, set(cells["model"]))


def compare(source: str) -> None:
    """Our Δ against the paper's, for a model of the run and one of the paper."""
    st.subheader("Cell-by-cell comparison")
    pairs, summary = queries.against_published(source)
    if pairs.empty:
        widgets.note("This run shares no cells with the paper; a comparison needs X-FT on one of the paper's splits.")
        return
    with st.container(horizontal=True, key="choices"):
        pairs, model = _choose_value(pairs, "Model", "model")
        models = pairs["published_model"].unique()
        beside = model if model in models else widgets.choose("Paper model", models, "beside")
        pairs = pairs[pairs["published_model"] == beside]
        pairs, split = _choose_value(pairs, "Split", "split")
        metrics = [metric for metric in labels.MEASURES if metric in set(pairs["metric"])]
        metric = widgets.choose("Metric", metrics, "metric", lambda m: labels.MEASURES[m].name)
        pairs = pairs[pairs["metric"] == metric]
        scorers = sorted(pairs["scorer"].dropna().unique())
        scorer = widgets.choose("Scorer", scorers, "scorer") if len(scorers) > 1 else "".join(scorers)
        pairs = pairs[pairs["scorer"] == scorer] if scorer else pairs
    same = (summary["model"] == model) & (summary["published_model"] == beside) & (summary["split"] == split)
    same &= (summary["metric"] == metric) & (summary["scorer"].fillna("") == scorer)
    widgets.lead(agreement(summary[same].iloc[0]))
    measure, theirs_measure = labels.MEASURES[metric], labels.MEASURES[labels.PUBLISHED_AS[metric]]
    palette, theme = widgets.palette(), st.context.theme.type or "light"
    colours = labels.STRATEGY_COLOURS[theme]
    name = f"{source} {model} against {beside} {split} {metric} {scorer}"
    caption = f"Δ of {model} (ours) and {beside} (the paper) on {split}: {measure.name}"
    caption += f", scorer {scorer} and perspective." if scorer else "."
    widgets.chart(
        paper_charts.scatter(
            pairs, measure, theirs_measure, {True: colours["X-FT"], False: colours["P-FT"]}, palette.ink
        ),
        name,
        alt=f"{caption} One point per cell, our Δ on the vertical axis with its interval.",
    )
    widgets.table(
        paper_charts.two_values(
            pairs, measure, theirs_measure, f"{caption} Each cell: ours | the paper's. {queries.sources()[source]}."
        ),
        f"{name} table",
    )
    notes = ["≠: the signs differ. The paper prints no intervals, so some differences are chance."]
    if metric == "toxicity":
        notes.append("Scorers, prompts and bases differ: compare signs and ranks, not magnitudes.")
    else:
        notes.append(
            "Our Δ is in nats per token; the paper's is a difference of mean perplexities: compare signs and "
            "ranks only."
        )
    widgets.note(*notes)


def _choose_value(pairs: pd.DataFrame, label: str, column: str) -> tuple[pd.DataFrame, str]:
    present = list(pairs[column].unique())
    options = [split.value for split in labels.SPLITS if split in present] if column == "split" else present
    picked = widgets.choose(label, options, column)
    return pairs[pairs[column] == picked], picked


def agreement(summary: pd.Series) -> str:
    """How far two tables say the same, in a sentence."""
    ranks, cells = (labels.format_number(summary[column], 2) for column in ("rank_correlation", "cell_correlation"))
    return (
        f"The signs agree in {100 * summary['sign_agreement']:.0f} % of {summary['n']} cells (chance: 50 %). "
        f"Rank correlation: {ranks} over train languages, {cells} over cells."
    )


def audit() -> None:
    """The printed averages, recomputed."""
    st.subheader("The paper's averages, recomputed")
    printed, numbers, wrong = queries.printed_averages(), queries.cells(PUBLISHED), queries.audit()
    n_matrices = numbers.groupby(["model", "split", "metric"]).ngroups
    langs = numbers["eval_lang"].nunique()
    n_missing = n_matrices * (1 + 2 * langs) - len(printed)
    widgets.note(
        f"Every table should print {1 + 2 * langs} averages: one of the zero-shot scores, one per row, one per column. "
        f"{len(printed)} are printed and were recomputed from the printed numbers: {len(printed) - len(wrong)} agree "
        f"to two decimals, {len(wrong)} do not.",
        f"{n_missing} averages and {int(numbers['value'].isna().sum())} numbers are unreadable in the paper's text. "
        "They are shown here as missing, not as zero.",
    )
    if len(wrong):
        widgets.table(
            paper_charts.audit_table(wrong, "Printed averages that differ from the printed numbers."), "audit"
        )
    for note in paper_charts.copies(queries.copied_rows()):
        widgets.note(note)


def index(source: str, models: set[str]) -> None:
    """A link for every table and figure."""
    st.subheader("Tables and figures of the paper")
    widgets.note(
        "X-FT tables show the zero-shot score, and Δ for each train and evaluation language. P-FT and M-FT are "
        "bar charts in the paper, by evaluation language and without numbers: their links open the results chosen "
        "in the sidebar. Table 2 of the paper is this list."
    )
    for model in paper_index.OVERVIEWS:
        st.html(f'<p class="x-lead">{model}</p>')
        for split in Split:
            with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"series-{model}-{split}"):
                st.html(f'<span class="x-note">{split}</span>', width=85)
                for item in paper_index.series(model, split):
                    link(item, source, models, f"{item.name}: {item.shows}", SERIES_WIDTH)
    st.html('<p class="x-lead">Other figures</p>')
    for item in paper_index.others():
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            link(item, source, models, item.name, 85)
            st.html(f'<span class="x-note">{item.shows}</span>', width="content")


def link(item: paper_index.Item, source: str, models: set[str], label: str, width: int) -> None:
    """Leads to the page that shows the like of an item; a figure without numbers to the results at hand."""
    address = {"source": source, **item.address}
    if address["source"] == source and address.get("model") not in models:
        address.pop("model", None)
    if address["source"] == PUBLISHED and address.get("metric") in labels.PUBLISHED_AS:
        address["metric"] = labels.PUBLISHED_AS[address["metric"]]
    st.page_link(LINK.format(item.page), label=label, query_params=address, width=width)


main()
