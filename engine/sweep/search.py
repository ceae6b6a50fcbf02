"""The paper's hyperparameter search: every point of its grid is an adapter of one wave, ranked on held-out text.

Owns which points there are, what they learn and are judged by, and which one is chosen; `engine.sweep.run_search`
carries it out. Points learn four fifths of neutral-train; what decides is the likelihood of the last fifth, never a
test split. The adapters are not kept. Imports no torch.
"""

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
from engine.lora.adapter_run import AdapterRun, steps, training_format
from engine.model import registry
from engine.model.machine import Machine, asked_outside, at_hand
from engine.model.registry import LATEST, Base
from engine.sweep.memory import Memory, MemoryEstimate
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
        shaping = [FORMAT, base.name, base.revision, self.dtype, training_format(base), self.data.content_hash]
        points = [asdict(point) for point in self.points]
        return digest([*shaping, s.limit_train, s.train_langs, s.seed, s.halving, points])

    @property
    def max_concurrent(self) -> int:
        """How many points are trained at once."""
        all_steps = [steps(point, len(self.learnt)) for point in self.points]
        smallest = min(point.batch_size for point in self.points)
        return self._memory.max_concurrent(all_steps, smallest)

    @property
    def tokens(self) -> int:
        """Of a training pass."""
        return self._memory.tokens_per_pass(self.max_concurrent)

    @property
    def memory(self) -> MemoryEstimate:
        """That training takes."""
        return self._memory.training(self.max_concurrent, self.tokens)

    @property
    def _memory(self) -> Memory:
        return Memory(self.base, self.dtype, self.rank, self.machine)

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
        left, done, share = len(self.points), 0.0, 0.0
        for rung in self.rungs:
            share += left * (rung - done) / len(self.points)
            left, done = ceil(left / 2), rung
        return share

    @property
    def rows(self) -> int:
        """Training rows of the whole search, about."""
        return round(self.cost * len(self.points) * self.search.epochs * len(self.learnt))

    def runs(self) -> list[AdapterRun]:
        return [AdapterRun(f"point-{i}", point, self.learnt, self.search.seed) for i, point in enumerate(self.points)]


def plan(search: Search, is_outline: bool = False) -> list[BaseSearch]:
    """What is searched, base after base. `is_outline`: hub bases may be out of reach.

    Errors: UsageError, DatasetError, ModelError; nothing is started.
    """
    data = dataset.load(search.dataset, search.train_langs)
    splits = split(data.train, data.test, search.limit_train)
    parts = [held_out(splits.train[lang], search.seed, lang) for lang in search.train_langs]
    training, validation = (tuple(pair for part in parts for pair in part[side]) for side in (0, 1))
    machine, searches = asked_outside() if is_outline else at_hand(), []
    for base in registry.resolve_all(search.models, registry.describe if is_outline else registry.resolve):
        points = tuple(replace(point, epochs=search.epochs, targets=base.targets) for point in GRID)
        searches.append(BaseSearch(search, base, machine.dtype, data, points, training, validation, machine))
    return searches


def best_hyperparameters(db: Path, base: Base, dataset_hash: str, h: Hyperparameters) -> Hyperparameters:
    """`h` with rank, α, learning rate and batch size of the best point of the newest search of a base on a data set.

    Errors: UsageError (there is none, or none that has ended).
    """
    searches = store.searches(db) if db.exists() else pd.DataFrame(columns=SOUGHT)
    searches = searches[searches["model"] == base.name].query("dataset_hash == @dataset_hash and finished_at.notna()")
    if base.revision != LATEST:
        searches = searches[searches["revision"] == base.revision]
    if searches.empty:
        raise UsageError(
            f"--hyperparameters from-search: {db} has no finished search of {base.name} on this data set. "
            f"Run `python run_sweep.py search --models {base.name}` first, with the same --dataset and --db."
        )
    points = store.search_points(db, str(searches["search_id"].iloc[0]))
    best = points.iloc[0]
    return replace(
        h,
        rank=int(best["rank"]),
        alpha=int(best["alpha"]),
        learning_rate=float(best["learning_rate"]),
        batch_size=int(best["batch_size"]),
    )
