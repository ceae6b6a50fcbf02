"""Trains and evaluates the points of a search, and stores them (successive halving)."""

from collections.abc import Sequence
from math import ceil

import pandas as pd

from engine import store
from engine.generate import likelihood
from engine.lora import train
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.model import loading, registry
from engine.model.loading import LoadedBase
from engine.sweep.progress import Reporter
from engine.sweep.search import POINT, BaseSearch


def prepare(searches: Sequence[BaseSearch]) -> None:
    """Downloads, converts and checks the weights of every base. Errors: ModelError; nothing is started."""
    for base in searches:
        registry.prepare(base.base)


def run(search: BaseSearch, reporter: Reporter) -> None:
    """Trains and judges what is not stored yet, and stores it rung by rung. An interrupted wave goes on from its
    checkpoint."""
    db, search_id = search.search.db, search.search_id
    store.put_search(db, _facts(search))
    if search_id in set(store.searches(db).query("finished_at.notna()")["search_id"]):
        return
    reporter.say(f"loading {search.base.name} ({search.dtype})")
    loaded = loading.load(search.base, search.dtype)
    stack = Stack(loaded.model, search.base.targets)
    checkpoint = db.with_name(f"{db.name}.search-{search_id}.pt")
    runs = search.runs()
    running = runs
    for number, rung in enumerate(search.rungs):
        results = _stored_points(search, runs)
        if not all(results.get(run.name, (-1,))[0] >= number for run in running):
            for run in running:
                run.until = ceil(rung * run.steps)
            with reporter.counting(f"{len(running)} points", sum(run.rows for run in running), "rows") as counter:
                train.train(
                    loaded,
                    stack,
                    running,
                    counter.advance,
                    search.max_concurrent,
                    checkpoint,
                    tokens_per_pass=search.tokens,
                    rank=search.rank,
                )
            succeeded = [run for run in running if run.failure is None]
            nlls = dict(zip([run.name for run in succeeded], _judge(search, loaded, stack, succeeded), strict=True))
            points = pd.DataFrame(_point(run, number, nlls.get(run.name)) for run in running)
            store.put_points(db, search_id, points)
            results = _stored_points(search, runs)
        promoted = [run for run in running if results[run.name][0] > number]
        ranked = sorted((run for run in running if run.failure is None), key=lambda run: results[run.name][1])
        running = promoted or ranked[: ceil(len(running) / 2)]
    (base_nll,) = _judge(search, loaded, stack, [None])
    store.finish_search(db, search_id, base_nll)
    checkpoint.unlink(missing_ok=True)


def _facts(search: BaseSearch) -> dict[str, object]:
    s = search.search
    return {
        "search_id": search.search_id,
        "model": search.base.name,
        "revision": search.base.revision,
        "dtype": search.dtype,
        "dataset": search.data.name,
        "dataset_hash": search.data.content_hash,
        "limit_train": s.limit_train,
        "train_langs": " ".join(s.train_langs),
        "seed": s.seed,
        "epochs": s.epochs,
        "cost": search.cost,
        "n_points": len(search.points),
        "n_learnt": len(search.learnt),
        "n_validation": len(search.validation),
    }


def _stored_points(search: BaseSearch, runs: Sequence[AdapterRun]) -> dict[str, tuple[int, float]]:
    """The rung and the nll of every point that is stored, by its run; failures are written to the runs."""
    points = store.search_points(search.search.db, search.search_id).to_dict("records")
    by_point = {tuple(point[name] for name in POINT): point for point in points}
    results = {}
    for run in runs:
        point = by_point.get(tuple(getattr(run.hyperparameters, name) for name in POINT))
        if point is not None:
            run.failure = point["failure"] if isinstance(point["failure"], str) else None
            results[run.name] = (int(point["rung"]), float(point["nll"]))
    return results


def _judge(search: BaseSearch, loaded: LoadedBase, stack: Stack, runs: Sequence[AdapterRun | None]) -> list[float]:
    """The mean negative log-likelihood of the validation text, in nats per token, under each run; None: the base."""
    names, n = [run.name if run else None for run in runs], len(search.validation)
    likelihoods = likelihood.of_pairs(
        loaded, stack, [*search.validation] * len(names), [name for name in names for _ in range(n)]
    )
    groups = [likelihoods[i : i + n] for i in range(0, len(likelihoods), n)]
    return [sum(f.nll for f in group) / sum(f.n_tokens for f in group) for group in groups]


def _point(run: AdapterRun, rung: int, nll: float | None) -> dict[str, object]:
    """A point as it is stored. nll None: its loss stopped being a number, and `failure` says so."""
    h = run.hyperparameters
    return {
        **{name: getattr(h, name) for name in POINT},
        "rung": rung,
        "epochs": len(run.losses) / ceil(len(run.pairs) / h.batch_size),
        "final_loss": run.losses[-1] if run.losses else None,
        "nll": nll,
        "failure": run.failure,
    }
