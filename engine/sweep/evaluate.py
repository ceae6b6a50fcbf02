"""One language of one base: units are written and judged, texts are scored, and cells are made of both."""

from collections.abc import Sequence
from itertools import product
from math import log, nan
from pathlib import Path

import pandas as pd

from engine import store
from engine.analysis import guards
from engine.generate import Generator
from engine.score import Scorer
from engine.sweep.plan import Unit
from engine.vocabulary import LASTING_REASONS, Language, Metric, Sampling, Split, Strategy, Variant

TEXTS_AT_ONCE = 256
"""Texts whose scores are stored together."""


def write(
    generator: Generator, units: Sequence[Unit], variants: Sequence[Variant], sampling: Sampling
) -> list[pd.DataFrame]:
    """What all variants write to the prompts of units of one language, with the likelihoods: of each unit the rows of
    `store.put_unit`.

    The generator knows every adapter by its variant_id. An empty completion has no perplexity.
    """
    together = Unit(units[0].eval_lang, tuple(item for unit in units for item in unit.items))
    rows = _written(generator, together, variants, sampling)
    unit_of = [i for i, unit in enumerate(units) for _ in unit.items] * len(variants)
    return [part for _, part in rows.groupby(unit_of)]


def _written(generator: Generator, unit: Unit, variants: Sequence[Variant], sampling: Sampling) -> pd.DataFrame:
    keys = [(variant, item) for variant in variants for item in unit.items]
    names = [adapter_of(variant) for variant, _ in keys]
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
    own = generator.of_texts(tokens, names)
    judged = generator.after_prompts(prompts, tokens)
    empty = rows["n_tokens"] == 0
    rows["nll_self"] = pd.Series([likelihood.nll for likelihood in own]).mask(empty)
    rows["nll_base"] = pd.Series([likelihood.nll for likelihood in judged]).mask(empty)
    return rows.join(_neutral(generator, unit, variants), on=["variant_id", "split", "prompt_index"])


def _neutral(generator: Generator, unit: Unit, variants: Sequence[Variant]) -> pd.DataFrame:
    """nll_neutral and n_tokens_neutral of the unit's neutral-test sentences, by variant, split and prompt_index."""
    items = {i.stream.prompt_index: i for i in unit.items if i.stream.split is Split.NEUTRAL_TEST}
    pairs = [item.pair for _ in variants for item in items.values()]
    found = generator.of_pairs(pairs, [adapter_of(variant) for variant in variants for _ in items])
    index = pd.MultiIndex.from_tuples(
        [(variant.variant_id, Split.NEUTRAL_TEST.value, number) for variant in variants for number in items],
        names=["variant_id", "split", "prompt_index"],
    )
    columns = {"nll_neutral": [f.nll for f in found], "n_tokens_neutral": [f.n_tokens for f in found]}
    return pd.DataFrame(columns, index=index).astype({"nll_neutral": float, "n_tokens_neutral": "Int32"})


def adapter_of(variant: Variant) -> str | None:
    """The name of a variant's adapter in the stack; None for the bare base."""
    return None if variant.strategy is Strategy.ZS else variant.variant_id


def score(db: Path, completions: pd.DataFrame, eval_lang: Language, scorers: Sequence[Scorer]) -> bool:
    """Scores the texts of a language that are not in the cache, or failed for a passing reason; True when any did.

    `completions`: see `store.completions`. Texts go in blocks that are stored as they end, so that a slow scorer loses
    little when it is interrupted.
    """
    texts = set(completions["completion"])
    fresh = {scorer.name: texts - _settled(db, scorer, eval_lang) for scorer in scorers}
    wanted = sorted(set().union(*fresh.values()))
    for start in range(0, len(wanted), TEXTS_AT_ONCE):
        for scorer in scorers:
            block = [text for text in wanted[start : start + TEXTS_AT_ONCE] if text in fresh[scorer.name]]
            if block:
                scores = scorer.score(block, eval_lang)
                store.put_scores(db, scorer.name, scorer.revision, eval_lang, block, scores)
    return bool(wanted)


def _settled(db: Path, scorer: Scorer, eval_lang: Language) -> set[str]:
    known = store.cached_scores(db, scorer.name, scorer.revision, eval_lang)
    return set(known.loc[known["value"].notna() | known["reason"].isin(LASTING_REASONS), "text"])


def values(db: Path, run_id: str, completions: pd.DataFrame, eval_lang: Language) -> pd.DataFrame:
    """What the completions of a language measure, one row per completion and metric: the input of `metrics.cells`.

    Toxicity is there by every scorer that ever judged the run.
    """
    found = completions.reset_index(drop=True).assign(scorer="")
    neutral = found[found["split"] == Split.NEUTRAL_TEST]
    texts = found["completion"]
    measured = [
        _measured(found, Metric.PERPLEXITY_SELF, found["nll_self"] / found["n_tokens"]),
        _measured(found, Metric.PERPLEXITY_BASE, found["nll_base"] / found["n_tokens"]),
        _measured(neutral, Metric.PERPLEXITY_NEUTRAL, neutral["nll_neutral"] / neutral["n_tokens_neutral"]),
        _measured(found, Metric.BITS_PER_CHAR, found["nll_base"] / log(2) / texts.str.len()),
        _measured(found, Metric.EMPTY_RATE, texts.str.strip() == ""),
        _measured(found, Metric.REPETITION_RATE, texts.map(guards.repetition)),
        _measured(found, Metric.PROMPT_COPY_RATE, pd.Series(map(guards.prompt_copy, texts, found["prompt"]))),
        _measured(found, Metric.ON_LANGUAGE_RATE, pd.Series(guards.on_language(texts.tolist(), eval_lang))),
    ]
    for scorer, revision in store.scorers(db, run_id)[["scorer", "revision"]].itertuples(index=False):
        known = store.cached_scores(db, scorer, revision, eval_lang).set_index("text")["value"]
        measured.append(_measured(found.assign(scorer=scorer), Metric.TOXICITY, texts.map(known)))
    return pd.concat(measured, ignore_index=True)


def diversity(completions: pd.DataFrame, variant_ids: Sequence[str], zero_shot: str | None) -> pd.DataFrame:
    """distinct-1 and distinct-2 of what each variant wrote in a split, as `metrics.cells` takes them."""
    rows = []
    for (split, group), (metric, n) in product(
        completions.groupby("split"), ((Metric.DISTINCT_1, 1), (Metric.DISTINCT_2, 2))
    ):
        written = group[group["completion"].map(guards.units).str.len() >= n]
        of = {variant: own.set_index("prompt_index")["completion"] for variant, own in written.groupby("variant_id")}
        for variant in variant_ids:
            own, theirs = (of.get(name or "", pd.Series(dtype=str)) for name in (variant, zero_shot))
            both = own.index.intersection(theirs.index)
            baseline = nan if variant == zero_shot else guards.distinct(theirs[theirs.index.isin(both)], n)
            rows.append(
                {
                    "variant_id": variant,
                    "split": split,
                    "metric": metric.value,
                    "n": group["prompt_index"].nunique(),
                    "n_valid": own.index.nunique(),
                    "n_pairs": both.nunique(),
                    "value": guards.distinct(own, n),
                    "baseline": baseline,
                    "delta": baseline - guards.distinct(own[own.index.isin(both)], n),
                }
            )
    return pd.DataFrame(rows)


def _measured(rows: pd.DataFrame, metric: Metric, value: pd.Series) -> pd.DataFrame:
    columns = ["variant_id", "split", "scorer", "prompt_index"]
    return rows[columns].assign(
        metric=metric.value, value=value.astype("Float64").to_numpy(dtype=float, na_value=float("nan"))
    )
