"""One base of a run: the state that its stages share, its failures, and its timings."""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine import store
from engine.errors import XDetError
from engine.score import Scorer
from engine.sweep.backends import Backends
from engine.sweep.plan import BasePlan, Plan, Unit
from engine.sweep.progress import Reporter
from engine.vocabulary import Language, Status, Variant


@dataclass(frozen=True)
class Failure:
    """Variants that failed in one language, or (eval_lang None) for the rest of the run. `why`: a message of ours, or a
    traceback."""

    model: str
    variants: tuple[Variant, ...]
    eval_lang: Language | None
    why: str

    @property
    def what(self) -> str:
        where = f" in {self.eval_lang}" if self.eval_lang else ""
        return f"{self.model} {' '.join(variant.label for variant in self.variants)}{where}"

    @property
    def reason(self) -> str:
        """The last line of why."""
        return self.why.strip().splitlines()[-1]


@dataclass
class Outcome:
    """What a run came to."""

    run_id: str
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timer(self, stage: str) -> Iterator[None]:
        """Adds the seconds of its block to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began


@dataclass(frozen=True)
class BaseRun:
    """What the stages of one base share."""

    plan: Plan
    base: BasePlan
    scorers: Sequence[Scorer]
    reporter: Reporter
    outcome: Outcome
    backends: Backends

    @property
    def model(self) -> str:
        return self.base.base.name

    @property
    def db(self) -> Path:
        return self.plan.sweep.db

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    @property
    def source(self) -> str:
        return f"run:{self.run_id}"

    @property
    def active_variants(self) -> list[Variant]:
        """The variants that have not failed."""
        failures = [f for f in self.outcome.failures if f.model == self.model and f.eval_lang is None]
        failed = {variant for failure in failures for variant in failure.variants}
        return [variant for variant in self.base.variants if variant not in failed]

    def unit_id(self, unit: Unit) -> str:
        """The identity of what the usable variants write to a unit."""
        return unit.unit_id(self.plan.sweep.sampling, self.base.backend, self.active_variants)

    @contextmanager
    def record_failures(self, variants: Sequence[Variant], eval_lang: Language | None = None) -> Iterator[None]:
        """A failure of the block is recorded for these variants (in this language), and goes no further."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  the one broad except: record, and go on
            why = str(error) if isinstance(error, XDetError) else traceback.format_exc()
            failure = Failure(self.model, tuple(variants), eval_lang, why)
            self.outcome.failures.append(failure)
            self.reporter.say(f"failed: {failure.what}: {failure.reason}")
            ids = [variant.variant_id for variant in variants]
            store.set_status(self.db, self.run_id, Status.FAILED, ids, eval_lang, why)
