"""Trains and judges the points of a search, and stores them rung by rung."""

from collections.abc import Sequence
from math import ceil

import pandas as pd

from engine import store
from engine.generate import likelihood
from engine.lora import train
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.model import loading, registry
from engine.model.loading import Loaded
from engine.sweep.progress import Reporter
from engine.sweep.search import POINT, BaseSearch


def prepare(made: Sequence[BaseSearch]) -> None:
    """Downloads, converts and checks the weights of every base. Errors: ModelError; nothing is started."""
    for base in made:
        registry.prepare(base.base)


def run(made: BaseSearch, reporter: Reporter) -> None:
    """Trains and judges what is not stored yet, and stores it rung by rung. An interrupted wave goes on from its
    checkpoint."""
    db, search_id = made.search.db, made.search_id
    store.put_search(db, _facts(made))
    if search_id in set(store.searches(db).query("finished_at.notna()")["search_id"]):
        return
    reporter.say(f"loading {made.base.name} ({made.dtype})")
    loaded = loading.load(made.base, made.dtype)
    stack = Stack(loaded.model, made.base.targets)
    checkpoint = db.with_name(f"{db.name}.search-{search_id}.pt")
    runs = made.runs()
    going = runs
    for number, rung in enumerate(made.rungs):
        judged = _stored(made, runs)
        if not all(judged.get(run.name, (-1,))[0] >= number for run in going):
            for run in going:
                run.until = ceil(rung * run.steps)
            with reporter.counting(f"{len(going)} points", sum(run.rows for run in going), "rows") as counter:
                train.train(
                    loaded,
                    stack,
                    going,
                    counter.advance,
                    made.max_concurrent,
                    checkpoint,
                    tokens_per_pass=made.tokens,
                    rank=made.rank,
                )
            good = [run for run in going if run.failure is None]
            nlls = dict(zip([run.name for run in good], _judge(made, loaded, stack, good), strict=True))
            points = pd.DataFrame(_point(run, number, nlls.get(run.name)) for run in going)
            store.put_points(db, search_id, points)
            judged = _stored(made, runs)
        further = [run for run in going if judged[run.name][0] > number]
        ranked = sorted((run for run in going if run.failure is None), key=lambda run: judged[run.name][1])
        going = further or ranked[: ceil(len(going) / 2)]
    (base_nll,) = _judge(made, loaded, stack, [None])
    store.finish_search(db, search_id, base_nll)
    checkpoint.unlink(missing_ok=True)


def _facts(made: BaseSearch) -> dict[str, object]:
    s = made.search
    return {
        "search_id": made.search_id,
        "model": made.base.name,
        "revision": made.base.revision,
        "dtype": made.dtype,
        "dataset": made.data.name,
        "dataset_hash": made.data.content_hash,
        "limit_train": s.limit_train,
        "train_langs": " ".join(s.train_langs),
        "seed": s.seed,
        "epochs": s.epochs,
        "cost": made.cost,
        "n_points": len(made.points),
        "n_learnt": len(made.learnt),
        "n_validation": len(made.validation),
    }


def _stored(made: BaseSearch, runs: Sequence[AdapterRun]) -> dict[str, tuple[int, float]]:
    """The rung and the nll of every point that is stored, by its run; failures are written to the runs."""
    points = store.search_points(made.search.db, made.search_id).to_dict("records")
    by_point = {tuple(point[name] for name in POINT): point for point in points}
    found = {}
    for run in runs:
        point = by_point.get(tuple(getattr(run.hyperparameters, name) for name in POINT))
        if point is not None:
            run.failure = point["failure"] if isinstance(point["failure"], str) else None
            found[run.name] = (int(point["rung"]), float(point["nll"]))
    return found


def _judge(made: BaseSearch, loaded: Loaded, stack: Stack, runs: Sequence[AdapterRun | None]) -> list[float]:
    """The mean negative log-likelihood of the validation text, in nats a token, under each run; None: the base."""
    names, n = [run.name if run else None for run in runs], len(made.validation)
    found = likelihood.of_pairs(
        loaded, stack, [*made.validation] * len(names), [name for name in names for _ in range(n)]
    )
    groups = [found[i : i + n] for i in range(0, len(found), n)]
    return [sum(f.nll for f in own) / sum(f.n_tokens for f in own) for own in groups]


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
