"""Evaluates one language of one base: generates units and their likelihoods, scores texts, computes cells."""

from collections.abc import Sequence
from itertools import product
from math import log, nan
from pathlib import Path

import pandas as pd

from engine import store
from engine.analysis import guards, metrics
from engine.config import ROWS_PER_UNIT
from engine.generate import Generator
from engine.score import Scorer
from engine.sweep.base_run import BaseRun
from engine.sweep.plan import Unit
from engine.sweep.progress import Counter
from engine.vocabulary import LASTING_REASONS, Language, Metric, Sampling, Split, Status, Strategy, Variant

TEXTS_AT_ONCE = 256
"""Texts whose scores are stored together."""


def evaluate(run: BaseRun) -> None:
    """Every language of a base. A failure is recorded for its language."""
    langs = run.plan.sweep.eval_langs
    if not run.plan.unit_ids(run.base, run.active_variants) <= store.finished_units(run.db, run.run_id):
        with run.record_failures(run.active_variants):
            run.backends.generator(run.active_variants)
    prompts = sum(len(unit.items) for lang in langs for unit in run.plan.units(lang, run.base))
    with run.reporter.counting("generating", prompts * len(run.active_variants), "completions") as counter:
        for lang in langs if run.active_variants else ():
            with run.record_failures(run.active_variants, lang):
                wrote = _write_missing(run, lang, counter)
                with run.outcome.timer("scoring"):
                    _measure(run, lang, wrote)


def compare(run: BaseRun) -> None:
    """What needs the cells of all languages of a base: q-values, and averages over languages."""
    cells = store.cells(run.db, run.source)
    cells = cells[cells["model"] == run.model]
    lacks_q_values = (cells["p_value"].notna() & cells["q_value"].isna()).any()
    if lacks_q_values or (cells["delta"].notna().any() and _lacks_averages(run, metrics.MEAN)):
        over_x_ft = store.averages(run.db, run.source)
        over_x_ft = over_x_ft[(over_x_ft["model"] == run.model) & (over_x_ft["eval_lang"] != metrics.MEAN)]
        averaged = cells[cells["metric"].isin(metrics.AVERAGED)]
        averages = metrics.eval_averages(pd.concat([averaged, over_x_ft], ignore_index=True))
        store.put_averages(run.db, run.run_id, run.model, metrics.MEAN, averages)
        store.put_q_values(run.db, run.run_id, metrics.with_q_values(cells))


def _write_missing(run: BaseRun, lang: Language, counter: Counter) -> bool:
    """Writes the units of a language that are not stored, or takes them over from another run; whether there were any.

    Each is stored as it ends. On a GPU several are written together.
    """
    variants = run.active_variants
    finished = store.finished_units(run.db, run.run_id)
    units = {run.unit_id(unit): unit for unit in run.plan.units(lang, run.base)}
    unfinished = [unit_id for unit_id in units if unit_id not in finished]
    missing = [unit_id for unit_id in unfinished if not store.copy_unit(run.db, run.run_id, unit_id)]
    counter.skip(sum(len(units[unit_id].items) for unit_id in units.keys() - set(missing)) * len(variants))
    at_once = max(1, run.base.rows // ROWS_PER_UNIT[run.base.backend])
    for start in range(0, len(missing), at_once):
        together = {unit_id: units[unit_id] for unit_id in missing[start : start + at_once]}
        store.set_status(run.db, run.run_id, Status.RUNNING, [variant.variant_id for variant in variants], lang)
        generator = run.backends.generator(variants)
        with run.outcome.timer("generating"):
            written = write(generator, [*together.values()], variants, run.plan.sweep.sampling)
        for (unit_id, unit), rows in zip(together.items(), written, strict=True):
            store.put_unit(run.db, run.run_id, unit_id, rows)
            counter.advance(len(unit.items) * len(variants))
    return bool(unfinished)


def _measure(run: BaseRun, lang: Language, wrote: bool) -> None:
    """Scores a language, and makes its cells and averages where anything is new or missing."""
    variants = run.active_variants
    ids = [variant.variant_id for variant in variants]
    zero_shot = next((v.variant_id for v in variants if v.strategy is Strategy.ZS), None)
    x_ft = [v.variant_id for v in variants if v.strategy is Strategy.X_FT]
    completions = store.completions(run.db, run.run_id, lang)
    scores, scored = score(run.db, run.run_id, completions, lang, run.scorers)
    is_stale = wrote or scored or not _is_done(run, lang)
    if not is_stale and not (zero_shot and x_ft and _lacks_averages(run, lang)):
        return
    completions = completions[completions["variant_id"].isin(ids)]
    measured = values(completions, scores, lang)
    cells = metrics.cells(measured, zero_shot, diversity(completions, ids, zero_shot))
    averages = metrics.train_average(measured, zero_shot, x_ft, cells)
    store.put_averages(run.db, run.run_id, run.model, lang, averages)
    store.put_cells(run.db, run.run_id, lang, cells)


def _lacks_averages(run: BaseRun, eval_lang: str) -> bool:
    """Whether a language (or `mean`) has no averages: they were not made yet, or a migration took them away."""
    averages = store.averages(run.db, run.source)
    return not ((averages["model"] == run.model) & (averages["eval_lang"] == eval_lang)).any()


def _is_done(run: BaseRun, lang: Language) -> bool:
    statuses = store.statuses(run.db, run.run_id)
    done = statuses[(statuses["eval_lang"] == lang) & (statuses["status"] == Status.DONE)]
    return {variant.variant_id for variant in run.active_variants} <= set(done["variant_id"])


def write(
    generator: Generator, units: Sequence[Unit], variants: Sequence[Variant], sampling: Sampling
) -> list[pd.DataFrame]:
    """What all variants write to the prompts of units of one language, with the likelihoods: of each unit the rows of
    `store.put_unit`.

    The generator knows every adapter by its variant_id. An empty completion has no perplexity.
    """
    together = Unit(units[0].eval_lang, tuple(item for unit in units for item in unit.items))
    rows = _generate(generator, together, variants, sampling)
    unit_of = [i for i, unit in enumerate(units) for _ in unit.items] * len(variants)
    return [part for _, part in rows.groupby(unit_of)]


def _generate(generator: Generator, unit: Unit, variants: Sequence[Variant], sampling: Sampling) -> pd.DataFrame:
    keys = [(variant, item) for variant in variants for item in unit.items]
    names = [variant.adapter for variant, _ in keys]
    prompts = [item.prompt for _, item in keys]
    written = generator.generate(prompts, names, [item.stream for _, item in keys], sampling)
    tokens = [() if completion.is_empty else completion.token_ids for completion in written]
    rows = pd.DataFrame(
        {
            "variant_id": variant.variant_id,
            "eval_lang": unit.eval_lang.value,
            "split": item.stream.split.value,
            "prompt_index": item.stream.prompt_index,
            "sample_index": item.stream.sample_index,
            "completion": completion.text,
            "n_tokens": len(ids),
        }
        for (variant, item), completion, ids in zip(keys, written, tokens, strict=True)
    )
    nll_self = generator.of_texts(tokens, names)
    nll_base = generator.after_prompts(prompts, tokens)
    empty = rows["n_tokens"] == 0
    rows["nll_self"] = pd.Series([likelihood.nll for likelihood in nll_self]).mask(empty)
    rows["nll_base"] = pd.Series([likelihood.nll for likelihood in nll_base]).mask(empty)
    return rows.join(_neutral(generator, unit, variants), on=["variant_id", "split", "prompt_index"])


def _neutral(generator: Generator, unit: Unit, variants: Sequence[Variant]) -> pd.DataFrame:
    """nll_neutral and n_tokens_neutral of the unit's neutral-test sentences, by variant, split and prompt_index."""
    items = {i.stream.prompt_index: i for i in unit.items if i.stream.split is Split.NEUTRAL_TEST}
    pairs = [item.pair for _ in variants for item in items.values()]
    likelihoods = generator.of_pairs(pairs, [variant.adapter for variant in variants for _ in items])
    index = pd.MultiIndex.from_tuples(
        [(variant.variant_id, Split.NEUTRAL_TEST.value, number) for variant in variants for number in items],
        names=["variant_id", "split", "prompt_index"],
    )
    columns = {"nll_neutral": [f.nll for f in likelihoods], "n_tokens_neutral": [f.n_tokens for f in likelihoods]}
    return pd.DataFrame(columns, index=index).astype({"nll_neutral": float, "n_tokens_neutral": "Int32"})


def score(
    db: Path, run_id: str, completions: pd.DataFrame, eval_lang: Language, scorers: Sequence[Scorer]
) -> tuple[pd.DataFrame, bool]:
    """Scores the texts of a language that are not in the cache, or failed for a passing reason.

    `completions`: see `store.completions`. Returns what every scorer of the run says of its texts (see
    `store.run_scores`), and whether anything was scored. Texts go in blocks that are stored as they end, so that a
    slow scorer loses little when it is interrupted.
    """
    texts = set(completions["completion"])
    scores = store.run_scores(db, run_id, eval_lang)
    settled = scores[scores["value"].notna() | scores["reason"].isin(LASTING_REASONS)]
    fresh = {s.name: texts - set(settled.loc[settled["scorer"] == s.name, "text"]) for s in scorers}
    missing = sorted(set().union(*fresh.values()))
    for start in range(0, len(missing), TEXTS_AT_ONCE):
        for scorer in scorers:
            block = [text for text in missing[start : start + TEXTS_AT_ONCE] if text in fresh[scorer.name]]
            if block:
                store.put_scores(db, scorer.name, scorer.revision, eval_lang, block, scorer.score(block, eval_lang))
    return (store.run_scores(db, run_id, eval_lang), True) if missing else (scores, False)


def values(completions: pd.DataFrame, scores: pd.DataFrame, eval_lang: Language) -> pd.DataFrame:
    """What the completions of a language measure, one row per completion and metric: the input of `metrics.cells`.

    `scores`: see `store.run_scores`; toxicity is there by every scorer in it.
    """
    rows = completions.reset_index(drop=True).assign(scorer="")
    neutral = rows[rows["split"] == Split.NEUTRAL_TEST]
    texts = rows["completion"]
    measured = [
        _values(rows, Metric.PERPLEXITY_SELF, rows["nll_self"] / rows["n_tokens"]),
        _values(rows, Metric.PERPLEXITY_BASE, rows["nll_base"] / rows["n_tokens"]),
        _values(neutral, Metric.PERPLEXITY_NEUTRAL, neutral["nll_neutral"] / neutral["n_tokens_neutral"]),
        _values(rows, Metric.BITS_PER_CHAR, rows["nll_base"] / log(2) / texts.str.len()),
    ]
    for metric, of_texts in guards.TEXT_METRICS.items():
        numbers = of_texts(texts.tolist(), rows["prompt"].tolist(), eval_lang)
        measured.append(_values(rows, metric, pd.Series(numbers)))
    for scorer, of_scorer in scores.groupby("scorer"):
        toxicity = texts.map(of_scorer.set_index("text")["value"])
        measured.append(_values(rows.assign(scorer=scorer), Metric.TOXICITY, toxicity))
    return pd.concat(measured, ignore_index=True)


def diversity(completions: pd.DataFrame, variant_ids: Sequence[str], zero_shot: str | None) -> pd.DataFrame:
    """distinct-1 and distinct-2 of what each variant wrote in a split, as `metrics.cells` takes them."""
    rows = []
    for (split, group), (metric, n) in product(
        completions.groupby("split"), ((Metric.DISTINCT_1, 1), (Metric.DISTINCT_2, 2))
    ):
        written = group[group["completion"].map(guards.words_of).str.len() >= n]
        of = {
            variant: texts.set_index("prompt_index")["completion"] for variant, texts in written.groupby("variant_id")
        }
        for variant in variant_ids:
            texts, zs_texts = (of.get(name or "", pd.Series(dtype=str)) for name in (variant, zero_shot))
            both = texts.index.intersection(zs_texts.index)
            baseline = nan if variant == zero_shot else guards.distinct(zs_texts[zs_texts.index.isin(both)], n)
            rows.append(
                {
                    "variant_id": variant,
                    "split": split,
                    "metric": metric.value,
                    "n": group["prompt_index"].nunique(),
                    "n_valid": texts.index.nunique(),
                    "n_pairs": both.nunique(),
                    "value": guards.distinct(texts, n),
                    "baseline": baseline,
                    "delta": baseline - guards.distinct(texts[texts.index.isin(both)], n),
                }
            )
    return pd.DataFrame(rows)


def _values(rows: pd.DataFrame, metric: Metric, value: pd.Series) -> pd.DataFrame:
    columns = ["variant_id", "split", "scorer", "prompt_index"]
    return rows[columns].assign(
        metric=metric.value, value=value.astype("Float64").to_numpy(dtype=float, na_value=float("nan"))
    )
