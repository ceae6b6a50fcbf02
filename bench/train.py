"""Thirteen adapters at once against one at a time, and what an adapter costs as their number grows."""

from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from bench import bases
from bench.baselines import Trainer, lora
from bench.harness import Contestant, Section, say
from engine.lora import train
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase
from engine.model.machine import at_hand
from engine.sweep.memory import Memory
from engine.vocabulary import NINE, Hyperparameters

LIMIT = 10
"""Training pairs per language: 13 adapters, 234 rows an epoch."""

H = Hyperparameters(epochs=1, targets=bases.TARGETS)
GROWTH = (1, 2, 4, 8, 13, 26)
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}


def runs(h: Hyperparameters = H) -> list[AdapterRun]:
    """The 13 trained variants, from the bundled sample."""
    splits = bases.splits(LIMIT)
    return [
        AdapterRun(v.variant_id, h, splits.training_pairs(v), v.seed or 0)
        for v in bases.variants(h, LIMIT)
        if v.hyperparameters
    ]


def bench() -> Section:
    section = Section(
        "train",
        "Training: 13 adapters at once",
        f"The 13 adapters of a base ({bases.SHAPE}, rank 16, batch 4) over {LIMIT} pairs per language of the bundled "
        "sample, one epoch. *Naive* is what the authors do: PEFT, one adapter, padded to 256 tokens, activations "
        "computed again. *Strong* is PEFT padded to the longest of a batch, without that.",
        unit="training row",
    )
    contestants = []
    for dtype in bases.DTYPES:
        for name, ok, found in _equal_losses(dtype):
            section.gate(f"{dtype}: ours and {name} lose the same, step by step (no dropout)", ok, found)
        contestants += [_ours(*bases.load(dtype), dtype), _baseline(dtype, False), _baseline(dtype, True)]
    section.race(contestants)
    if bases.DEVICE == "cpu":
        section.ratio("ours bfloat16", "naive float32", 30)
        section.ratio("ours bfloat16", "naive bfloat16", 9)
        section.ratio("ours float32", "naive float32", 11)
    else:
        section.ratio("ours bfloat16", "naive bfloat16", 15)
    for dtype in bases.DTYPES:
        section.ratio(f"ours {dtype}", f"strong {dtype}", 1.3 if bases.DEVICE == "cpu" else 4)
    return section


def growth() -> Section:
    """Seconds an adapter, from one adapter to two bases' worth."""
    section = Section(
        "growth",
        "Growth: seconds per adapter",
        f"So many adapters trained at once (bfloat16, {bases.SHAPE}): 8 sentences of eight languages each, one epoch, "
        "batch 4.",
        unit="adapter",
    )
    loaded, stack = bases.load("bfloat16")
    data = bases.splits()
    langs = list(NINE)

    def run(count: int) -> None:
        some = [
            AdapterRun(str(i), H, [data.train[langs[(i + j) % len(langs)]][i] for j in range(8)], i)
            for i in range(count)
        ]
        train.train(loaded, stack, some, max_concurrent=count)

    section.race([Contestant(str(n), f"{n} at once", n, partial(run, n)) for n in GROWTH])
    seconds = ", ".join(f"{m.per_unit:.3f}" for m in section.measured)
    section.body.append(
        "```mermaid\nxychart-beta\n"
        f'    x-axis "adapters at once" [{", ".join(map(str, GROWTH))}]\n'
        f'    y-axis "seconds an adapter" 0 --> {max(m.per_unit for m in section.measured) * 1.1:.2f}\n'
        f"    line [{seconds}]\n```"
    )
    return section


def _ours(loaded: LoadedBase, stack: Stack, dtype: str) -> Contestant:
    made = runs()
    steps = [run.steps for run in made]
    max_concurrent = Memory(loaded.base, dtype, H.rank, at_hand()).max_concurrent(steps, H.batch_size)

    def run() -> None:
        some = runs()
        train.train(loaded, stack, some, max_concurrent=max_concurrent)
        if any(run.failure for run in some):
            raise RuntimeError("a run failed")

    rows = sum(run.rows for run in made)
    return Contestant(f"ours {dtype}", f"13 adapters, {max_concurrent} at once, {rows} rows", rows, run)


def _batches(count: int) -> list[list[list[int]]]:
    """The first batch of so many X-FT runs, one a language, as token ids."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(bases.folder())
    found = []
    for run in runs()[:count]:
        found.append([tokenizer(run.pairs[i].neutral)["input_ids"] for i in next(run.batches())])
    return found


def _baseline(dtype: str, is_naive: bool) -> Contestant:
    batches = _batches(1 if is_naive and bases.DEVICE == "cpu" else 9)
    trainer = Trainer(lora(bases.plain(dtype), H, bases.TARGETS), H, is_naive)

    def run() -> None:
        for batch in batches:
            trainer.step(batch)

    rows = sum(map(len, batches))
    return Contestant(f"{'naive' if is_naive else 'strong'} {dtype}", f"1 adapter, {rows} rows", rows, run)


def _equal_losses(dtype: str) -> list[tuple[str, bool, str]]:
    """Two steps of one adapter alone among 13 of ours, and the same two of the baselines, from the same weights."""
    h = replace(H, dropout=0.0, epochs=1)
    loaded, stack = bases.load(dtype)
    ours = runs(h)
    short = [replace(run, pairs=run.pairs[:8]) for run in ours]
    watched = short[2]
    initial = stack.create(watched.name, h, watched.seed)
    weights = {}
    for path, (a, b) in initial.weights.items():
        weights[f"base_model.model.{path}.lora_A.weight"] = a.detach().clone()
        weights[f"base_model.model.{path}.lora_B.weight"] = b.detach().clone()
    train.train(loaded, stack, short, max_concurrent=len(short))
    tokens = [row[0] for row in train.encode(loaded, watched.pairs, h.max_tokens)]
    batches = [[tokens[i] for i in batch] for batch in islice(watched.batches(), 2)]
    del loaded, stack
    found = []
    for name in ("strong", "naive"):
        trainer = Trainer(lora(bases.plain(dtype), h, bases.TARGETS, weights), h, name == "naive")
        for group in trainer.optimizer.param_groups:
            group["lr"] = h.learning_rate
        losses = [trainer.step(batch) for batch in batches[:1]]
        for group in trainer.optimizer.param_groups:
            group["lr"] = h.learning_rate / 2  # the linear schedule's second of two steps
        losses += [trainer.step(batch) for batch in batches[1:]]
        worst = max(abs(a - b) / b for a, b in zip(watched.losses, losses, strict=True))
        found.append(
            (name, worst < TOLERANCE[dtype], f"largest difference {worst:.1e} of {losses[0]:.3f} nats per token")
        )
        say(f"train: {dtype}, {name}: {found[-1][2]}")
    return found
