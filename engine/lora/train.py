"""Trains the adapters of a wave concurrently over one frozen base.

Each adapter's run has its own text order, optimiser, schedule, clipping and dropout stream; the runs share nothing but
the arithmetic, so an adapter learns what it would learn alone. What it learns: `engine.lora.adapter_run`.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from engine.lora.adapter_run import TOKENS_PER_PASS, AdapterRun
from engine.lora.dropout import Dropout
from engine.lora.layout import Layout
from engine.lora.stack import Adapter, Stack
from engine.model.loading import LoadedBase, is_out_of_memory, release
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

    def update(self, gradient: Tensor) -> None:
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
    """Trains the runs, `max_concurrent` of them at once, in passes of at most `tokens_per_pass` padded tokens (None:
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
        batches = sorted(
            ((r, _pack(batch, loaded.base.facts.packs)) for r, batch in drawn), key=lambda item: _width(item[1])
        )
        updates, most = _gradients(loaded, stack, layout, batches, most)
        for (trainer, _), (loss, gradient) in zip(batches, updates, strict=True):
            run = trainer.run
            if math.isfinite(loss):
                run.losses.append(loss)
                trainer.update(gradient)
            else:
                run.failure = f"loss became {loss} at step {len(run.losses) + 1} of {run.steps}"
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


Row = list[list[int]]
"""Sentences (token ids) that lie one behind the other; of an encoder-decoder, a source and its target."""

Batches = Sequence[tuple[_Trainer, list[Row]]]


def _pack(batch: list[Row], packs: bool) -> list[Row]:
    """A batch of sentences as one row, where the base can tell them apart by their positions: what runs are
    padded to is then a sum of lengths, which varies less than a length does. Else as a row each."""
    return [[sentence for row in batch for sentence in row]] if packs else batch


def _width(rows: list[Row]) -> int:
    return max(sum(map(len, row)) for row in rows)


def _passes(batches: Batches, most: int) -> list[Batches]:
    """The runs of one step, sorted by width, cut into passes of about equally wide ones.

    Stacking runs of unequal width would pay for padding; a narrower pass also stays nearer to the caches.
    """
    passes: list[list[tuple[_Trainer, list[Row]]]] = []
    for item in batches:
        rows = max([len(item[1])] + [len(batch) for _, batch in passes[-1]]) if passes else 0
        if passes and (len(passes[-1]) + 1) * rows * _width(item[1]) <= most:
            passes[-1].append(item)
        else:
            passes.append([item])
    return list(passes)


def _gradients(
    loaded: LoadedBase, stack: Stack, layout: Layout, batches: Batches, most: int
) -> tuple[list[tuple[float, Tensor]], int]:
    """Each run's loss and gradient, in passes of at most `most` tokens; and how many tokens a pass may have from now
    on: half as many whenever memory is short. Errors: what torch raises when a single run does not fit."""
    while True:
        passes = _passes(batches, most)
        try:
            return [update for part in passes for update in _pass(loaded, stack, layout, part)], most
        except Exception as error:
            if not is_out_of_memory(error) or len(passes) == len(batches):
                raise
        most = max(map(_tokens, passes)) // 2  # outside the except, whose traceback holds all that the pass had
        release()
        warnings.warn(f"out of memory; going on in passes of {most:,} tokens", stacklevel=2)


def _tokens(batches: Batches) -> int:
    """Padded tokens of a pass."""
    return len(batches) * max(len(batch) for _, batch in batches) * max(_width(batch) for _, batch in batches)


def _pass(loaded: LoadedBase, stack: Stack, layout: Layout, batches: Batches) -> list[tuple[float, Tensor]]:
    """One forward and backward pass over a batch of every run → each run's mean loss per token and gradient."""
    read = _encoder_decoder_nll if loaded.base.is_encoder_decoder else _causal_nll
    scales = torch.tensor([trainer.adapter.scale for trainer, _ in batches], device=loaded.device)
    stacked = layout.stack(torch.stack([trainer.flat for trainer, _ in batches]), scales, stack.dtype)
    for weights in chain.from_iterable(stacked):
        weights.requires_grad_()
    rates = [trainer.adapter.dropout for trainer, _ in batches]
    seeds = [(trainer.run.seed, len(trainer.run.losses)) for trainer, _ in batches]
    dropout = Dropout(seeds, rates, len(stack.layers), loaded.device) if any(rates) else None
    with stack.using(stacked, dropout):
        per_run = read(loaded, [batch for _, batch in batches])
    losses = torch.stack([nll.mean() for nll in per_run])
    losses.sum().backward()
    return list(zip(losses.tolist(), layout.gradient(stacked, scales), strict=True))


def _causal_nll(loaded: LoadedBase, batches: Sequence[list[Row]]) -> Sequence[Tensor]:
    """A causal base's negative log-likelihood of every token but the first of each sentence, run by run."""
    rows = max(map(len, batches))
    width = max(map(_width, batches))
    ids = torch.zeros(len(batches), rows, width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    for group, batch in enumerate(batches):
        for row, sentences in enumerate(batch):
            tokens = [token for sentence in sentences for token in sentence]
            ids[group, row, : len(tokens)] = torch.tensor(tokens)
            positions[group, row, : len(tokens)] = torch.cat([torch.arange(len(s)) for s in sentences])
    is_packed = any(len(row) > 1 for batch in batches for row in batch)
    positions_argument = {"position_ids": positions.flatten(0, 1).to(loaded.device)} if is_packed else {}
    # Where positions begin again, transformers sees another sentence. Padding is on the right and attention
    # looks left, so no sentence sees it.
    hidden: Tensor = loaded.model.base_model(
        input_ids=ids.flatten(0, 1).to(loaded.device), use_cache=False, **positions_argument
    ).last_hidden_state
    return _nll_of_labels(loaded, hidden, ids, positions > 0, 1)


def _nll_of_labels(loaded: LoadedBase, hidden: Tensor, ids: Tensor, is_label: Tensor, back: int) -> Sequence[Tensor]:
    """The negative log-likelihoods of the tokens that are labels (ids and is_label [runs, rows, tokens], on the host,
    since a device would have to be waited for), run by run; what predicts them lies `back` places before."""
    labels = is_label.flatten().nonzero()[:, 0]
    states = hidden.flatten(0, 1)[(labels - back).to(hidden.device)]
    nll = loaded.lm_head.nll(states, ids.flatten()[labels].to(hidden.device))
    parts: Sequence[Tensor] = nll.split(is_label.sum((1, 2)).tolist())
    return parts


def _encoder_decoder_nll(loaded: LoadedBase, batches: Sequence[list[Row]]) -> Sequence[Tensor]:
    """An encoder-decoder's negative log-likelihood of every target token, run by run."""
    rows = max(map(len, batches))
    widths = [max(len(row[side]) for batch in batches for row in batch) for side in (0, 1)]
    start, none = loaded.model.config.decoder_start_token_id, -1
    sources, targets = (torch.full((len(batches), rows, width), none) for width in widths)
    for group, batch in enumerate(batches):
        for row, (source, target) in enumerate(batch):
            sources[group, row, : len(source)] = torch.tensor(source)
            targets[group, row, : len(target)] = torch.tensor(target)
    mask = (sources != none).long().flatten(0, 1)
    mask[:, 0] = 1  # a row that only pads its run reads something, and not nothing, which is NaN
    before = torch.cat([targets.new_full((*targets.shape[:2], 1), start), targets[..., :-1]], -1)
    source_ids, target_ids = (ids.clamp(min=0).flatten(0, 1).to(loaded.device) for ids in (sources, before))
    mask = mask.to(loaded.device)
    model: Any = loaded.model
    states = model.encoder(input_ids=source_ids, attention_mask=mask).last_hidden_state
    hidden: Tensor = model.decoder(
        input_ids=target_ids, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return _nll_of_labels(loaded, hidden, targets, targets != none, 0)
