"""The Sweep page: a run's plan, its status, and its adapters. It starts and ends nothing."""

from datetime import UTC, datetime
from html import escape

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from app.charts import curves
from app.tables import searches
from app.text import sweep_words
from engine.store import PUBLISHED
from engine.vocabulary import Status, Strategy

MOST_CURVES = 8
FIRST_CURVES = 4
"""So many are shown before any was chosen."""


def main() -> None:
    source = st.session_state["source"]
    watch()
    if source == PUBLISHED:
        st.info("The paper's figures have no sweep. Choose a run in the sidebar.")
        plan = None
    else:
        plan = queries.plan(source)
        show_plan(source, plan)
        show_failures(plan[plan["status"] == Status.FAILED])
    show_adapters(set() if plan is None else set(plan.loc[plan["strategy"] != Strategy.ZS, "variant_id"]))
    show_searches()


@st.fragment(run_every="2s")
def watch() -> None:
    """What a sweep in another process tells of itself, as it goes on."""
    news = queries.sweep_status()
    state = "none" if news is None else "gone" if news.is_gone else news.state
    before = st.session_state.get("sweep state", state)
    st.session_state["sweep state"] = state
    if before != state:
        st.rerun()  # the rest of the page has changed with it
    if news is None:
        widgets.note("No progress file found next to this results file.")
        return
    widgets.lead(sweep_words.state_sentence(news, datetime.now(UTC)))
    if state == "running" and news.total:
        st.progress(min(news.done / news.total, 1.0))


def show_plan(source: str, plan: pd.DataFrame) -> None:
    """The settings by strategy and status, and what shaped the run."""
    run = queries.run(source)
    st.subheader("Plan")
    widgets.note(f"Run {run['run_id']} of the sweep {run['sweep']}, planned {run['created_at']:%Y-%m-%d %H:%M} UTC.")
    st.html(sweep_words.status_table(plan))
    st.html(sweep_words.facts(sweep_words.plan_facts(run, queries.bases(source))))


def show_failures(failed: pd.DataFrame) -> None:
    """Why settings failed: the last line of each error, and all of it on demand."""
    if failed.empty:
        return
    st.subheader("Failures")
    for error, group in failed.fillna({"error": "no error message stored"}).groupby("error", sort=False):
        lines = str(error).strip().splitlines() or [""]
        where = group.groupby("row", sort=False)["eval_lang"].agg(lambda langs: ", ".join(sorted(langs)))
        what = "; ".join(f"{labels.row_name(str(row), long=True)} in {langs}" for row, langs in where.items())
        number = f"{len(group)} setting{'s' if len(group) > 1 else ''}"
        html = f'<b>{escape(lines[-1])}</b><p class="x-note">{number}: {escape(what)}</p>'
        st.html(f'<div class="x-failure">{html}</div>')
        if len(lines) > 1:
            with st.expander("Full traceback"):
                st.code("\n".join(lines), language=None, wrap_lines=True)


def show_adapters(planned: set[str]) -> None:
    """What is in the adapters folder, and how chosen ones learnt. `planned`: the variant_ids of this run."""
    st.subheader("Adapters on disk")
    on_disk = queries.adapters_on_disk()
    missing = len(planned - set(on_disk.loc[on_disk["state"] == "finished", "name"]))
    if missing:
        widgets.note(f"{missing} of this run's {len(planned)} adapters are missing from this folder or unfinished.")
    if on_disk.empty:
        st.info(
            "The adapters folder is empty. To use another one, start the app with "
            "`streamlit run app/main.py -- --adapters FOLDER`"
        )
        return
    on_disk = on_disk.assign(is_wanted=on_disk["name"].isin(planned)).sort_values(
        "is_wanted", ascending=False, kind="stable"
    )
    on_disk["label"] = sweep_words.adapter_names(on_disk)
    show_table(on_disk)
    show_curves(on_disk[on_disk["final_loss"].notna() & on_disk["epochs"].notna() & (on_disk["state"] == "finished")])


def show_table(on_disk: pd.DataFrame) -> None:
    broken = on_disk[on_disk["state"] != "finished"]
    if len(broken):
        named = [f"{label}: {state}, {why}" for label, state, why in broken[["label", "state", "why"]].to_numpy()]
        widgets.note("Unfinished adapters; the next sweep that needs them trains them again.", *named)
    frame = pd.DataFrame(
        {
            "Adapter": on_disk["label"],
            "State": on_disk["state"],
            "In this run": on_disk["is_wanted"],
            "Texts": on_disk["texts"],
            "Final loss": on_disk["final_loss"],
            "Finished (UTC)": pd.to_datetime(on_disk["finished_at"], errors="coerce", utc=True).dt.tz_localize(None),
            "MB": on_disk["bytes"] / 1e6,
            "Base": on_disk["model"],
        }
    )
    columns = {
        "Texts": st.column_config.NumberColumn(help="Neutral training sentences, each seen once per epoch."),
        "Final loss": st.column_config.NumberColumn(format="%.3f", help="Loss of the last step, in nats per token."),
        "Finished (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "MB": st.column_config.NumberColumn(format="%.2f", help="Size of all its files."),
    }
    st.dataframe(frame, hide_index=True, column_config=columns)


def show_curves(on_disk: pd.DataFrame) -> None:
    """Loss by epoch of some adapters."""
    if on_disk.empty:
        return
    st.subheader("Training loss")
    picked = choose_adapters(dict(zip(on_disk["name"], on_disk["label"], strict=True)))
    if not picked:
        widgets.note("Choose adapters to see their training loss.")
        return
    is_smoothed = smooth()
    theme = st.context.theme.type or "light"
    rows = curves.losses(on_disk[on_disk["name"].isin(picked)])
    chart = curves.curves(rows, is_smoothed, labels.CATEGORIES[theme], labels.PALETTES[theme])
    st.altair_chart(chart, alt=curves.alt_text(rows))
    note = "Each point is the loss of one step: the mean over the tokens of its batch."
    if is_smoothed:
        note = f"Bold lines: moving average over {100 // curves.SHARE} % of an adapter's steps. Faint lines: each step."
    widgets.note(note)


def show_searches() -> None:
    """The hyper-parameter searches of the results file, whatever run is shown."""
    st.subheader("Hyperparameter search")
    all_searches = queries.searches()
    if all_searches.empty:
        widgets.note("No search in this results file. Start one with `python run_sweep.py search`.")
        return
    names = {str(search["search_id"]): searches.label(search) for _, search in all_searches.iterrows()}
    picked = widgets.choose("Search", names, "search", format_func=names.__getitem__)
    search = all_searches[all_searches["search_id"] == picked].iloc[0]
    points = queries.search_points(picked)
    widgets.lead(searches.summary(search, points))
    if points.empty:
        return
    theme = st.context.theme.type or "light"
    name = f"search {search['model']} {picked}"
    widgets.chart(
        searches.chart(points, search["base_nll"], labels.CATEGORIES[theme], labels.PALETTES[theme]),
        name,
        alt="Validation loss (nats per token) of each point, by learning rate and batch size.",
    )
    caption = f"{names[picked]}; {search['n_learnt']} training pairs, {search['n_validation']} held out"
    widgets.table(searches.table(points, caption), f"{name} table")
    note = "Validation text is held out from neutral-train: no point is trained on it, and no split uses it as prompts."
    if search["cost"] < 1:
        note += f" Hollow: dropped by halving, which used {search['cost']:.0%} of the full training cost."
    widgets.note(note, "Use the best point in a sweep with --hyperparameters from-search.")


def choose_adapters(names: dict[str, str]) -> list[str]:
    """Some adapters, by name; kept in the address like a single choice."""
    selected = st.session_state.get("curves")
    if selected is None:
        in_address = widgets.parameter("curves").split(",")
        selected = [name for name in names if name in in_address] or list(names)[:FIRST_CURVES]
    st.session_state["curves"] = [name for name in names if name in selected]
    picked = st.multiselect(
        "Adapters", list(names), key="curves", format_func=names.__getitem__, max_selections=MOST_CURVES
    )
    widgets.set_parameter("curves", ",".join(picked))
    return picked


def smooth() -> bool:
    st.session_state["smooth"] = bool(st.session_state.get("smooth", widgets.parameter("smooth")))
    is_smoothed = st.toggle("Smoothed", key="smooth")
    widgets.set_parameter("smooth", "1" if is_smoothed else "")
    return is_smoothed


main()
