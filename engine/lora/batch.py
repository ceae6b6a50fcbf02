"""The sentences of one pass as tensors, in the form that the base reads: `Flat`, `Padded` or `Rewriting`.

Each form makes tensors on the host, where counting costs no wait for the device; and computes hidden states [places, d]
from them on the device, in shapes that depend on theirs alone. Of these states `at` predict `labels`.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.model import attention
from engine.model.loading import LoadedBase

Row = list[list[int]]
"""A sentence's token ids; of an encoder-decoder, those of a source and its target."""

Tensors = dict[str, Tensor]

Rounding = Callable[[int], int]
"""A length → the one that it is padded to."""


class Form(Protocol):
    """How a base reads sentences."""

    @staticmethod
    def tokens(batches: Sequence[list[Row]]) -> int:
        """What a pass over one batch a run takes, with the padding."""

    @staticmethod
    def tensors(batches: Sequence[list[Row]], rounded: Rounding) -> Tensors:
        """One batch a run → what `states` reads, and what its loss is made of: see `_labels`."""

    @staticmethod
    def states(loaded: LoadedBase, tensors: Tensors) -> Tensor:
        """Hidden states [places, d]."""


class Flat:
    """All sentences one behind the other in one row, without padding; our attention keeps them apart."""

    @staticmethod
    def tokens(batches: Sequence[list[Row]]) -> int:
        return sum(len(sentence) for batch in batches for (sentence,) in batch)

    @staticmethod
    def tensors(batches: Sequence[list[Row]], rounded: Rounding) -> Tensors:
        sentences = [sentence for batch in batches for (sentence,) in batch]
        sizes = [len(sentence) for sentence in sentences]
        begins = [0, *accumulate(sizes)]
        total, width = rounded(begins[-1]), rounded(max(sizes))
        ids, positions = (torch.zeros(total, dtype=torch.long) for _ in range(2))
        ids[: begins[-1]] = torch.tensor([*chain.from_iterable(sentences)])
        positions[: begins[-1]] = torch.cat([torch.arange(size) for size in sizes])
        # Attention sees a row a sentence, which repeats its last token; where each token is in those rows.
        begin, end = torch.tensor(begins[:-1])[:, None], torch.tensor(begins[1:])[:, None]
        slots = torch.minimum(begin + torch.arange(width), end - 1)
        is_token = torch.arange(width) < torch.tensor(sizes)[:, None]
        inverse = torch.zeros(total, dtype=torch.long)
        inverse[: begins[-1]] = is_token.flatten().nonzero()[:, 0]
        # The run of each token (padding has none), and its place among those of its run.
        of_run = torch.tensor([sum(len(sentence) for (sentence,) in batch) for batch in batches])
        runs = torch.full((total,), len(batches))
        runs[: begins[-1]] = torch.arange(len(batches)).repeat_interleave(of_run)
        places = torch.zeros(total, dtype=torch.int32)
        places[: begins[-1]] = torch.cat([torch.arange(n) for n in of_run.tolist()])
        labels, room = (positions > 0).nonzero()[:, 0], max(1, total - len(sentences))
        return {
            "ids": ids, "positions": positions, "slots": slots, "is_token": is_token, "inverse": inverse, "runs": runs,
            "places": places, **_labels(ids, labels, labels - 1, runs[labels], room, len(batches)),
        }  # fmt: skip

    @staticmethod
    def states(loaded: LoadedBase, tensors: Tensors) -> Tensor:
        with attention.apart(tensors["slots"], tensors["is_token"], tensors["inverse"]) as mask:
            hidden: Tensor = loaded.model.base_model(
                input_ids=tensors["ids"][None],
                position_ids=tensors["positions"][None],
                attention_mask=mask,
                use_cache=False,
            ).last_hidden_state
        return hidden[0]


class Padded:
    """A row a sentence, padded on the right: attention looks left, so no sentence sees its padding."""

    @staticmethod
    def tokens(batches: Sequence[list[Row]]) -> int:
        return len(batches) * max(map(len, batches)) * _width(batches, 0)

    @staticmethod
    def tensors(batches: Sequence[list[Row]], rounded: Rounding) -> Tensors:
        ids = _rows(batches, 0, rounded, 0)
        labels = (_rows(batches, 0, rounded, -1) >= 0).flatten()
        labels[:: ids.shape[-1]] = False  # nothing predicts a sentence's first token
        return {"ids": ids, **_row_labels(ids, labels, 1, rounded)}

    @staticmethod
    def states(loaded: LoadedBase, tensors: Tensors) -> Tensor:
        hidden: Tensor = loaded.model.base_model(
            input_ids=tensors["ids"].flatten(0, 1), use_cache=False
        ).last_hidden_state
        return hidden.flatten(0, 1)


class Rewriting:
    """An encoder-decoder's sources, padded on the right, and their targets, of which every token is a label."""

    @staticmethod
    def tokens(batches: Sequence[list[Row]]) -> int:
        return len(batches) * max(map(len, batches)) * max(_width(batches, 0), _width(batches, 1))

    @staticmethod
    def tensors(batches: Sequence[list[Row]], rounded: Rounding) -> Tensors:
        sources, targets = (_rows(batches, side, rounded, -1) for side in (0, 1))
        mask = (sources >= 0).long()
        mask[..., 0] = 1  # a row that only pads its run reads something, and not nothing, which is NaN
        labels = _row_labels(targets.clamp(min=0), (targets >= 0).flatten(), 0, rounded)
        return {"sources": sources.clamp(min=0), "mask": mask, "targets": targets.clamp(min=0), **labels}

    @staticmethod
    def states(loaded: LoadedBase, tensors: Tensors) -> Tensor:
        model: Any = loaded.model
        sources, mask, targets = (tensors[name].flatten(0, 1) for name in ("sources", "mask", "targets"))
        start = targets.new_full((len(targets), 1), model.config.decoder_start_token_id)
        states = model.encoder(input_ids=sources, attention_mask=mask).last_hidden_state
        hidden: Tensor = model.decoder(
            input_ids=torch.cat([start, targets[:, :-1]], 1),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return hidden.flatten(0, 1)


def form_of(loaded: LoadedBase) -> type[Form]:
    """The form in which a base reads."""
    if loaded.base.is_encoder_decoder:
        return Rewriting
    return Flat if loaded.base.facts.packs and attention.is_ours(loaded.model) else Padded


def eighths(length: int) -> int:
    """A length → the next that is a multiple of an eighth of a power of two: few lengths, and little padding."""
    step = 1 << max(3, length.bit_length() - 4)
    return -(-length // step) * step


def _width(batches: Sequence[list[Row]], side: int) -> int:
    return max(len(row[side]) for batch in batches for row in batch)


def _rows(batches: Sequence[list[Row]], side: int, rounded: Rounding, padding: int) -> Tensor:
    """Token ids [runs, rows, tokens]."""
    ids = torch.full((len(batches), max(map(len, batches)), rounded(_width(batches, side))), padding)
    for run, batch in enumerate(batches):
        for row, sentences in enumerate(batch):
            ids[run, row, : len(sentences[side])] = torch.tensor(sentences[side])
    return ids


def _row_labels(ids: Tensor, is_label: Tensor, back: int, rounded: Rounding) -> Tensors:
    """The labels among ids [runs, rows, tokens]; what predicts them lies `back` places before."""
    labels, runs = is_label.nonzero()[:, 0], len(ids)
    room = max(1, rounded(len(labels)))
    return _labels(ids.flatten(), labels, labels - back, labels // (ids.numel() // runs), room, runs)


def _labels(ids: Tensor, labels: Tensor, at: Tensor, of_run: Tensor, room: int, runs: int) -> Tensors:
    """Which states predict what: `at` [room] the places of the states, and their `labels` [room], the token ids at
    `labels`; the other way round, `predicts` [places] and `back` [places], the number of the label of each state.
    `shares` [runs, room]: of each label in the mean of its run; what fills the room has none."""
    n = len(labels)
    back = torch.zeros(len(ids), dtype=torch.long)
    back[at] = torch.arange(n)
    predicts = torch.zeros(len(ids), dtype=torch.bool)
    predicts[at] = True
    shares = torch.zeros(runs, room)
    shares[of_run, torch.arange(n)] = 1 / of_run.bincount(minlength=runs)[of_run].float()
    pad = torch.zeros(room - n, dtype=torch.long)
    return {
        "labels": torch.cat([ids[labels], pad]), "at": torch.cat([at, pad]), "back": back, "predicts": predicts,
        "shares": shares,
    }  # fmt: skip
