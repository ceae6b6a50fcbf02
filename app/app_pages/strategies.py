"""The Strategies page: how X-FT, P-FT and M-FT compare, what fluency they cost, which adapter to use."""

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import paper_charts, strategy_charts
from engine.store import PUBLISHED
from engine.vocabulary import Metric

FLUENCY = (Metric.PERPLEXITY_BASE, Metric.PERPLEXITY_SELF, Metric.PERPLEXITY_PUBLISHED)
"""What may stand for fluency; the first that a source has."""


def main() -> None:
    source = st.session_state["source"]
    cells = queries.cells(source)
    if cells.empty:
        widgets.nothing_yet()
        return
    model, split, metric, scorer = widgets.choose_measure(cells)
    compare(source, model, split, metric, scorer)
    choose_adapter(source, cells[cells["model"] == model], model, split, scorer)
    answer_questions(source, model, split, metric, scorer)


def compare(source: str, model: str, split: str, metric: str, scorer: str) -> None:
    """Δ of every strategy by language, as a picture and as numbers."""
    measure = labels.MEASURES[metric]
    comparison = queries.strategies(source)
    comparison = comparison[
        (comparison["model"] == model) & (comparison["split"] == split) & (comparison["metric"] == metric)
    ]
    comparison = comparison[comparison["scorer"] == scorer] if scorer else comparison
    if comparison["delta"].notna().sum() == 0:
        widgets.note("No variant has a Δ against zero-shot yet.")
        return
    theme = st.context.theme.type or "light"
    caption = f"{measure.name}, Δ by strategy: {model} on {split}{f', scorer {scorer}' if scorer else ''}. "
    name = f"{source} strategies {model} {split} {metric} {scorer}"
    widgets.chart(
        strategy_charts.by_language(comparison, measure, labels.STRATEGY_COLOURS[theme], widgets.palette().ink),
        name,
        alt=f"{caption}Points with 95 % intervals, one row per language. The table below has the numbers.",
    )
    widgets.table(strategy_charts.strategy_table(comparison, caption + queries.sources()[source]), f"{name} table")
    notes = [
        "Δ = zero-shot − variant. X-FT, mean: over the train languages. X-FT, best: best one per evaluation language; "
        "a best of several is biased upwards.",
        "○: the interval includes zero. Degenerate cells are excluded.",
    ]
    if source == PUBLISHED:
        notes[1:] = ["The paper shows P-FT and M-FT as bar charts without numbers, and prints no intervals."]
    widgets.note(*notes)
    widgets.left_out(comparison)


def choose_adapter(source: str, cells: pd.DataFrame, model: str, split: str, scorer: str) -> None:
    """The adapters ranked for the reader's languages, their Pareto front, and what is excluded."""
    st.subheader("Choose an adapter")
    metrics = set(cells.loc[cells["split"] == split, "metric"])
    fluency = next((metric for metric in FLUENCY if metric in metrics), None)
    langs = list(dict.fromkeys(cells["eval_lang"].sort_values()))
    picked = widgets.choose_several("Evaluation languages", langs, "langs", labels.lang_name)
    if not picked or fluency is None:
        widgets.note("Choose a language." if fluency else "This split has no perplexity.")
        return
    scorers = cells.loc[cells["metric"] == Metric.TOXICITY, "scorer"].dropna().unique()
    scorer = scorer or next(iter(scorers), "")
    adapters = queries.ranked_adapters(source, model, tuple(picked), split, scorer, fluency)
    if adapters["toxicity"].isna().all():
        widgets.note("No adapter has a toxicity score here.")
        return
    widgets.lead(advice(adapters, picked))
    theme = st.context.theme.type or "light"
    measure = labels.MEASURES[fluency]
    where = f"{model} on {split} in {', '.join(picked)}, scorer {scorer}"
    name = f"{source} adapters {model} {split} {scorer} {' '.join(picked)}"
    widgets.chart(
        strategy_charts.front(adapters, measure, labels.STRATEGY_COLOURS[theme], widgets.palette().ink),
        name,
        alt=f"Δ toxicity against Δ fluency of every adapter: {where}. The table below has the numbers.",
    )
    caption = f"Adapters for {where}; fluency: {measure.name}. {queries.sources()[source]}."
    widgets.table(strategy_charts.adapter_table(adapters, caption), f"{name} table")
    widgets.note(
        "Toxicity and fluency are mean Δ over the chosen languages. Worst language: where toxicity falls least or "
        "rises most (negative). Pareto-optimal: no other adapter is better in both; the chart labels these. Hollow "
        "points: excluded; the table gives the reason."
    )


def answer_questions(source: str, model: str, split: str, metric: str, scorer: str) -> None:
    """The paper's three research questions, asked of this source."""
    st.subheader("Research questions")
    measure = labels.MEASURES[metric]
    place = {"model": model, "split": split, "metric": metric, "scorer": scorer}
    where = f"{model} on {split}{f', scorer {scorer}' if scorer else ''}. {queries.sources()[source]}."
    questions = [("transfer", queries.transfer(source, model, split, metric), strategy_charts.transfer_table)]
    if source != PUBLISHED:
        questions.append(("share of data", queries.share_of_data(source), strategy_charts.share_table))
    questions.append(("cost", queries.cost(source), strategy_charts.cost_table))
    for name, answer, table in questions:
        for column, value in place.items():
            if value and not (name == "cost" and column in ("metric", "scorer") and metric != Metric.TOXICITY):
                answer = answer[answer[column] == value]
        if len(answer):
            widgets.table(table(answer, measure, where), f"{source} {name} {model} {split} {metric} {scorer}")
    if source == PUBLISHED:
        copied = queries.copied_rows()
        for note in paper_charts.copies(copied[copied["model"].str.lower() == model]):
            widgets.note(note)
    widgets.note(
        "Descriptive: the languages are few, and the p-values are over languages, not over prompts or training seeds. "
        "Transfer (X-FT) controls for the main effects of train language and evaluation language."
    )


def advice(adapters: pd.DataFrame, langs: list[str]) -> str:
    """The first of the ranked adapters in a sentence."""
    ranked = adapters[adapters["excluded"].isna() & adapters["toxicity"].notna()]
    excluded = int(adapters["excluded"].notna().sum())
    rest = f" {excluded} excluded." if excluded else ""
    if ranked.empty:
        return f"No adapter can be recommended for {', '.join(map(labels.lang_name, langs))}.{rest}"
    first = ranked.iloc[0]
    toxicity = labels.format_number(first["toxicity"], 1, sign=True, unit="points")
    span = strategy_charts.interval(first["toxicity_low"], first["toxicity_high"], 1)
    sure = "" if span == "–" else f" (95\N{NO-BREAK SPACE}% interval {span})"
    worst = labels.format_number(first["worst_delta"], 1, sign=True)
    return (
        f"Least toxic: {labels.row_name(first['row'], long=True)}, Δ {toxicity}{sure}; "
        f"worst in {labels.lang_name(first['worst_lang'])} ({worst}).{rest}"
    )


main()
