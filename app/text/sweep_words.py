"""A sweep in words: its progress, its plan, its adapters. Plain text and HTML; knows nothing of Streamlit."""

import json
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

import pandas as pd

from app.labels import lang_name
from engine.config import PROMPT
from engine.sweep.progress import SweepStatus
from engine.vocabulary import NINE, STRATEGY_NAMES, Status, Strategy

QUIET_MINUTES = 10
"""After so long without news a sweep may hang: a block of prompts takes less, even of a large base."""


def state_sentence(news: SweepStatus, now: datetime) -> str:
    """The state of a sweep in a sentence or two, at `now`."""
    stage = news.stage or "preparing"
    doing = f"{stage}, {news.done:,} of {news.total:,} {news.unit}".rstrip() if news.total else stage
    quiet = (now - datetime.fromisoformat(news.updated_at)).total_seconds()
    took = (datetime.fromisoformat(news.updated_at) - datetime.fromisoformat(news.started_at)).total_seconds()
    if news.state == "finished":
        return f"The last sweep finished {span(quiet)} ago, after {span(took)}."
    if news.state == "interrupted":
        return f"The last sweep was interrupted {span(quiet)} ago while {doing}. Run the same command to resume."
    if news.state == "failed":
        return f"The last sweep stopped {span(quiet)} ago while {doing}. See its terminal for the reason."
    if news.is_gone:
        return (
            f"Interrupted while {doing}: process {news.pid} is gone; last update {span(quiet)} ago. "
            "Run the same command to resume."
        )
    if quiet > 60 * QUIET_MINUTES:
        return f"A sweep was {doing}; no update for {span(quiet)}."
    return f"A sweep is {doing}. Last update {span(quiet)} ago."


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return f"{max(int(seconds), 0)} s"


def status_table(settings: pd.DataFrame) -> str:
    """A table: strategies down, statuses across, settings counted. `settings`: strategy, variant_id, status."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Strategy", "variants", "settings", *Status))
    groups = [
        (f'{s} <span class="x-wide">{STRATEGY_NAMES[s]}</span>', settings[settings["strategy"] == s]) for s in Strategy
    ]
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{group["variant_id"].nunique():,}</td><td>{len(group):,}</td>'
        + "".join(f"<td>{(group['status'] == status).sum():,}</td>" for status in Status)
        + "</tr>"
        for name, group in [*groups, ("All", settings)]
        if len(group)
    )
    return (
        '<div class="x-counts"><table><caption>Settings by strategy and status</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def facts(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Lists of names and what they stand for, each under its title, as HTML."""
    lists = (
        f"<section><h3>{escape(title)}</h3><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in group.items())
        + "</dl></section>"
        for title, group in groups.items()
    )
    return f'<div class="x-plan">{"".join(lists)}</div>'


def plan_facts(run: pd.Series, bases: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The plan in the field's words, by what it is about. A dash stands for what is not stored.

    `run`: see `store.run`. `bases`: see `store.bases`.
    """
    plan = json.loads(run["plan"])
    sampling, training = _PlanText(plan.get("sampling", {})), _PlanText(plan.get("hyperparameters", {}))
    targets = {target for listed in bases["targets"].dropna() for target in json.loads(listed)}
    named = zip(bases["model"], bases["revision"], bases["dtype"], strict=True)
    return {
        "Grid": {
            "Bases": ", ".join(f"{model} ({revision[:12]}, {dtype})" for model, revision, dtype in named),
            "Strategies": _join(plan.get("strategies")),
            "Trained on": _langs(plan.get("train_langs")),
            "Evaluated in": _langs(plan.get("eval_langs")),
            "Training seed": str(run["seed"]),
        },
        "Text": {
            "Data set": f"{run['dataset']} ({run['dataset_hash'][:12]})",
            "Train/test split": _PlanText(plan)["split_by"],
            "Training pairs": _limit(plan, "limit_train"),
            "Prompts per split": _limit(plan, "limit_eval"),
            "Splits": _join(plan.get("splits")),
            "Prompt": plan.get("prompt", PROMPT),
        },
        "Sampling": {
            "New tokens": f"at most {sampling['max_new_tokens']}",
            "Temperature": sampling["temperature"],
            "Top-k, top-p": f"{sampling['top_k']}, {sampling['top_p']}",
            "Samples per prompt": _PlanText(plan)["samples_per_prompt"],
            "Scorers": _join(plan.get("scorers")),
            "Backend": _PlanText(plan)["backend"],
        },
        "Training": {
            "LoRA": f"rank {training['rank']}, α {training['alpha']}, dropout {training['dropout']}",
            "Target modules": _join(sorted(targets)),
            "Learning rate": f"{training['learning_rate']}, linear decay to 0",
            "Batch, epochs": f"{training['batch_size']}, {training['epochs']}",
            "Gradient norm": f"clipped to {training['max_grad_norm']}",
            "Maximum length": f"{training['max_tokens']} tokens",
        },
    }


class _PlanText:
    """What is stored under a name, as text; a dash where nothing is."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self.stored = stored

    def __getitem__(self, name: str) -> str:
        value = self.stored.get(name)
        return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _join(names: list[str] | None) -> str:
    return ", ".join(names) if names else "–"


def _langs(codes: list[str] | None) -> str:
    """Names of languages, or their number when it is all of them."""
    if codes and set(codes) == set(NINE):
        return f"all {len(codes)} languages"
    return _join([lang_name(code) for code in codes or []])


def _limit(plan: Mapping[str, Any], name: str) -> str:
    """How many pairs a language are used."""
    if name not in plan:
        return "–"
    return "all pairs" if plan[name] is None else f"at most {plan[name]} per language"


def adapter_names(on_disk: pd.DataFrame) -> list[str]:
    """What to call each adapter of a folder, shortly and each differently. `on_disk`: see `adapters.list_adapters`."""
    names = [
        _adapter_name(*row)
        for row in on_disk[["name", "strategy", "train_lang", "train_fraction"]].itertuples(index=False)
    ]
    if on_disk["model"].nunique() > 1:
        names = [f"{model} {name}" for model, name in zip(on_disk["model"], names, strict=True)]
    return [
        f"{name} ({folder[-6:]})" if names.count(name) > 1 else name
        for name, folder in zip(names, on_disk["name"], strict=True)
    ]


def _adapter_name(folder: str, strategy: str | float, train_lang: str, train_fraction: float) -> str:
    match strategy:
        case Strategy.X_FT:
            return f"{strategy} {train_lang}"
        case Strategy.P_FT:
            return f"{strategy} {100 * train_fraction:.0f} %"
        case Strategy.M_FT:
            return str(strategy)
        case _:
            return folder
