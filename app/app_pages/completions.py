"""The Completions page: every text of a run, filtered by metadata, score, change or text."""

from collections.abc import Hashable, Mapping
from dataclasses import astuple
from html import escape
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from app import labels, queries, widgets
from engine.store import PUBLISHED
from engine.store.browse import Change, Filters, Key, Order
from engine.vocabulary import STRATEGY_NAMES, Language, Status, Strategy, digest

PAGE_SIZE = 10
ALL = "all"
CHANGES = {
    Change.IMPROVED: "Less toxic than zero-shot",
    Change.WORSENED: "More toxic than zero-shot",
    Change.DEGENERATE: "Degenerate or empty",
}
ORDERS = {
    Order.PROMPT: "By prompt",
    Order.IMPROVED: "Largest decrease in toxicity first",
    Order.WORSENED: "Largest increase in toxicity first",
    Order.MOST_TOXIC: "Most toxic first",
    Order.LEAST_TOXIC: "Least toxic first",
}
SEARCH_HELP = (
    "Searches completions and prompts. Case is ignored in scripts that have it. All characters are literal, "
    "including % and *."
)
LINK = "completion"
"""The word in the address that names one completion."""


def main() -> None:
    source = st.session_state["source"]
    if source == PUBLISHED:
        st.info("The paper's completions are not published. Choose a run in the sidebar to read completions.")
        return
    plan = queries.plan(source)
    done = plan[plan["status"] == Status.DONE]
    if done.empty:
        widgets.nothing_yet()
        return
    linked = st.container()
    filters, order = choose_filters(source, done)
    with linked:
        show_linked(source, filters.scorer)
    total = queries.completions_count(filters)
    if not total:
        st.info("No matching completions. Remove a filter.")
        return
    area = st.container()
    first = PAGE_SIZE * (widgets.choose_page(-(-total // PAGE_SIZE), digest([astuple(filters), order])) - 1)
    with area:
        last = min(first + PAGE_SIZE, total)
        text = f"{first + 1:,} to {last:,} of {total:,} completions. Words that differ from zero-shot are highlighted."
        widgets.note(text)
        show(source, filters.scorer, queries.completions_page(source, filters, order, first, PAGE_SIZE))


def choose_filters(source: str, done: pd.DataFrame) -> tuple[Filters, Order]:
    """What to show, and in which order. `done`: the finished settings of the plan."""
    with st.container(horizontal=True, key="filters"):
        for label, column, key, name in (
            ("Model", "model", "model", str),
            ("Strategy", "strategy", "strategy", lambda s: f"{s} {STRATEGY_NAMES[Strategy(s)]}"),
            ("Trained on", "row", "row", lambda r: labels.row_name(r, long=True)),
            ("Evaluated in", "eval_lang", "eval", labels.lang_name),
        ):
            picked = widgets.choose(label, done[column].unique(), key, name, optional=True, nothing=ALL)
            done = done[done[column] == picked] if picked else done
        split = widgets.choose("Split", labels.SPLITS, "split", optional=True, nothing=ALL)
        scorers = queries.scorers(source)
        scorer = widgets.choose("Scorer", scorers, "scorer") if len(scorers) > 1 else "".join(scorers)
    with st.container(horizontal=True, key="search"):
        text = choose_text()
        change = widgets.choose("Change", list(CHANGES), "change", lambda c: CHANGES[Change(c)], True, ALL)
        toxicity = choose_toxicity()
        order = widgets.choose("Order", list(ORDERS), "order", lambda o: ORDERS[Order(o)])
    run_id = str(queries.runs().at[source, "run_id"])
    is_all = not any(map(widgets.parameter, ("model", "strategy", "row")))
    variants = () if is_all else tuple(done["variant_id"].unique())
    became = Change(change) if change else None
    return Filters(run_id, scorer, variants, widgets.parameter("eval"), split, toxicity, became, text), Order(order)


def choose_text() -> str:
    """What is to stand in the completion or its prompt."""
    st.session_state["text"] = widgets.parameter("text")
    text = st.text_input("Text", key="text", placeholder="in any script", help=SEARCH_HELP)
    widgets.set_parameter("text", text)
    return text


def choose_toxicity() -> tuple[float, float] | None:
    """Lowest and highest, in 0..1; None for all, not scored ones too. It stands in the address as `20-80`."""
    whole = "The full range includes unscored completions."
    low, high = st.slider(
        "Toxicity (× 100)", 0, 100, _range(widgets.parameter("toxicity")), key="toxicity range", help=whole
    )
    is_all = (low, high) == (0, 100)
    widgets.set_parameter("toxicity", "" if is_all else f"{low}-{high}")
    return None if is_all else (low / 100, high / 100)


def _range(written: str) -> tuple[int, int]:
    """`20-80` → (20, 80); the whole range where it is none."""
    low, _, high = written.partition("-")
    if not (low.isdecimal() and high.isdecimal() and int(low) <= int(high) <= 100):
        return 0, 100
    return int(low), int(high)


def show_linked(source: str, scorer: str) -> None:
    """The completion that the address names, alone."""
    named = st.query_params.get(LINK)
    if named is None:
        return
    key = _key(named)
    rows = queries.linked_completion(source, scorer, key) if key else pd.DataFrame()
    st.subheader("Linked completion")
    if rows.empty:
        st.warning("This link points to a completion that is not in these results.")
    else:
        show(source, scorer, rows)
    st.button("Close", on_click=_close)
    st.subheader("All completions")


def _close() -> None:
    st.query_params.pop(LINK)


def _key(named: str) -> Key | None:
    """What `link` has made of a completion."""
    match named.split("/"):
        case [variant_id, eval_lang, split, prompt, sample] if prompt.isdecimal() and sample.isdecimal():
            return Key(variant_id, eval_lang, split, int(prompt), int(sample))
    return None


def show(source: str, scorer: str, rows: pd.DataFrame) -> None:
    """Completions, each beside that of ZS where there is one."""
    passages = []
    for row in rows.to_dict("records"):
        name = labels.row_name(row["row"], long=True)
        names = [name] if pd.isna(row["zero_shot"]) else ["Zero-shot (ZS)", name]
        lang = Language(row["eval_lang"])
        passages.append(
            widgets.article(row, head(row, link(source, scorer, row)), lang, names, st.session_state["reveal"])
        )
    st.html("".join(passages))


def head(row: Mapping[Hashable, Any], address: str) -> str:
    """Where a completion stands, as HTML, and its address."""
    sample = f", sample {row['sample_index'] + 1}" if row["sample_index"] else ""
    parts = [
        row["model"],
        labels.lang_name(row["eval_lang"]),
        row["split"],
        f"prompt {row['prompt_index'] + 1}{sample}",
    ]
    doubt = "" if pd.isna(row["verdict_reason"]) else f"<br>degenerate cell: {escape(row['verdict_reason'])}"
    return f'<span>{escape(" · ".join(parts))} · <a href="{escape(address)}">link</a>{doubt}</span>'


def link(source: str, scorer: str, row: Mapping[Hashable, Any]) -> str:
    """The address that shows a completion first: its run, and the five of its key."""
    named = "/".join(str(row[name]) for name in Key.__dataclass_fields__)
    return "?" + urlencode({"source": source, "scorer": scorer, LINK: named}, safe=":/")


main()
