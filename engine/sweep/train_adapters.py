"""Trains the missing adapters of a base as one wave."""

from collections.abc import Sequence

from engine import store
from engine.errors import TrainingError
from engine.lora import adapters, train
from engine.lora.adapter_run import AdapterRun
from engine.model import loading, registry
from engine.provenance import code_version
from engine.sweep.base_run import BaseRun
from engine.sweep.plan import Plan
from engine.sweep.progress import Counter
from engine.vocabulary import Status, Variant


def train_missing(run: BaseRun) -> None:
    """Trains what is not on disk. Variants whose training breaks down are recorded, the others go on."""
    adapters.publish_leftovers(run.plan.sweep.adapters, run.model)
    missing = _variants_to_train(run)
    if missing:
        with run.record_failures(run.active_variants):
            run.backends.stack()
    if not missing or not run.active_variants:
        return
    rows = sum(_adapter_run(run.plan, variant).rows for variant in missing)
    with run.reporter.counting("training", rows, "rows") as counter:
        _train_wave(run, missing, counter)


def _variants_to_train(run: BaseRun) -> list[Variant]:
    missing = []
    for variant in run.base.trained:
        folder = adapters.folder_of(run.plan.sweep.adapters, variant)
        why = adapters.trouble(folder, variant)
        if why is not None:
            missing.append(variant)
        if why not in (None, "absent"):
            run.reporter.say(f"{folder} is {why}; training it again")
    return missing


def _adapter_run(plan: Plan, variant: Variant) -> AdapterRun:
    assert variant.hyperparameters is not None and variant.seed is not None
    pairs = plan.splits.training_pairs(variant)
    return AdapterRun(variant.variant_id, variant.hyperparameters, pairs, variant.seed)


def _train_wave(run: BaseRun, variants: Sequence[Variant], counter: Counter) -> None:
    """A wave; should it break as a whole, its variants one by one, each for itself."""
    if len(variants) == 1:
        with run.record_failures(variants):
            _train(run, variants, counter)
        return
    done = counter.done
    try:
        _train(run, variants, counter)
        return
    except Exception as error:  # noqa: BLE001  every variant is tried again by itself, and guarded there
        run.reporter.say(f"a wave of {len(variants)} failed ({error}); training its variants one by one")
    # Outside the except: the traceback holds all the memory that the wave had.
    loading.release()
    counter.advance(done - counter.done)
    for variant in variants:
        _train_wave(run, [variant], counter)


def _train(run: BaseRun, variants: Sequence[Variant], counter: Counter) -> None:
    """Trains a wave and publishes its adapters whole. A loss that stops being a number fails its variant alone."""
    store.set_status(run.db, run.run_id, Status.RUNNING, [variant.variant_id for variant in variants])
    runs = {variant: _adapter_run(run.plan, variant) for variant in variants}
    loaded, stack = run.backends.stack()
    checkpoint = adapters.checkpoint(run.plan.sweep.adapters, variants, run.base.max_concurrent)
    with run.outcome.timer("training"):
        train.train(
            loaded,
            stack,
            [*runs.values()],
            counter.advance,
            run.base.max_concurrent,
            checkpoint,
            tokens_per_pass=run.base.tokens_per_pass,
        )
    succeeded = {variant: trained for variant, trained in runs.items() if trained.failure is None}
    if succeeded:
        staged = adapters.staging(run.plan.sweep.adapters, [*succeeded])
        for variant, trained in succeeded.items():
            folder = staged / variant.variant_id
            stack.save(variant.variant_id, folder, run.model)
            facts = {
                "dataset": run.plan.data.name,
                "texts": len(trained.pairs),
                "losses": [round(loss, 5) for loss in trained.losses],
                "base_folder": str(run.base.base.prepare().resolve()),
                "versions": {"xdet-lab": code_version(), **registry.versions()},
            }
            adapters.write_meta(folder, variant, facts)
        adapters.publish(staged)
    checkpoint.unlink(missing_ok=True)
    for variant, trained in runs.items():
        with run.record_failures([variant]):
            if trained.failure is not None:
                raise TrainingError(trained.failure)
