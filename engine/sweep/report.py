"""What a sweep prints: its plan, and its summary. Shows what others computed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from engine import analysis, store
from engine.analysis import geometry
from engine.config import ADAPTERS, RESULTS, VLLM
from engine.sweep.estimate import Estimate
from engine.sweep.plan import BasePlan, Plan
from engine.sweep.search import BaseSearch
from engine.vocabulary import STRATEGY_NAMES, Strategy

if TYPE_CHECKING:
    from engine.sweep.base_run import Outcome


def dry_run(console: Console, plan: Plan, cost: Estimate) -> None:
    """The plan in full, and its estimated cost."""
    plan_line(console, plan)
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_row("data set", f"{plan.data.name} ({plan.data.content_hash}), split: {plan.data.split_by}")
    for base, seconds in zip(plan.bases, cost.seconds, strict=True):
        table.add_row("base", f"{base.base.name} ({base.base.revision}, {plan.precision})")
        for strategy in Strategy:
            names = [v.label for v in base.variants if v.strategy is strategy]
            if names:
                table.add_row("", f"{strategy} {STRATEGY_NAMES[strategy]}: {', '.join(names)}")
        if base.trained:
            table.add_row(
                "",
                f"one wave of {len(base.trained)} adapters, {base.max_concurrent} at once, "
                f"{base.tokens_per_pass:,} tokens per pass",
            )
            table.add_row("", f"memory of training: {base.training}")
        table.add_row("", f"generation by {_back_end(base, plan)}")
        table.add_row("", f"memory of generation: {base.generation}")
        table.add_row("", f"time: about {_duration(seconds)}")
    table.add_row("variants", f"{cost.variants:,} ({cost.adapters_there} adapters exist already)")
    table.add_row("settings", f"{cost.settings:,}")
    table.add_row("training", f"{cost.training_rows:,} rows")
    table.add_row("units", f"{cost.units:,} of generation ({cost.units_there:,} exist already)")
    table.add_row("prompts", f"{cost.prompts:,}, {cost.completions:,} completions")
    if cost.embeddings:
        table.add_row("embeddings", f"{cost.embeddings:,} (sentences × variants), unless already stored")
    table.add_row("tokens", f"{cost.new_tokens:,} new tokens at most")
    table.add_row("time", f"about {_duration(sum(cost.seconds))} on {plan.machine.name} (estimate)")
    most = max(max(base.generation.total, base.training.total if base.trained else 0) for base in plan.bases)
    table.add_row("memory", f"at most about {most / 1e9:.1f} GB of {plan.machine.memory / 1e9:.0f} (estimate)")
    table.add_row("disk", f"about {cost.disk / 1e6:,.0f} MB of adapters and results (estimate)")
    console.print(table)
    for note in cost.notes:
        console.print(f"note: {note}", markup=False)


def _back_end(base: BasePlan, plan: Plan) -> str:
    """What generates with a base, and why where it is not what was asked for."""
    if base.backend == VLLM:
        return "vLLM"
    return "the built-in backend" + (": vLLM cannot load its adapters" if plan.sweep.backend == VLLM else "")


def plan_line(console: Console, plan: Plan) -> None:
    """The run in one line."""
    variants = sum(len(base.variants) for base in plan.bases)
    names = ", ".join(base.base.name for base in plan.bases)
    console.print(
        f"{plan.sweep.name}: {names}; {variants} variants in {len(plan.sweep.eval_langs)} languages, "
        f"{plan.settings} settings; run {plan.run_id}",
        highlight=False,
        soft_wrap=True,
    )
    if any(base.zero_shot is None for base in plan.bases):
        console.print("note: without ZS in --strategies there is no baseline, so no Δ")


def search_outline(console: Console, searches: Sequence[BaseSearch], seconds: Sequence[float]) -> None:
    """What a search will do, and its estimated cost."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for base, cost in zip(searches, seconds, strict=True):
        s = base.search
        table.add_row("base", f"{base.base.name} ({base.base.revision}, {base.dtype})")
        table.add_row(
            "", f"{len(base.points)} points, one wave, {base.max_concurrent} at once; search {base.search_id}"
        )
        table.add_row("", f"train on {len(base.learnt)} pairs of {' '.join(s.train_langs)} for {s.epochs} epochs")
        table.add_row("", f"evaluated on {len(base.validation)} held-out training pairs")
        saved = f", {base.cost:.0%} of the full training cost" if s.halving else ""
        table.add_row("training", f"{base.rows:,} rows{saved}")
        table.add_row("memory", f"about {base.memory}, of {base.machine.memory / 1e9:.0f} (estimate)")
        table.add_row("time", f"about {_duration(cost)} on this machine (estimate)")
    console.print(table)


def search_summary(console: Console, search: BaseSearch) -> None:
    """The points of a search, the best first."""
    db = search.search.db
    points = store.search_points(db, search.search_id)
    base_nll = float(store.searches(db).set_index("search_id")["base_nll"][search.search_id])
    table = Table(title=f"{search.base.name}: validation text, nats per token ({base_nll:.4f} by the bare base)")
    for column in ("rank", "α", "learning rate", "batch", "epochs", "nats per token"):
        table.add_column(column, justify="right")
    for point in points.to_dict("records"):
        nll = f"{point['nll']:.4f}" if point["nll"] == point["nll"] else str(point["failure"])
        numbers = [f"{point[name]:g}" for name in ("rank", "alpha", "learning_rate", "batch_size", "epochs")]
        table.add_row(*numbers, nll)
    console.print(table)
    console.print("Next: python run_sweep.py … --hyperparameters from-search", style="bold")


def summary(console: Console, plan: Plan, outcome: "Outcome") -> None:
    """What came out, where it is, and what to type next."""
    db = plan.sweep.db
    _best_and_worst(console, plan)
    for row in store.scorers(db, plan.run_id).to_dict("records"):
        if "+" in row["revision"]:
            console.print(
                f"{row['scorer']} was trained on pairs of this data set, so it is cross-fitted. Its mean scores on "
                f"neutral sentences: {row['neutral_train']:.1f} in training, {row['neutral_test']:.1f} held out "
                "(× 100)",
                highlight=False,
                soft_wrap=True,
            )
    for scorer, rows in store.unscored(db, plan.run_id).groupby("scorer"):
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in rows.groupby("reason")["n"].sum().items())
        console.print(f"not scored by {scorer}: {reasons}", highlight=False, markup=False, soft_wrap=True)
    _agreement(console, plan)
    _clusters(console, plan)
    done = store.settings(db, plan.run_id)["status"].value_counts().to_dict()
    states = ", ".join(f"{count} {status}" for status, count in done.items())
    seconds = ", ".join(f"{stage} {_duration(s)}" for stage, s in outcome.seconds.items() if s >= 1)
    console.print(
        f"settings: {states}. Results: {db}. Adapters: {plan.sweep.adapters}", highlight=False, soft_wrap=True
    )
    if seconds:
        console.print(f"time: {seconds}", highlight=False, soft_wrap=True)
    for failure in outcome.failures:
        console.print(
            f"failed: {failure.what}: {failure.reason}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    if outcome.failures:
        console.print("Run the same command again to retry.")
    elsewhere = "" if db == RESULTS else f" --db {db}"
    elsewhere += "" if plan.sweep.adapters == ADAPTERS else f" --adapters {plan.sweep.adapters}"
    command = f"streamlit run app/main.py{' --' if elsewhere else ''}{elsewhere}"
    console.print(f"Next: {command}", style="bold", soft_wrap=True)


def _best_and_worst(console: Console, plan: Plan) -> None:
    """The X-FT train languages with the highest and lowest mean Δ of toxicity, for every base and split."""
    means = analysis.train_means(store.cells(plan.sweep.db, f"run:{plan.run_id}"))
    if means.empty:
        return
    table = Table(title="Δ toxicity (× 100) by train language, mean over evaluation languages; positive is less toxic")
    for column in ("base", "split", "scorer", "best", "worst", "left out"):
        table.add_column(column)
    for (model, split, scorer, left_out), group in means.groupby(["model", "split", "scorer", "left_out"]):
        ranked = group.dropna(subset="delta").sort_values("delta")
        ranks = [f"{lang} {delta:+.2f}" for lang, delta in zip(ranked["train_lang"], ranked["delta"], strict=True)]
        ends = (ranks[-1], ranks[0]) if ranks else ("–", "–")
        table.add_row(str(model), str(split), str(scorer), *ends, str(left_out))
    console.print(table)
    if means["left_out"].any():
        console.print(
            "Left out: degenerate or missing where the others have a value. Means are over the remaining cells."
        )


def _agreement(console: Console, plan: Plan) -> None:
    """How far the run's scorers agree, when there are several."""
    agreement = store.agreement(plan.sweep.db, plan.run_id)
    if agreement.empty:
        return
    table = Table(title="Agreement of scorers: rank correlation (share of opposite verdicts) by language")
    table.add_column("scorers")
    langs = sorted(agreement["eval_lang"].unique())
    for lang in langs:
        table.add_column(lang)
    for (a, b), group in agreement.groupby(["scorer_a", "scorer_b"]):
        by_lang = group.set_index("eval_lang")
        texts = [
            f"{by_lang['rank_correlation'][lang]:+.2f} ({by_lang['opposite'][lang]:.0%})"
            if lang in by_lang.index
            else ""
            for lang in langs
        ]
        table.add_row(f"{a} / {b}", *texts)
    console.print(table)


def _clusters(console: Console, plan: Plan) -> None:
    """How far languages cluster before and after M-FT, a base, where embeddings were asked for."""
    if not plan.sweep.represent:
        return
    variants = store.represented_variants(plan.sweep.db, plan.run_id).set_index("variant_id")
    silhouettes = store.silhouettes(plan.sweep.db, plan.run_id).join(variants[["model", "strategy"]], on="variant_id")
    silhouettes = silhouettes[(silhouettes["clusters"] == "language") & (silhouettes["part"] == geometry.COMBINED)]
    for model, of_model in silhouettes.groupby("model"):
        means = of_model.groupby("strategy")["silhouette"].mean().reindex([Strategy.ZS, Strategy.M_FT]).dropna()
        text = ", ".join(f"{strategy} {mean:+.3f}" for strategy, mean in means.items())
        if text:
            console.print(
                f"{model}: mean silhouette of the languages' sentences: {text}", highlight=False, soft_wrap=True
            )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
