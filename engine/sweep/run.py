"""Carries a plan out: train, generate, score, commit. Skips what is finished, records what failed, goes on."""

import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from engine import analysis, store
from engine.analysis import metrics
from engine.config import ROWS_PER_UNIT, TRANSFORMERS
from engine.embed import geometry, represent
from engine.errors import StoreError, TrainingError, XDetError
from engine.generate import Generator
from engine.generate.transformers import TransformersGenerator
from engine.generate.vllm import VllmGenerator
from engine.lora import adapters, train
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.model import loading, registry
from engine.model.loading import Loaded
from engine.score import Circularity, Scorer, circularity, open_scorers
from engine.sweep import evaluate
from engine.sweep.plan import BasePlan, Plan, Unit, prompts_of
from engine.sweep.progress import Counter, Reporter
from engine.vocabulary import Language, Pair, Status, Strategy, Variant


@dataclass
class Outcome:
    """What a run came to: failures as (what, why), and where its seconds went."""

    run_id: str
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of its block to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began


@contextmanager
def held(db: Path) -> Iterator[None]:
    """Within, no other sweep writes to this results file. Errors: StoreError (its folder cannot be written, or another
    sweep is running on it)."""
    adapters.check_writable(db.parent)
    try:
        with FileLock(db.with_name(db.name + ".lock"), timeout=0):
            yield
    except Timeout as error:
        raise StoreError(f"{db}: another sweep is running on it. Wait for it, or give another --db.") from error


def put_plan(plan: Plan) -> None:
    """Stores what will be done. Errors: StoreError (a folder that cannot be written, a file that is not ours)."""
    adapters.check_writable(plan.sweep.adapters)
    prompts = pd.DataFrame(prompts_of(plan), columns=["eval_lang", "split", "prompt_index", "prompt"])
    run = {
        "run_id": plan.run_id,
        "sweep": plan.sweep.name,
        "dataset": plan.data.name,
        "dataset_hash": plan.data.content_hash,
        "seed": plan.sweep.seed,
        "plan": json.dumps({**asdict(plan.sweep), "split_by": plan.data.split_by}, default=str),
    }
    variants = [variant for base in plan.bases for variant in base.variants]
    store.put_plan(plan.sweep.db, run, variants, plan.sweep.eval_langs, prompts)


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


def run(plan: Plan, scorers: Sequence[Scorer], reporter: Reporter) -> Outcome:
    """The whole plan, base after base. Interrupts pass through; everything committed so far stays."""
    outcome = Outcome(plan.run_id)
    judges = store.scorers(plan.sweep.db, plan.run_id).set_index("scorer")["revision"].to_dict()
    for scorer in scorers:
        if judges.get(scorer.name) != scorer.revision:
            gap = Circularity(None, None, 0, 0)
            if not scorer.is_remote:
                gap = circularity(scorer, _neutral(plan.splits.train), _neutral(plan.splits.test))
            store.put_scorer(plan.sweep.db, plan.run_id, scorer.name, scorer.revision, asdict(gap))
    for base in plan.bases:
        _BaseRun(plan, base, scorers, reporter, outcome).run()
    if len(store.scorers(plan.sweep.db, plan.run_id)) > 1:
        agreement = analysis.agreement(store.scores(plan.sweep.db, plan.run_id))
        store.put_agreement(plan.sweep.db, plan.run_id, agreement)
    return outcome


def _neutral(pairs: Mapping[Language, tuple[Pair, ...]]) -> dict[Language, list[str]]:
    return {lang: [pair.neutral for pair in found] for lang, found in pairs.items()}


class _BaseRun:
    """One base of a run: its adapters, then its languages."""

    def __init__(
        self, plan: Plan, base: BasePlan, scorers: Sequence[Scorer], reporter: Reporter, outcome: Outcome
    ) -> None:
        self.plan, self.base, self.scorers, self.reporter, self.outcome = plan, base, scorers, reporter, outcome
        self.db, self.root, self.run_id = plan.sweep.db, plan.sweep.adapters, plan.run_id
        self.usable = list(base.variants)
        self.own: tuple[Loaded, Stack] | None = None
        self.vllm: VllmGenerator | None = None

    def run(self) -> None:
        adapters.publish_leftovers(self.root, self.base.base.name)
        missing = self._missing_adapters()
        langs = self.plan.sweep.eval_langs
        if missing:
            with self._guarded(self.usable):
                self._ours()
        if not self.usable:
            return
        with self.reporter.counting("training", sum(map(self._rows, missing)), "rows") as counter:
            if missing:
                self._train_guarded(missing, counter)
        if self.usable and self._missing_units():
            with self._guarded(self.usable):
                self._generator()
        prompts = sum(len(unit.items) for lang in langs for unit in self.plan.units(lang, self.base))
        with self.reporter.counting("generating", prompts * len(self.usable), "completions") as counter:
            for lang in langs if self.usable else ():
                with self._guarded(self.usable, lang):
                    self._evaluate(lang, counter)
        self._compare()
        if self._not_represented():
            with self._guarded(self.usable):
                self._represent()
        self._close()

    @contextmanager
    def _guarded(self, variants: Sequence[Variant], lang: Language | None = None) -> Iterator[None]:
        """A failure of the block is recorded for these variants (in this language), and goes no further."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  the one broad except: record, and go on
            why = str(error) if isinstance(error, XDetError) else traceback.format_exc()
            what = " ".join(variant.label for variant in variants) + (f" in {lang}" if lang else "")
            self.outcome.failures.append((f"{self.base.base.name} {what}", why))
            self.reporter.say(f"failed: {self.outcome.failures[-1][0]}: {why.strip().splitlines()[-1]}")
            ids = [variant.variant_id for variant in variants]
            store.set_status(self.db, self.run_id, Status.FAILED, ids, lang, why)
            if lang is None:
                self.usable = [variant for variant in self.usable if variant not in variants]

    def _missing_adapters(self) -> list[Variant]:
        missing = []
        for variant in self.base.trained:
            folder = adapters.folder_of(self.root, variant)
            why = adapters.trouble(folder, variant)
            if why is not None:
                missing.append(variant)
            if why not in (None, "absent"):
                self.reporter.say(f"{folder} is {why}; it is trained again")
        return missing

    def _missing_units(self) -> bool:
        return not self.plan.unit_ids(self.base, self.usable) <= store.finished_units(self.db, self.run_id)

    def _rows(self, variant: Variant) -> int:
        return self._adapter_run(variant).rows

    def _adapter_run(self, variant: Variant) -> AdapterRun:
        assert variant.hyperparameters is not None and variant.seed is not None
        pairs = self.plan.splits.training_pairs(variant)
        return AdapterRun(variant.variant_id, variant.hyperparameters, pairs, variant.seed)

    def _train_guarded(self, variants: Sequence[Variant], counter: Counter) -> None:
        """A wave; should it break as a whole (memory, say), its variants one by one, each for itself."""
        if len(variants) == 1:
            with self._guarded(variants):
                self._train(variants, counter)
            return
        try:
            self._train(variants, counter)
        except Exception as error:  # noqa: BLE001  every variant is tried again by itself, and guarded there
            self.reporter.say(f"a wave of {len(variants)} failed ({error}); its variants are trained one by one")
            for variant in variants:
                self._train_guarded([variant], counter)

    def _train(self, variants: Sequence[Variant], counter: Counter) -> None:
        store.set_status(self.db, self.run_id, Status.RUNNING, [variant.variant_id for variant in variants])
        adapter_runs = [self._adapter_run(variant) for variant in variants]
        loaded, stack = self._ours()
        with self.outcome.timed("training"):
            checkpoint = adapters.checkpoint(self.root, variants, self.base.max_concurrent)
            train.train(
                loaded,
                stack,
                adapter_runs,
                counter.advance,
                self.base.max_concurrent,
                checkpoint,
                tokens_per_pass=self.base.tokens_per_pass,
            )
        good = [
            (variant, adapter_run)
            for variant, adapter_run in zip(variants, adapter_runs, strict=True)
            if adapter_run.failure is None
        ]
        if good:
            staged = adapters.staging(self.root, [variant for variant, _ in good])
            for variant, adapter_run in good:
                folder = staged / variant.variant_id
                stack.save(variant.variant_id, folder, self.base.base.name)
                losses = [round(loss, 5) for loss in adapter_run.losses]
                facts: dict[str, Any] = {
                    "dataset": self.plan.data.name,
                    "texts": len(adapter_run.pairs),
                    "losses": losses,
                }
                facts["base_folder"] = str(self.base.base.prepare().resolve())
                adapters.write_meta(folder, variant, {**facts, "versions": registry.versions()})
            adapters.publish(staged)
        checkpoint.unlink(missing_ok=True)
        for variant, adapter_run in zip(variants, adapter_runs, strict=True):
            with self._guarded([variant]):
                if adapter_run.failure is not None:
                    raise TrainingError(adapter_run.failure)

    def _evaluate(self, lang: Language, counter: Counter) -> None:
        """One language: every unit that is missing, then scores, then cells."""
        ids = [variant.variant_id for variant in self.usable]
        finished = store.finished_units(self.db, self.run_id)
        units = {self._unit_id(unit): unit for unit in self.plan.units(lang, self.base)}
        unfinished = [unit_id for unit_id in units if unit_id not in finished]
        missing = [unit_id for unit_id in unfinished if not store.copy_unit(self.db, self.run_id, unit_id)]
        counter.skip(sum(self._rows_of(units[unit_id]) for unit_id in units.keys() - set(missing)))
        at_once = max(1, self.base.rows // ROWS_PER_UNIT[self.base.backend])
        for start in range(0, len(missing), at_once):
            together = {unit_id: units[unit_id] for unit_id in missing[start : start + at_once]}
            store.set_status(self.db, self.run_id, Status.RUNNING, ids, lang)
            generator = self._generator()
            with self.outcome.timed("generating"):
                written = evaluate.write(generator, [*together.values()], self.usable, self.plan.sweep.sampling)
            for (unit_id, unit), rows in zip(together.items(), written, strict=True):
                store.put_unit(self.db, self.run_id, unit_id, rows)
                counter.advance(self._rows_of(unit))
        news = bool(unfinished)
        with self.outcome.timed("scoring"):
            completions = store.completions(self.db, self.run_id, lang)
            news |= evaluate.score(self.db, completions, lang, self.scorers)
            zero_shot = next((v.variant_id for v in self.usable if v.strategy is Strategy.ZS), None)
            x_ft = [variant.variant_id for variant in self.usable if variant.strategy is Strategy.X_FT]
            if news or not self._is_done(lang) or (zero_shot and x_ft and self._lacks_averages(lang)):
                completions = completions[completions["variant_id"].isin(ids)]
                values = evaluate.values(self.db, self.run_id, completions, lang)
                diversity = evaluate.diversity(completions, ids, zero_shot)
                cells = metrics.cells(values, zero_shot, diversity)
                averages = metrics.train_average(values, zero_shot, x_ft, cells)
                store.put_averages(self.db, self.run_id, self.base.base.name, lang, averages)
                store.put_cells(self.db, self.run_id, lang, cells)

    def _compare(self) -> None:
        """What needs the cells of all languages: q-values, and averages over languages."""
        model = self.base.base.name
        cells = store.cells(self.db, f"run:{self.run_id}")
        cells = cells[cells["model"] == model]
        lacks_q_values = (cells["p_value"].notna() & cells["q_value"].isna()).any()
        if lacks_q_values or (cells["delta"].notna().any() and self._lacks_averages(metrics.MEAN)):
            over_x_ft = store.averages(self.db, f"run:{self.run_id}")
            over_x_ft = over_x_ft[(over_x_ft["model"] == model) & (over_x_ft["eval_lang"] != metrics.MEAN)]
            averaged = cells[cells["metric"].isin(metrics.AVERAGED)]
            averages = metrics.eval_averages(pd.concat([averaged, over_x_ft], ignore_index=True))
            store.put_averages(self.db, self.run_id, model, metrics.MEAN, averages)
            store.put_q_values(self.db, self.run_id, metrics.with_q_values(cells))

    def _not_represented(self) -> list[Variant]:
        """The variants whose embeddings are wanted and not there."""
        if not self.plan.sweep.represent:
            return []
        there = set(store.represented(self.db, self.run_id)["variant_id"])
        return [variant for variant in self.usable if variant.variant_id not in there]

    def _represent(self) -> None:
        """Embeddings of the data set's text, measured and stored a variant. The map's axes are those of the first one,
        ZS, which is embedded again when it is there already."""
        wanted = self._not_represented()
        text = represent.sentences(self.plan.splits, self.plan.sweep.eval_langs)
        first, places = self.usable[0], text.drop(columns="sentence")
        rest = [variant for variant in wanted if variant is not first]
        loaded, stack = self._ours()
        most = represent.most_at_once(loaded, len(text))
        blocks = [[first], *(rest[i : i + most] for i in range(0, len(rest), most))]
        axes = None
        with self.reporter.counting("embedding", len(text) * (1 + len(rest)), "sentences") as counter:
            self._load_adapters(stack)
            for block in blocks:
                names = [evaluate.adapter_of(variant) for variant in block]
                with self.outcome.timed("embedding"):
                    found = represent.embed(loaded, stack, text["sentence"].tolist(), names, counter.advance)
                axes = axes or geometry.map_axes(found[0])
                for variant, vectors in zip(block, found, strict=True):
                    if variant in wanted:
                        with self.outcome.timed("measuring embeddings"):
                            measured = geometry.measure(vectors, places, axes)
                        store.put_geometry(self.db, self.run_id, variant.variant_id, measured)

    def _lacks_averages(self, eval_lang: str) -> bool:
        """Whether a language (or `mean`) has no averages: they were not made yet, or a migration took them away."""
        averages = store.averages(self.db, f"run:{self.run_id}")
        return not ((averages["model"] == self.base.base.name) & (averages["eval_lang"] == eval_lang)).any()

    def _is_done(self, lang: Language) -> bool:
        found = store.statuses(self.db, self.run_id)
        done = found[(found["eval_lang"] == lang) & (found["status"] == Status.DONE)]
        return {variant.variant_id for variant in self.usable} <= set(done["variant_id"])

    def _where(self) -> str:
        machine = self.plan.machine
        return f"{machine.kind}: {machine.name}" if machine.kind == "cuda" else machine.kind

    def _rows_of(self, unit: Unit) -> int:
        return len(unit.items) * len(self.usable)

    def _unit_id(self, unit: Unit) -> str:
        return unit.unit_id(self.plan.sweep.sampling, self.base.backend, self.usable)

    def _generator(self) -> Generator:
        """The base's back end with all usable adapters. vLLM gets the memory that our own copy of the base had."""
        if self.base.backend == TRANSFORMERS:
            loaded, stack = self._ours()
            self._load_adapters(stack)
            return TransformersGenerator(loaded, stack, self.base.rows)
        if self.vllm is None:
            self.own = None
            loading.release()
            with self.outcome.timed("loading"):
                self.reporter.say(f"loading {self.base.base.name} into vLLM ({self.plan.dtype}, {self._where()})")
                trained = [variant for variant in self.usable if variant.hyperparameters]
                folders = {variant.variant_id: adapters.folder_of(self.root, variant) for variant in trained}
                rank = max((v.hyperparameters.rank for v in trained if v.hyperparameters), default=0)
                prompts = [prompt for _, _, _, prompt in prompts_of(self.plan)]
                longest = self.plan.sweep.sampling.max_new_tokens
                self.vllm = VllmGenerator(self.base.base, self.plan.dtype, folders, rank, prompts, longest)
        return self.vllm

    def _ours(self) -> tuple[Loaded, Stack]:
        """Our own copy of the base."""
        if self.own is None:
            self._close()
            with self.outcome.timed("loading"):
                self.reporter.say(f"loading {self.base.base.name} ({self.plan.dtype}, {self._where()})")
                loaded = loading.load(self.base.base, self.plan.dtype)
                self.own = loaded, Stack(loaded.model, self.base.base.targets)
        return self.own

    def _close(self) -> None:
        if self.vllm is not None:
            self.vllm.close()
            self.vllm = None

    def _load_adapters(self, stack: Stack) -> None:
        for variant in self.usable:
            if variant.strategy is not Strategy.ZS and variant.variant_id not in stack.adapters:
                stack.load(variant.variant_id, adapters.folder_of(self.root, variant))
