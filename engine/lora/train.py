"""Trains the adapters of a wave concurrently over one frozen base.

Each adapter's run has its own text order, optimiser, schedule, clipping and dropout stream; the runs share nothing but
the arithmetic, so an adapter learns what it would learn alone. What it learns: `engine.lora.adapter_run`.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from engine.lora.adapter_run import TOKENS_PER_PASS, AdapterRun
from engine.lora.batch import Row
from engine.lora.layout import Layout
from engine.lora.passes import Passes, PassInput
from engine.lora.stack import Adapter, Stack
from engine.model.loading import LoadedBase, is_out_of_memory
from engine.vocabulary import Pair

CHECKPOINT_SECONDS = 180.0
"""Seconds between two checkpoints of a wave."""

CHECKPOINT_FORMAT = 3
"""A checkpoint of another one is not read, and its wave starts again."""


class _Trainer:
    """A run with what it needs while it runs."""

    def __init__(self, run: AdapterRun, adapter: Adapter, rows: "list[Row]") -> None:
        assert adapter.flat is not None
        self.run, self.adapter, self.flat, self.rows = run, adapter, adapter.flat, rows
        self.batches = run.batches()
        learning_rate, total = run.hyperparameters.learning_rate, run.steps
        self.optimizer = torch.optim.AdamW([self.flat], lr=learning_rate, weight_decay=0.0, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1 - step / total))

    @property
    def is_paused(self) -> bool:
        return self.run.is_done and self.run.failure is None and len(self.run.losses) < self.run.steps

    def next_batch(self) -> "list[Row]":
        return [self.rows[i] for i in next(self.batches)]

    def learn(self, loss: float, gradient: Tensor) -> None:
        """Ends a step; the run ends where its loss is not a number."""
        if not math.isfinite(loss):
            self.run.failure = f"loss became {loss} at step {len(self.run.losses) + 1} of {self.run.steps}"
            return
        self.run.losses.append(loss)
        self.flat.grad = gradient
        nn.utils.clip_grad_norm_([self.flat], self.run.hyperparameters.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the weights."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def restore(self, state: dict[str, Any]) -> int:
        """Goes to where `state` was taken → the rows that were trained until then."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return sum(len(batch) for batch in islice(self.batches, len(self.run.losses)))


def encode(loaded: LoadedBase, pairs: Sequence[Pair], max_tokens: int) -> "list[Row]":
    """Pairs → token ids: of the neutral sentence, with the tokenizer's opening token and no closing end token; of the
    toxic and the neutral sentence, both with it, for an encoder-decoder."""
    neutral = loaded.encode([pair.neutral for pair in pairs], max_tokens=max_tokens)
    if loaded.base.is_encoder_decoder:
        toxic = loaded.encode([pair.toxic for pair in pairs], max_tokens=max_tokens)
        return [[*both] for both in zip(toxic, neutral, strict=True)]
    return [[ids] for ids in neutral]


def train(
    loaded: LoadedBase,
    stack: Stack,
    runs: Sequence[AdapterRun],
    on_step: Callable[[int], None] = lambda rows: None,
    max_concurrent: int = 13,
    checkpoint: Path | None = None,
    every: float = CHECKPOINT_SECONDS,
    tokens_per_pass: int | None = None,
    rank: int | None = None,
) -> None:
    """Trains the runs, `max_concurrent` of them at once, in passes of at most `tokens_per_pass` tokens (None:
    what is best for the device, whether or not it fits) and with room for `rank` (None: the largest; it is part of a
    checkpoint); `stack.adapters[run.name]` are made here, losses are written to the runs.

    The longest begin, and where one ends the next takes its place. `on_step` is told the rows of each step. A run
    whose loss stops being a number is taken out with `run.failure` set; the others go on. Every so many seconds
    all of it is saved to the file `checkpoint`, and a call that finds the file goes on from there, to the same bits.
    Runs that pause stay in that file, and go on from there in a call that gives them a later `until`.
    The base stays in evaluation mode: dropout of its own (mT5's) would tie a run to the company it is in.
    """
    waiting = sorted(runs, key=lambda run: -run.steps)
    running: list[_Trainer] = []
    paused: list[_Trainer] = []
    layout = stack.layout(rank or max((run.hyperparameters.rank for run in runs), default=1))
    passes = Passes(loaded, stack, layout)
    saved = _read(checkpoint) if checkpoint else {}
    for run in [run for run in waiting if run.name in saved]:
        waiting.remove(run)
        trainer = _begin(loaded, stack, layout, run)
        state = saved[run.name]
        run.losses[:], run.failure = state["losses"], state["failure"]
        trainer.flat.copy_(state["weights"])
        if state["running"]:
            on_step(trainer.restore(state["running"]))
            (paused if run.is_done else running).append(trainer)
        else:
            on_step(run.rows)
    last_saved = time.monotonic()
    most = tokens_per_pass or TOKENS_PER_PASS[loaded.device.type]
    while running or waiting:
        while waiting and len(running) < max_concurrent:
            running.append(_begin(loaded, stack, layout, waiting.pop(0)))
        drawn = [(trainer, trainer.next_batch()) for trainer in running]
        most = _step(passes, drawn, most)
        paused += [trainer for trainer in running if trainer.is_paused]
        running = [trainer for trainer in running if not trainer.run.is_done]
        on_step(sum(len(batch) for _, batch in drawn))
        is_last = bool(paused) and not running and not waiting
        if checkpoint and (is_last or time.monotonic() - last_saved > every):
            _save(checkpoint, stack, [run for run in runs if run not in waiting], [*running, *paused])
            last_saved = time.monotonic()


def _begin(loaded: LoadedBase, stack: Stack, layout: Layout, run: AdapterRun) -> _Trainer:
    adapter = stack.create(run.name, run.hyperparameters, run.seed, layout)
    run.losses.clear()
    return _Trainer(run, adapter, encode(loaded, run.pairs, run.hyperparameters.max_tokens))


def _save(path: Path, stack: Stack, begun: Sequence[AdapterRun], running: Sequence[_Trainer]) -> None:
    """The state of all runs that have begun, in place of the one before; those that have ended keep their weights."""
    states = {trainer.run.name: trainer.state() for trainer in running}
    content = {
        run.name: {
            "losses": run.losses,
            "failure": run.failure,
            "weights": stack.adapters[run.name].flat,
            "running": states.get(run.name),
        }
        for run in begun
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    torch.save({"format": CHECKPOINT_FORMAT, "runs": content}, new)
    new.replace(path)


def _read(path: Path) -> dict[str, Any]:
    """What `_save` wrote; nothing when there is no such file, or one that cannot be read: it only saves time."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError):
        return {}
    runs: dict[str, Any] = content.get("runs", {}) if content.get("format") == CHECKPOINT_FORMAT else {}
    return runs


Batches = Sequence[tuple[_Trainer, list[Row]]]


def _step(passes: Passes, batches: Batches, most: int) -> int:
    """An optimiser step of every run, in passes of at most `most` tokens → how many a pass may have from now on: half
    as many whenever memory is short. Errors: what torch raises when a single run does not fit."""
    left = sorted(batches, key=lambda item: _tokens(passes, [item]))
    while left:
        part = _first_pass(passes, left, most)
        try:
            updates = _isolated(passes, part)
        except Exception as error:
            if not is_out_of_memory(error) or len(part) == 1:
                raise
        else:
            for (trainer, _), update in zip(part, updates, strict=True):
                trainer.learn(*update)
            left = left[len(part) :]
            continue
        most = _tokens(passes, part) // 2  # outside the except, whose traceback holds all that the pass had
        passes.release()
        warnings.warn(f"out of memory; going on in passes of {most:,} tokens", stacklevel=2)
    return most


def _first_pass(passes: Passes, batches: Batches, most: int) -> Batches:
    """The first batches, sorted by their tokens, that a pass of at most `most` takes; at least one."""
    return next(
        (batches[:n] for n in range(1, len(batches)) if _tokens(passes, batches[: n + 1]) > most), list(batches)
    )


def _tokens(passes: Passes, batches: Batches) -> int:
    return passes.form.tokens([batch for _, batch in batches])


def _isolated(passes: Passes, batches: Batches) -> list[tuple[float, Tensor]]:
    """Each run's mean loss per token and gradient. A run whose loss is not a number would make everybody's gradients
    so; where there is one, the pass is done again without it."""
    updates = passes.updates(
        [
            PassInput(t.flat, t.adapter.scale, t.adapter.dropout, t.run.seed, len(t.run.losses), batch)
            for t, batch in batches
        ]
    )
    is_number = [math.isfinite(loss) for loss, _ in updates]
    good = [item for item, is_good in zip(batches, is_number, strict=True) if is_good]
    if len(good) in (0, len(batches)):
        return updates
    others = iter(_isolated(passes, good))
    return [next(others) if is_good else update for update, is_good in zip(updates, is_number, strict=True)]
