"""The Overview page: what was measured, where detoxification transfers, and what it costs. It counts; its means and
intervals are those of the heatmap.
"""

from collections.abc import Iterable
from html import escape

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import transfer
from app.tables import grid
from app.tables.grid import State
from engine.analysis import metrics
from engine.store import PUBLISHED
from engine.vocabulary import Metric, Status, Strategy, Verdict

HEATMAP = "app_pages/heatmap.py"
FLUENCY = (Metric.PERPLEXITY_BASE, Metric.PERPLEXITY_PUBLISHED, Metric.PERPLEXITY_SELF)
"""What a variant costs, the judge that no variant can fool first."""
TOXICITY = labels.MEASURES[Metric.TOXICITY]


def main() -> None:
    source = st.session_state["source"]
    measures = queries.measures(source)
    if measures.empty:
        widgets.nothing_yet()
        return
    toxicity = measures[measures["metric"] == Metric.TOXICITY]
    if toxicity.empty:
        st.info("This run has no toxicity scores yet. The heatmap shows its other metrics.")
        st.page_link(HEATMAP, label="Open the heatmap", query_params={"source": source})
        return
    split = next(str(split) for split in labels.SPLITS if split in set(toxicity["split"]))
    scorers = sorted(toxicity["scorer"].dropna().unique())
    scorer = widgets.choose("Scorer", scorers, "scorer") if len(scorers) > 1 else scorers[0]
    place = {"source": source, "split": split, "metric": Metric.TOXICITY.value, "scorer": scorer}
    models = [str(model) for model in toxicity["model"].unique()]
    grids = {model: queries.matrix(source, model, split, Metric.TOXICITY, scorer) for model in models}
    every = pd.concat(grids.values())
    numbers(source, toxicity[toxicity["scorer"] == scorer], every, split)
    pictures(place, grids, set(measures.loc[measures["split"] == split, "metric"]))
    not_counted(source, every, place)
    if source != PUBLISHED and len(queries.scorers(source)) > 1:
        agreement(source)


def single(every: pd.DataFrame) -> pd.DataFrame:
    """The cells without the averages."""
    return every[(every["row"] != labels.MEAN) & (every["eval_lang"] != labels.MEAN)]


def numbers(source: str, toxicity: pd.DataFrame, every: pd.DataFrame, split: str) -> None:
    """What was measured, in four numbers."""
    plan = queries.plan(source)
    done = int((plan["status"] == Status.DONE).sum())
    models = list(dict.fromkeys(toxicity["model"]))
    prompts = int(toxicity.groupby("split")["prompts"].max().sum())
    alone = single(every).query("strategy == 'X-FT' and n.notna()")
    share, detail = transferred(alone, source != PUBLISHED)
    rest = "ZS and X-FT, as printed in the paper" if source == PUBLISHED else _not_done(plan)
    tiles = [
        ("Models", f"{len(models)}", ", ".join(models)),
        ("Settings done", f"{done:,} of {len(plan):,}", rest),
        ("Completions", f"{int(toxicity['answers'].sum()):,}", f"{prompts:,} prompts per variant"),
        (f"X-FT cells that are {TOXICITY.better}", share, f"{detail}, on {split}"),
    ]
    figures = (
        f"<p><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(more)}</span></p>"
        for name, value, more in tiles
    )
    st.html(f'<div class="x-numbers">{"".join(figures)}</div>')


def _not_done(plan: pd.DataFrame) -> str:
    counts = plan.loc[plan["status"] != Status.DONE, "status"].value_counts()
    return ", ".join(f"{n} {status}" for status, n in counts.items()) or "all planned settings"


def transferred(alone: pd.DataFrame, has_intervals: bool) -> tuple[str, str]:
    """The share of X-FT cells whose Δ lies above zero, with its interval where there is one; and how it was counted."""
    if not has_intervals:
        above, total = int((alone["shown"] > 0).sum()), int(alone["shown"].notna().sum())
        return (
            f"{100 * above / total:.0f} %" if total else "–",
            f"Δ above zero in {above} of {total}, no intervals",
        )
    if not (alone["verdict"] == Verdict.OK).any():
        return "–", "no cell has enough prompts for a verdict"
    above = int(((alone["state"] == State.PLAIN) & (alone["shown"] > 0)).sum())
    return f"{100 * above / len(alone):.0f} %", f"interval above zero in {above} of {len(alone)}"


def pictures(place: dict[str, str], grids: dict[str, pd.DataFrame], metrics: set[str]) -> None:
    """Where it transfers, what it costs, and the best of each model."""
    source, split = place["source"], place["split"]
    palette, theme, models = widgets.palette(), st.context.theme.type or "light", list(grids)
    averages = pd.concat(grids.values())
    x_ft = averages[(averages["strategy"] == Strategy.X_FT) & averages["shown"].notna()]
    trained = x_ft[(x_ft["eval_lang"] == labels.MEAN) & (x_ft["row"] != labels.MEAN)]
    evaluated = x_ft[(x_ft["row"] == labels.MEAN) & (x_ft["eval_lang"] != labels.MEAN)]
    with st.container(key="pictures"):
        for title, frame, lang in (
            ("Δ by train language", trained, trained["row"].map(labels.row_name)),
            ("Δ by evaluation language", evaluated, evaluated["eval_lang"]),
        ):
            with st.container():
                st.subheader(title)
                if frame.empty:
                    widgets.note("No X-FT results yet.")
                    continue
                chart = transfer.ranking(frame.assign(lang=lang), models, TOXICITY, palette, theme)
                st.altair_chart(chart, alt=f"{title}: mean Δ toxicity by language and model, on {split}")
                name_left_out(frame)
        with st.container():
            st.subheader("Toxicity versus fluency")
            draw_cost(source, grids, split, metrics, palette, theme)
        with st.container():
            st.subheader("Best train language")
            best(grids, place)
    if source == PUBLISHED:
        widgets.note("The paper prints no intervals, so differences cannot be told from chance.")
    elif averages["state"].eq(State.UNTESTED).any():
        widgets.note("Points without a bar have no interval.")


def name_left_out(averages: pd.DataFrame) -> None:
    """What the means of each model are compared without."""
    for model, of_model in averages.groupby("model", sort=False):
        widgets.left_out(of_model, f"{model}: ")


def draw_cost(
    source: str, grids: dict[str, pd.DataFrame], split: str, metrics: set[str], palette: labels.Palette, theme: str
) -> None:
    """Δ toxicity against Δ perplexity of every variant, means over languages."""
    fluency = next((metric for metric in FLUENCY if metric in metrics), None)
    if fluency is None:
        widgets.note("This split has no perplexity.")
        return
    sides = []
    for model, frame in grids.items():
        other = queries.matrix(source, model, split, fluency, "")
        sides.append(grid.mean_pairs(other, frame).assign(model=model))
    both = pd.concat(sides)
    name_left_out(both)
    both = both[both["is_whole"].astype(bool)]
    measure = labels.MEASURES[fluency]
    if both.empty:
        widgets.note("No variant has both numbers in the same languages yet.")
        return
    chart = transfer.cost(both, list(grids), fluency, (measure, TOXICITY), palette, theme)
    st.altair_chart(chart, alt=f"Δ toxicity against Δ {measure.name} for each variant, on {split}")


def of_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """The averages over languages of single variants."""
    return frame[
        (frame["eval_lang"] == labels.MEAN) & (frame["row"] != labels.MEAN) & (frame["strategy"] != Strategy.ZS)
    ]


def fact(model: str, text: str, label: str, place: dict[str, str]) -> None:
    """A line about a model, and a link to where it can be seen on the heatmap."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<p class="x-lead"><b>{escape(model)}</b> {escape(text)}</p>', width="content")
        st.page_link(HEATMAP, label=label, icon=":material/grid_on:", query_params={**place, "matrices": "one"})


def best(grids: dict[str, pd.DataFrame], place: dict[str, str]) -> None:
    """The train language of every model with the highest mean Δ."""
    for model, frame in grids.items():
        means_of = of_variants(frame)[lambda t: (t["strategy"] == Strategy.X_FT) & t["shown"].notna()]
        whole = means_of[means_of["is_whole"].astype(bool)]
        if means_of.empty:
            text = "no X-FT numbers yet"
        elif whole.empty:
            text = "not comparable: the train languages share no evaluation language"
        else:
            row = whole.loc[whole["shown"].idxmax()]
            delta = labels.format_number(row["shown"], 2, sign=True, unit=TOXICITY.delta_unit)
            low, high = (labels.format_number(row[end], 2) for end in ("ci_low", "ci_high"))
            interval = "" if pd.isna(row["ci_low"]) else f" (95\N{NO-BREAK SPACE}% interval {low} to {high})"
            text = f"{labels.lang_name(labels.row_name(row['row']))}, Δ {delta}{interval}, {row['verdict']}"
        fact(model, text, "Open its matrix", {**place, "model": model, "order": "mean"})
    widgets.note("The best language is selected on these same numbers, so its mean is biased upwards.")


def not_counted(source: str, every: pd.DataFrame, place: dict[str, str]) -> None:
    """What is degenerate or has no score, with the reasons."""
    st.subheader("Excluded cells")
    cells = single(every)
    cells = cells[cells["state"].isin([State.DEGENERATE, State.MISSING])]
    cells = cells[~cells["status"].isin([Status.PLANNED, Status.RUNNING])]
    if cells.empty:
        widgets.note("No finished cell is degenerate or missing.")
    langs = every["eval_lang"].nunique() - 1
    reason = cells["verdict_reason"].where(cells["state"] == State.DEGENERATE, cells["why"])
    cells = cells.assign(reason=[metrics.short_reason(str(why)) for why in reason])
    for key, group in cells.groupby(["model", "state", "reason"], sort=False):
        model, state, why = map(str, key)
        counts = group["eval_lang"].value_counts()
        where = ", ".join(f"{labels.lang_name(str(lang))} ({n})" for lang, n in counts.items())
        where = f"in {where}" if len(counts) < langs else "in all languages"
        what = "degenerate" if state == State.DEGENERATE else "missing"
        row, lang = map(str, group[["row", "eval_lang"]].iloc[0])
        fact(
            model,
            f"{len(group)} {what}: {why}, {where}",
            "Read an example",
            {**place, "model": model, "row": row, "eval": lang},
        )
    if source != PUBLISHED:
        unscored(source)


def unscored(source: str) -> None:
    """Completions that a scorer was given and could not score."""
    counts = queries.unscored(source)
    if counts.empty:
        widgets.note("Every completion is scored.")
        return
    for (scorer, why), group in counts.groupby(["scorer", "reason"], dropna=False):
        langs = group.groupby("eval_lang")["n"].sum().sort_values(ascending=False)
        where = ", ".join(f"{labels.lang_name(str(lang))} ({n:,})" for lang, n in langs.items())
        widgets.note(f"{group['n'].sum():,} completions not scored by {scorer}: {why}, in {where}.")


def agreement(source: str) -> None:
    """How far the scorers of a run say the same."""
    st.subheader("Do the scorers agree?")
    pairs = queries.agreement(source)
    if pairs.empty:
        widgets.note("Agreement is computed when the sweep ends.")
        return
    with st.container(key="agreement"):
        chart = transfer.agreement(pairs, st.context.theme.type or "light")
        st.altair_chart(chart, alt="Rank correlation between scorers, by language")
        heads = ("language", "scorers", "texts", "rank correlation", "disagreement")
        rows = [
            (
                labels.lang_name(pair["eval_lang"]),
                f"{pair['scorer_a']}, {pair['scorer_b']}",
                f"{pair['n']:,}",
                labels.format_number(pair["rank_correlation"], 2),
                f"{100 * pair['opposite']:.1f} %" if pair["n"] else "–",
            )
            for pair in pairs.to_dict("records")
        ]
        st.html(
            f'<div class="x-plain"><table><thead>{_line("th", heads)}</thead>'
            f"<tbody>{''.join(_line('td', row) for row in rows)}</tbody></table></div>"
        )
    widgets.note(
        "Scores of different scorers are not on one scale; their ranks are comparable. Opposite verdicts: one scorer "
        "says toxic (0.5 or more), the other does not."
    )


def _line(tag: str, entries: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(entry)}</{tag}>' for entry in entries)}</tr>"


main()
