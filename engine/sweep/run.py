"""Runs a plan: train, generate, score, commit. Skips what is finished, records what failed, goes on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from engine import analysis, store
from engine.errors import StoreError
from engine.lora import adapters
from engine.model import registry
from engine.provenance import code_version
from engine.score import Circularity, Scorer, circularity, open_scorers
from engine.sweep.backends import Backends
from engine.sweep.base_run import BaseRun, Outcome
from engine.sweep.embed import embed_missing
from engine.sweep.evaluate import compare, evaluate
from engine.sweep.plan import Plan, sentences_of
from engine.sweep.progress import Reporter
from engine.sweep.train_adapters import train_missing
from engine.vocabulary import Language, Pair


@contextmanager
def exclusive(db: Path) -> Iterator[None]:
    """Within, no other sweep writes to this results file. Errors: StoreError (its folder cannot be written, or another
    sweep is running on it)."""
    adapters.check_writable(db.parent)
    try:
        with FileLock(db.with_name(db.name + ".lock"), timeout=0):
            yield
    except Timeout as error:
        raise StoreError(
            f"{db}: another sweep is writing to it. Wait for it to finish, or give another --db."
        ) from error


def put_plan(plan: Plan) -> None:
    """Stores what will be done. Errors: StoreError (a folder that cannot be written, a file that is not ours)."""
    adapters.check_writable(plan.sweep.adapters)
    sentences = pd.DataFrame(sentences_of(plan), columns=["eval_lang", "split", "prompt_index", "sentence"])
    run = {
        "run_id": plan.run_id,
        "sweep": plan.sweep.name,
        "dataset": plan.data.name,
        "dataset_hash": plan.data.content_hash,
        "seed": plan.sweep.seed,
        "code": code_version(),
        "template": plan.sweep.prompt,
        "plan": json.dumps({**asdict(plan.sweep), "split_by": plan.data.split_by}, default=str),
    }
    variants = [variant for base in plan.bases for variant in base.variants]
    store.put_plan(plan.sweep.db, run, variants, plan.sweep.eval_langs, sentences)


def scorers_of(plan: Plan) -> list[Scorer]:
    """Before anything is started. Errors: UsageError, ModelError."""
    return open_scorers(
        plan.sweep.scorers, {lang: plan.data.train[lang] + plan.data.test[lang] for lang in plan.data.train}
    )


def prepare(plan: Plan) -> None:
    """Downloads, converts and checks the weights of every base that something is left to do for.

    Before anything is started. Errors: ModelError (not to be had, or not whole).
    """
    finished: set[str] = set()
    with suppress(StoreError):  # absent, or brought up to date later
        finished = store.finished_units(plan.sweep.db, plan.run_id)
    for base in plan.bases:
        folders = [adapters.folder_of(plan.sweep.adapters, variant) for variant in base.trained]
        if not plan.unit_ids(base, base.variants) <= finished or not all(folder.is_dir() for folder in folders):
            registry.prepare(base.base)
            if plan.sweep.chat_template:
                registry.check_chat_template(base.base)


def run(plan: Plan, scorers: Sequence[Scorer], reporter: Reporter) -> Outcome:
    """The whole plan, base after base. Interrupts pass through; everything committed so far stays."""
    outcome = Outcome(plan.run_id)
    _put_scorers(plan, scorers)
    for base in plan.bases:
        backends = Backends(plan, base, reporter, outcome.timer)
        _run_base(BaseRun(plan, base, scorers, reporter, outcome, backends))
    if len(store.scorers(plan.sweep.db, plan.run_id)) > 1:
        agreement = analysis.agreement(store.scores(plan.sweep.db, plan.run_id))
        store.put_agreement(plan.sweep.db, plan.run_id, agreement)
    return outcome


def _put_scorers(plan: Plan, scorers: Sequence[Scorer]) -> None:
    """Stores who judges the run, and how far each scorer favours the text that was learnt."""
    revisions = store.scorers(plan.sweep.db, plan.run_id).set_index("scorer")["revision"].to_dict()
    for scorer in scorers:
        if revisions.get(scorer.name) != scorer.revision:
            gap = Circularity(None, None, 0, 0)
            if not scorer.is_remote:
                gap = circularity(scorer, _neutral(plan.splits.train), _neutral(plan.splits.test))
            store.put_scorer(plan.sweep.db, plan.run_id, scorer.name, scorer.revision, asdict(gap))


def _neutral(pairs: Mapping[Language, tuple[Pair, ...]]) -> dict[Language, list[str]]:
    return {lang: [pair.neutral for pair in of_lang] for lang, of_lang in pairs.items()}


def _run_base(run: BaseRun) -> None:
    """The stages of one base, in order. Each goes on with the variants that are still usable."""
    train_missing(run)
    if not run.active_variants:
        return
    evaluate(run)
    compare(run)
    embed_missing(run)
    run.backends.close()
