"""The paper's hyper-parameter search: every point of its grid is an adapter of one wave, judged on held-out text.

Owns which points there are, what they learn and are judged by, and which one is chosen. Points learn four fifths of
neutral-train; what decides is the likelihood of the last fifth, never a test split. The adapters are not kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import ceil
from pathlib import Path

import pandas as pd

from engine import store
from engine.config import Search
from engine.data import dataset
from engine.data.splits import held_out, split
from engine.errors import UsageError
from engine.generate import likelihood
from engine.lora import train
from engine.lora.stack import Stack
from engine.model import models
from engine.model.models import LATEST, Base, Loaded
from engine.sweep import memory
from engine.sweep.memory import Machine, Need
from engine.sweep.progress import Reporter
from engine.vocabulary import Hyperparameters, Pair, digest

GRID = tuple(
    Hyperparameters(batch_size=batch_size, learning_rate=learning_rate, rank=rank, alpha=alpha)
    for batch_size, learning_rate, rank, alpha in product((4, 6, 8), (2e-4, 2e-5), (16, 32), (32, 64))
)
"""The paper's 24 points."""

RUNGS = (1 / 4, 1 / 2)
"""Successive halving (Jamieson and Talwalkar 2016): after these shares of its steps the better half goes on."""

FORMAT = "1"
"""Part of a search's identity: raise it when the same plan would give other numbers."""

POINT = ["rank", "alpha", "learning_rate", "batch_size"]
SOUGHT = ["search_id", "model", "revision", "dataset_hash", "finished_at"]


@dataclass(frozen=True)
class BaseSearch:
    """The search of one base: its points learn `learnt` and are judged by `validation`."""

    search: Search
    base: Base
    dtype: str
    data: dataset.Dataset
    points: tuple[Hyperparameters, ...]
    learnt: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    machine: Machine

    @property
    def search_id(self) -> str:
        """A hash of everything that shapes its numbers."""
        s, base = self.search, self.base
        shaping = [FORMAT, base.name, base.revision, self.dtype, train.format_of(base), self.data.content_hash]
        points = [asdict(point) for point in self.points]
        return digest([*shaping, s.limit_train, s.train_langs, s.seed, s.halving, points])

    @property
    def places(self) -> int:
        """How many points are trained at once."""
        steps = [train.steps(point, len(self.learnt)) for point in self.points]
        smallest = min(point.batch_size for point in self.points)
        return memory.places(self.base, self.dtype, self.rank, steps, smallest, self.machine)

    @property
    def tokens(self) -> int:
        """Of a training pass."""
        return memory.tokens_per_pass(self.base, self.dtype, self.rank, self.places, self.machine)

    @property
    def need(self) -> Need:
        """Memory."""
        return memory.training(self.base, self.dtype, self.rank, self.places, self.tokens, self.machine)

    @property
    def rank(self) -> int:
        """The highest."""
        return max(point.rank for point in self.points)

    @property
    def rungs(self) -> tuple[float, ...]:
        """The shares of their steps that points are judged after; the last one is all of them."""
        return (*RUNGS, 1.0) if self.search.halving else (1.0,)

    @property
    def cost(self) -> float:
        """What is trained, as a share of all points to their end."""
        left, done, found = len(self.points), 0.0, 0.0
        for rung in self.rungs:
            found += left * (rung - done) / len(self.points)
            left, done = ceil(left / 2), rung
        return found

    @property
    def rows(self) -> int:
        """Training rows of the whole search, about."""
        return round(self.cost * len(self.points) * self.search.epochs * len(self.learnt))

    def lanes(self) -> list[train.Lane]:
        return [train.Lane(f"point-{i}", point, self.learnt, self.search.seed) for i, point in enumerate(self.points)]


def plan(search: Search, is_outline: bool = False) -> list[BaseSearch]:
    """What is searched, base after base. `is_outline`: hub bases may be out of reach.

    Errors: UsageError, DatasetError, ModelError; nothing is started.
    """
    data = dataset.load(search.dataset, search.train_langs)
    splits = split(data.train, data.test, search.limit_train)
    parts = [held_out(splits.train[lang], search.seed, lang) for lang in search.train_langs]
    learnt, validation = (tuple(pair for part in parts for pair in part[side]) for side in (0, 1))
    dtype, machine, found = models.dtype_name(), memory.at_hand(), []
    for base in models.resolve_all(search.models, models.describe if is_outline else models.resolve):
        points = tuple(replace(point, epochs=search.epochs, targets=base.targets) for point in GRID)
        found.append(BaseSearch(search, base, dtype, data, points, learnt, validation, machine))
    return found


def prepare(made: Sequence[BaseSearch]) -> None:
    """Downloads, converts and checks the weights of every base. Errors: ModelError; nothing is started."""
    for base in made:
        models.prepare(base.base)


def run(made: BaseSearch, reporter: Reporter) -> None:
    """Trains and judges what is not stored yet, and stores it rung by rung. An interrupted wave goes on from its
    checkpoint."""
    db, search_id = made.search.db, made.search_id
    store.put_search(db, _facts(made))
    if search_id in set(store.searches(db).query("finished_at.notna()")["search_id"]):
        return
    reporter.say(f"loading {made.base.name} ({made.dtype})")
    loaded = models.load(made.base, made.dtype)
    stack = Stack(loaded.model, made.base.targets)
    checkpoint = db.with_name(f"{db.name}.search-{search_id}.pt")
    lanes = made.lanes()
    going = lanes
    for number, rung in enumerate(made.rungs):
        judged = _stored(made, lanes)
        if not all(judged.get(lane.name, (-1,))[0] >= number for lane in going):
            for lane in going:
                lane.until = ceil(rung * lane.steps)
            with reporter.counting(f"{len(going)} points", sum(lane.rows for lane in going), "rows") as counter:
                train.train(
                    loaded, stack, going, counter.advance, made.places, checkpoint, tokens=made.tokens, rank=made.rank
                )
            good = [lane for lane in going if lane.failure is None]
            nlls = dict(zip([lane.name for lane in good], _judge(made, loaded, stack, good), strict=True))
            points = pd.DataFrame(_point(lane, number, nlls.get(lane.name)) for lane in going)
            store.put_points(db, search_id, points)
            judged = _stored(made, lanes)
        further = [lane for lane in going if judged[lane.name][0] > number]
        ranked = sorted((lane for lane in going if lane.failure is None), key=lambda lane: judged[lane.name][1])
        going = further or ranked[: ceil(len(going) / 2)]
    (base_nll,) = _judge(made, loaded, stack, [None])
    store.finish_search(db, search_id, base_nll)
    checkpoint.unlink(missing_ok=True)


def chosen(db: Path, base: Base, dataset_hash: str, h: Hyperparameters) -> Hyperparameters:
    """`h` with rank, α, learning rate and batch size of the best point of the newest search of a base on a data set.

    Errors: UsageError (there is none, or none that has ended).
    """
    found = store.searches(db) if db.exists() else pd.DataFrame(columns=SOUGHT)
    found = found[found["model"] == base.name].query("dataset_hash == @dataset_hash and finished_at.notna()")
    if base.revision != LATEST:
        found = found[found["revision"] == base.revision]
    if found.empty:
        raise UsageError(
            f"--hyperparameters from-search: {db} has no finished search of {base.name} on this data set. "
            f"Run `python run_sweep.py search --models {base.name}` first, with the same --dataset and --db."
        )
    points = store.search_points(db, str(found["search_id"].iloc[0]))
    best = points.iloc[0]
    return replace(
        h,
        rank=int(best["rank"]),
        alpha=int(best["alpha"]),
        learning_rate=float(best["learning_rate"]),
        batch_size=int(best["batch_size"]),
    )


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


def _stored(made: BaseSearch, lanes: Sequence[train.Lane]) -> dict[str, tuple[int, float]]:
    """The rung and the nll of every point that is stored, by its lane; failures are written to the lanes."""
    points = store.search_points(made.search.db, made.search_id).to_dict("records")
    by_point = {tuple(point[name] for name in POINT): point for point in points}
    found = {}
    for lane in lanes:
        point = by_point.get(tuple(getattr(lane.hyperparameters, name) for name in POINT))
        if point is not None:
            lane.failure = point["failure"] if isinstance(point["failure"], str) else None
            found[lane.name] = (int(point["rung"]), float(point["nll"]))
    return found


def _judge(made: BaseSearch, loaded: Loaded, stack: Stack, lanes: Sequence[train.Lane | None]) -> list[float]:
    """The mean negative log-likelihood of the validation text, in nats a token, under each lane; None: the base."""
    names, n = [lane.name if lane else None for lane in lanes], len(made.validation)
    found = likelihood.of_pairs(
        loaded, stack, [*made.validation] * len(names), [name for name in names for _ in range(n)]
    )
    groups = [found[i : i + n] for i in range(0, len(found), n)]
    return [sum(f.nll for f in own) / sum(f.n_tokens for f in own) for own in groups]


def _point(lane: train.Lane, rung: int, nll: float | None) -> dict[str, object]:
    """A point as it is stored. nll None: its loss stopped being a number, and `failure` says so."""
    h = lane.hyperparameters
    return {
        **{name: getattr(h, name) for name in POINT},
        "rung": rung,
        "epochs": len(lane.losses) / ceil(len(lane.pairs) / h.batch_size),
        "final_loss": lane.losses[-1] if lane.losses else None,
        "nll": nll,
        "failure": lane.failure,
    }
