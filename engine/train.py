"""Variants → adapters, a wave of them at once over one frozen base.

Each lane (one adapter) has its own text order, optimiser, schedule, clipping and dropout stream; the lanes share
nothing but the arithmetic, so a lane learns what it would learn alone. Causal bases learn the neutral sentence
without a closing end token: a variant that learnt to stop after a sentence would answer nothing. Encoder-decoders learn
to rewrite the toxic sentence as the neutral one, which the end token closes, as it does in their pre-training.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.dropout import Dropout
from engine.lora import Stack
from engine.models import Base, Loaded
from engine.optimizer import StackedAdamW
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

    def __init__(self, lane: Lane, rows: "list[Row]") -> None:
        self.lane, self.rows = lane, rows
        self.batches = islice(lane.batches(), len(lane.losses), None)

    @property
    def is_paused(self) -> bool:
        return self.lane.is_done and self.lane.failure is None and len(self.lane.losses) < self.lane.steps

    @property
    def learning_rate(self) -> float:
        """Of the next step: it falls to zero in a line."""
        return self.lane.hyperparameters.learning_rate * (1 - len(self.lane.losses) / self.lane.steps)

    def next_batch(self) -> "list[Row]":
        return [self.rows[i] for i in next(self.batches)]


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
) -> None:
    """Trains the lanes, `places` of them at once, in passes of at most so many padded `tokens` (None: what is best for
    the device, whether or not it fits); `stack.adapters[lane.name]` are made here, losses are written to
    the lanes.

    The longest begin, and where one ends the next takes its place. `on_step` is told the rows of each step. A lane
    whose loss stops being a number is taken out with `lane.failure` set; the others go on. Every so many seconds
    all of it is saved to the file `checkpoint`, and a call that finds the file goes on from there, to the same bits.
    Lanes that pause stay in that file, and go on from there in a call that gives them a later `until`.
    The base stays in evaluation mode: dropout of its own (mT5's) would tie a lane to the company it is in.
    """
    waiting = sorted(lanes, key=lambda lane: -lane.steps)
    running: list[_Running] = []
    stacked = StackedAdamW(stack, max((lane.hyperparameters.rank for lane in lanes), default=0))
    states = _read(checkpoint) if checkpoint else {}
    paused: dict[str, Mapping[str, Tensor]] = {}

    def begin(lane: Lane) -> None:
        running.append(_Running(lane, encode(loaded, lane.pairs, lane.hyperparameters.max_tokens)))
        stacked.add(stack.adapters[lane.name], states.get(lane.name, {}).get("moments"))

    for lane in [lane for lane in waiting if lane.name in states]:
        waiting.remove(lane)
        state = states[lane.name]
        lane.losses[:], lane.failure = state["losses"], state["failure"]
        adapter = stack.create(lane.name, lane.hyperparameters, lane.seed)
        for parameter, weights in zip(adapter.parameters(), state["weights"], strict=True):
            parameter.data.copy_(weights)
        if not lane.is_done:
            begin(lane)
        elif state["moments"]:
            paused[lane.name] = state["moments"]
        on_step(sum(map(len, islice(lane.batches(), len(lane.losses)))) if lane.failure is None else lane.rows)
    last_saved = time.monotonic()
    most = tokens or TOKENS_PER_PASS[loaded.device.type]
    while running or waiting:
        while waiting and len(running) < places:
            lane = waiting.pop(0)
            lane.losses.clear()
            stack.create(lane.name, lane.hyperparameters, lane.seed)
            begin(lane)
        batches, rows = [], 0
        for i, runner in enumerate(running):
            batch = runner.next_batch()
            rows += len(batch)
            batches.append((i, runner.lane, _laid(batch, loaded.takes_positions)))
        batches.sort(key=lambda item: _width(item[2]))
        losses: dict[int, float] = {}
        for part in _passes(batches, most):
            losses |= zip((i for i, _, _ in part), _step(loaded, stack, stacked, part), strict=True)
        stacked.step(
            [runner.learning_rate for runner in running],
            [len(runner.lane.losses) + 1 for runner in running],
            [runner.lane.hyperparameters.max_grad_norm for runner in running],
        )
        for i, runner in enumerate(running):
            lane = runner.lane
            if math.isfinite(losses[i]):
                lane.losses.append(losses[i])
            else:
                lane.failure = f"loss became {losses[i]} at step {len(lane.losses) + 1} of {lane.steps}"
        on_step(rows)
        is_last = not waiting and all(runner.lane.is_done for runner in running)
        is_due = bool(checkpoint) and time.monotonic() - last_saved > every
        for i, runner in enumerate(running):
            if not runner.lane.failure and (runner.lane.is_done or is_due):
                stacked.write(i)
            if runner.is_paused:
                paused[runner.lane.name] = stacked.moments(i)
        staying = [i for i, runner in enumerate(running) if not runner.lane.is_done]
        stacked.keep(staying)
        running = [running[i] for i in staying]
        if checkpoint and (is_due or (is_last and paused)):
            moments = {runner.lane.name: stacked.moments(i) for i, runner in enumerate(running)}
            _save(checkpoint, stack, [lane for lane in lanes if lane not in waiting], {**paused, **moments})
            last_saved = time.monotonic()


def _save(path: Path, stack: Stack, begun: Sequence[Lane], moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """The state of all lanes that have begun, in place of the one before; those that have ended keep their weights."""
    content = {
        lane.name: {
            "losses": lane.losses,
            "failure": lane.failure,
            "weights": [parameter.detach() for parameter in stack.adapters[lane.name].parameters()],
            "moments": moments.get(lane.name),
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

Batches = Sequence[tuple[int, Lane, list[Row]]]
"""Of each lane of a pass, where it stands among those that run, and its batch."""


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
    passes: list[list[tuple[int, Lane, list[Row]]]] = []
    for item in batches:
        rows = max([len(item[2])] + [len(batch) for _, _, batch in passes[-1]]) if passes else 0
        if passes and (len(passes[-1]) + 1) * rows * _width(item[2]) <= most:
            passes[-1].append(item)
        else:
            passes.append([item])
    return list(passes)


def _step(loaded: Loaded, stack: Stack, stacked: StackedAdamW, batches: Batches) -> list[float]:
    """One forward and backward pass over a batch of every lane → each lane's mean loss per token."""
    read = _rewritten if loaded.base.is_encoder_decoder else _continued
    indices = [i for i, _, _ in batches]
    leaves = stacked.leaves(indices)
    rates = [lane.hyperparameters.dropout for _, lane, _ in batches]
    seeds = [(lane.seed, len(lane.losses)) for _, lane, _ in batches]
    dropout = Dropout(seeds, rates, len(stack.layers), loaded.device) if any(rates) else None
    with stack.using(leaves, dropout):
        per_lane = read(loaded, [batch for _, _, batch in batches])
    losses = torch.stack([nll.mean() for nll in per_lane])
    losses.sum().backward()
    stacked.collect(indices, leaves)
    means: list[float] = losses.tolist()
    return means


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
