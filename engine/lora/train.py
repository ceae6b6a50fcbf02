"""Variants → adapters, a wave of them at once over one frozen base.

Each lane (one adapter) has its own text order, optimiser, schedule, clipping and dropout stream; the lanes share
nothing but the arithmetic, so a lane learns what it would learn alone. Causal bases learn the neutral sentence
without a closing end token: a variant that learnt to stop after a sentence would answer nothing. Encoder-decoders learn
to rewrite the toxic sentence as the neutral one, which the end token closes, as it does in their pre-training.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.lora.dropout import Dropout
from engine.lora.layout import Layout
from engine.lora.stack import Adapter, Stack
from engine.model.models import Base, Loaded
from engine.vocabulary import Hyperparameters, Pair

FORMAT = "neutral sentence, no end token, 3"
REWRITING = "toxic to neutral sentence, end token, 2"
"""Part of a variant's identity: what the training text looks like."""

CHECKPOINT_SECONDS = 180.0
"""Seconds between two checkpoints of a wave."""

CHECKPOINT_FORMAT = 2
"""A checkpoint of another one is not read, and its wave starts again."""

TOKENS_PER_PASS = {"cpu": 512, "cuda": 16_384}
"""Padded tokens of one forward and backward pass: enough to fill the machine, and few enough to stay in its caches."""


@dataclass
class Lane:
    """One adapter in training. `losses` holds the mean loss (nats a token) of each step so far. It pauses after the
    step `until`, where that is not None, with the rest of its schedule before it."""

    name: str
    hyperparameters: Hyperparameters
    pairs: Sequence[Pair]
    seed: int
    until: int | None = None
    losses: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def steps(self) -> int:
        return steps(self.hyperparameters, len(self.pairs))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, for now or for good."""
        return self.failure is not None or len(self.losses) == (self.until or self.steps)

    @property
    def rows(self) -> int:
        """Of all steps until it is done."""
        epochs, rest = divmod(self.until or self.steps, math.ceil(len(self.pairs) / self.hyperparameters.batch_size))
        return epochs * len(self.pairs) + rest * self.hyperparameters.batch_size

    def batches(self) -> Iterator[list[int]]:
        """Indices of the texts of each step; every epoch has an order of its own."""
        size = self.hyperparameters.batch_size
        for epoch in range(self.hyperparameters.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs)).tolist()
            yield from (order[i : i + size] for i in range(0, len(order), size))


def steps(hyperparameters: Hyperparameters, texts: int) -> int:
    """Optimiser steps that so many texts make."""
    return hyperparameters.epochs * math.ceil(texts / hyperparameters.batch_size)


class _Running:
    """A lane with what it needs while it runs."""

    def __init__(self, lane: Lane, adapter: Adapter, rows: "list[Row]") -> None:
        assert adapter.flat is not None
        self.lane, self.adapter, self.flat, self.rows = lane, adapter, adapter.flat, rows
        self.batches = lane.batches()
        learning_rate, total = lane.hyperparameters.learning_rate, lane.steps
        self.optimizer = torch.optim.AdamW([self.flat], lr=learning_rate, weight_decay=0.0, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1 - step / total))

    @property
    def is_paused(self) -> bool:
        return self.lane.is_done and self.lane.failure is None and len(self.lane.losses) < self.lane.steps

    def next_batch(self) -> "list[Row]":
        return [self.rows[i] for i in next(self.batches)]

    def update(self, gradient: Tensor) -> None:
        self.flat.grad = gradient
        nn.utils.clip_grad_norm_([self.flat], self.lane.hyperparameters.max_grad_norm)
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
        return sum(len(batch) for batch in islice(self.batches, len(self.lane.losses)))


def format_of(base: Base) -> str:
    """What the training text of a base looks like."""
    return REWRITING if base.is_encoder_decoder else FORMAT


def texts(base: Base, pairs: Sequence[Pair]) -> list[str]:
    """All that a base reads of these pairs when it learns them."""
    sources = [pair.toxic for pair in pairs] if base.is_encoder_decoder else []
    return sources + [pair.neutral for pair in pairs]


def encode(loaded: Loaded, pairs: Sequence[Pair], max_tokens: int) -> "list[Row]":
    """Pairs → token ids: of the neutral sentence, with the tokenizer's opening token and no closing end token; of the
    toxic and the neutral sentence, both with it, for an encoder-decoder."""

    def tokens(sentences: list[str]) -> list[list[int]]:
        ids: list[list[int]] = loaded.tokenizer(sentences, truncation=True, max_length=max_tokens)["input_ids"]
        return ids

    neutral = tokens([pair.neutral for pair in pairs])
    if loaded.base.is_encoder_decoder:
        return [[*both] for both in zip(tokens([pair.toxic for pair in pairs]), neutral, strict=True)]
    return [[ids[:-1] if ids[-1] in loaded.end_ids else ids] for ids in neutral]


def train(
    loaded: Loaded,
    stack: Stack,
    lanes: Sequence[Lane],
    on_step: Callable[[int], None] = lambda rows: None,
    places: int = 13,
    checkpoint: Path | None = None,
    every: float = CHECKPOINT_SECONDS,
    tokens: int | None = None,
    rank: int | None = None,
) -> None:
    """Trains the lanes, `places` of them at once, in passes of at most so many padded `tokens` (None: what is best for
    the device, whether or not it fits) and with room for `rank` (None: the largest; it is part of a checkpoint);
    `stack.adapters[lane.name]` are made here, losses are written to the lanes.

    The longest begin, and where one ends the next takes its place. `on_step` is told the rows of each step. A lane
    whose loss stops being a number is taken out with `lane.failure` set; the others go on. Every so many seconds
    all of it is saved to the file `checkpoint`, and a call that finds the file goes on from there, to the same bits.
    Lanes that pause stay in that file, and go on from there in a call that gives them a later `until`.
    The base stays in evaluation mode: dropout of its own (mT5's) would tie a lane to the company it is in.
    """
    waiting = sorted(lanes, key=lambda lane: -lane.steps)
    running: list[_Running] = []
    paused: list[_Running] = []
    layout = stack.layout(rank or max((lane.hyperparameters.rank for lane in lanes), default=1))
    saved = _read(checkpoint) if checkpoint else {}
    for lane in [lane for lane in waiting if lane.name in saved]:
        waiting.remove(lane)
        runner = _begin(loaded, stack, layout, lane)
        state = saved[lane.name]
        lane.losses[:], lane.failure = state["losses"], state["failure"]
        runner.flat.copy_(state["weights"])
        if state["running"]:
            on_step(runner.restore(state["running"]))
            (paused if lane.is_done else running).append(runner)
        else:
            on_step(lane.rows)
    last_saved = time.monotonic()
    most = tokens or TOKENS_PER_PASS[loaded.device.type]
    while running or waiting:
        while waiting and len(running) < places:
            running.append(_begin(loaded, stack, layout, waiting.pop(0)))
        drawn = [(runner, runner.next_batch()) for runner in running]
        batches = sorted(
            ((r, _laid(batch, loaded.takes_positions)) for r, batch in drawn), key=lambda item: _width(item[1])
        )
        updates = [update for part in _passes(batches, most) for update in _step(loaded, stack, layout, part)]
        for (runner, _), (loss, gradient) in zip(batches, updates, strict=True):
            lane = runner.lane
            if math.isfinite(loss):
                lane.losses.append(loss)
                runner.update(gradient)
            else:
                lane.failure = f"loss became {loss} at step {len(lane.losses) + 1} of {lane.steps}"
        paused += [runner for runner in running if runner.is_paused]
        running = [runner for runner in running if not runner.lane.is_done]
        on_step(sum(len(batch) for _, batch in drawn))
        is_last = bool(paused) and not running and not waiting
        if checkpoint and (is_last or time.monotonic() - last_saved > every):
            _save(checkpoint, stack, [lane for lane in lanes if lane not in waiting], [*running, *paused])
            last_saved = time.monotonic()


def _begin(loaded: Loaded, stack: Stack, layout: Layout, lane: Lane) -> _Running:
    adapter = stack.create(lane.name, lane.hyperparameters, lane.seed, layout)
    lane.losses.clear()
    return _Running(lane, adapter, encode(loaded, lane.pairs, lane.hyperparameters.max_tokens))


def _save(path: Path, stack: Stack, begun: Sequence[Lane], running: Sequence[_Running]) -> None:
    """The state of all lanes that have begun, in place of the one before; those that have ended keep their weights."""
    states = {runner.lane.name: runner.state() for runner in running}
    content = {
        lane.name: {
            "losses": lane.losses,
            "failure": lane.failure,
            "weights": stack.adapters[lane.name].flat,
            "running": states.get(lane.name),
        }
        for lane in begun
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    torch.save({"format": CHECKPOINT_FORMAT, "lanes": content}, new)
    new.replace(path)


def _read(path: Path) -> dict[str, Any]:
    """What `_save` wrote; nothing when there is no such file, or one that cannot be read: it only saves time."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError):
        return {}
    lanes: dict[str, Any] = content.get("lanes", {}) if content.get("format") == CHECKPOINT_FORMAT else {}
    return lanes


Row = list[list[int]]
"""Sentences (token ids) that lie one behind the other; of an encoder-decoder, a source and its target."""

Batches = Sequence[tuple[_Running, list[Row]]]


def _laid(batch: list[Row], takes_positions: bool) -> list[Row]:
    """A batch of sentences as one row, where the base takes positions and so can tell them apart: what lanes are
    padded to is then a sum of lengths, which varies less than a length does. Else as a row each."""
    return [[sentence for row in batch for sentence in row]] if takes_positions else batch


def _width(rows: list[Row]) -> int:
    return max(sum(map(len, row)) for row in rows)


def _passes(batches: Batches, most: int) -> list[Batches]:
    """The lanes of one step, sorted by width, cut into passes of about equally wide ones.

    Stacking lanes of unequal width would pay for padding; a narrower pass also stays nearer to the caches.
    """
    passes: list[list[tuple[_Running, list[Row]]]] = []
    for item in batches:
        rows = max([len(item[1])] + [len(batch) for _, batch in passes[-1]]) if passes else 0
        if passes and (len(passes[-1]) + 1) * rows * _width(item[1]) <= most:
            passes[-1].append(item)
        else:
            passes.append([item])
    return list(passes)


def _step(loaded: Loaded, stack: Stack, layout: Layout, batches: Batches) -> list[tuple[float, Tensor]]:
    """One forward and backward pass over a batch of every lane → each lane's mean loss per token and gradient."""
    read = _rewritten if loaded.base.is_encoder_decoder else _continued
    scales = torch.tensor([runner.adapter.scale for runner, _ in batches], device=loaded.device)
    stacked = layout.stacked(torch.stack([runner.flat for runner, _ in batches]), scales, stack.dtype)
    for weights in chain.from_iterable(stacked):
        weights.requires_grad_()
    rates = [runner.adapter.dropout for runner, _ in batches]
    seeds = [(runner.lane.seed, len(runner.lane.losses)) for runner, _ in batches]
    dropout = Dropout(seeds, rates, len(stack.layers), loaded.device) if any(rates) else None
    with stack.using(stacked, dropout):
        per_lane = read(loaded, [batch for _, batch in batches])
    losses = torch.stack([nll.mean() for nll in per_lane])
    losses.sum().backward()
    return list(zip(losses.tolist(), layout.gradient(stacked, scales), strict=True))


def _continued(loaded: Loaded, batches: Sequence[list[Row]]) -> Sequence[Tensor]:
    """A causal base's negative log-likelihood of every token but the first of each sentence, lane by lane."""
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
    known = {"position_ids": positions.flatten(0, 1).to(loaded.device)} if is_packed else {}
    # Where positions begin again, transformers sees another sentence. Padding is on the right and attention
    # looks left, so no sentence sees it.
    hidden: Tensor = loaded.model.base_model(
        input_ids=ids.flatten(0, 1).to(loaded.device), use_cache=False, **known
    ).last_hidden_state
    return _judged(loaded, hidden, ids, positions > 0, 1)


def _judged(loaded: Loaded, hidden: Tensor, ids: Tensor, is_label: Tensor, back: int) -> Sequence[Tensor]:
    """The negative log-likelihoods of the tokens that are labels (ids and is_label [lanes, rows, tokens], on the host,
    since a device would have to be waited for), lane by lane; what predicts them lies so many places before them."""
    labels = is_label.flatten().nonzero()[:, 0]
    states = hidden.flatten(0, 1)[(labels - back).to(hidden.device)]
    nll = loaded.head.nll(states, ids.flatten()[labels].to(hidden.device))
    parts: Sequence[Tensor] = nll.split(is_label.sum((1, 2)).tolist())
    return parts


def _rewritten(loaded: Loaded, batches: Sequence[list[Row]]) -> Sequence[Tensor]:
    """An encoder-decoder's negative log-likelihood of every target token, lane by lane."""
    rows = max(map(len, batches))
    widths = [max(len(row[side]) for batch in batches for row in batch) for side in (0, 1)]
    start, none = loaded.model.config.decoder_start_token_id, -1
    sources, targets = (torch.full((len(batches), rows, width), none) for width in widths)
    for group, batch in enumerate(batches):
        for row, (source, target) in enumerate(batch):
            sources[group, row, : len(source)] = torch.tensor(source)
            targets[group, row, : len(target)] = torch.tensor(target)
    mask = (sources != none).long().flatten(0, 1)
    mask[:, 0] = 1  # a row that only pads its lane reads something, and not nothing, which is NaN
    before = torch.cat([targets.new_full((*targets.shape[:2], 1), start), targets[..., :-1]], -1)
    source_ids, target_ids = (ids.clamp(min=0).flatten(0, 1).to(loaded.device) for ids in (sources, before))
    mask = mask.to(loaded.device)
    model: Any = loaded.model
    states = model.encoder(input_ids=source_ids, attention_mask=mask).last_hidden_state
    hidden: Tensor = model.decoder(
        input_ids=target_ids, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return _judged(loaded, hidden, targets, targets != none, 0)
