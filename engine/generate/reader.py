"""A base with a preallocated KV cache: chunked prefill, then decoding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from engine.model.loading import LoadedBase

ROOM = 64
"""Tokens that fit behind what was read before the cache is copied to a larger place."""


class Reader:
    """Rows that are read together: they are as long as the longest, and padded on the left."""

    reads_in_pieces = True
    """Whether what all rows begin with may be read once for them."""

    def __init__(self, loaded: LoadedBase) -> None:
        self.model: Any = loaded.model.base_model
        self.cache = Cache(layer_class_to_replicate=_RoomyLayer)
        self.mask = torch.empty(0)
        self.takes_positions = loaded.takes_positions

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token ids [n, t] and their mask (None: all real) → hidden states [n, t, d]; the cache grows by t."""
        self._grow(ids, mask)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        positions_argument = {"position_ids": positions} if self.takes_positions else {}
        hidden: Tensor = self.model(
            input_ids=ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **positions_argument
        ).last_hidden_state
        return hidden

    def select(self, rows: Tensor) -> None:
        """Makes the cache that of `rows`, an index into the rows so far, which may repeat; padding that all of them
        have goes."""
        self.mask = _select_rows(self.cache, self.mask, rows)

    def join(self, other: "Reader") -> None:
        """Takes the rows of another reader behind its own."""
        self.mask = _join_caches(self.cache, self.mask, other.cache, other.mask)

    def _grow(self, ids: Tensor, mask: Tensor | None) -> None:
        mask = torch.ones_like(ids) if mask is None else mask
        self.mask = torch.cat([self.mask, mask], 1) if self.mask.numel() else mask


class EncoderDecoderReader(Reader):
    """The first reading is that of the sources, by the encoder; the decoder then reads its start token, and every later
    piece."""

    reads_in_pieces = False

    def __init__(self, loaded: LoadedBase) -> None:
        super().__init__(loaded)
        self.model = loaded.model
        self.sources = Cache(layer_class_to_replicate=_RoomyLayer)
        self.both = EncoderDecoderCache(self.cache, self.sources)
        self.source_mask = torch.empty(0)

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.source_mask.numel():
            self.source_mask = torch.ones_like(ids) if mask is None else mask
            states = self.model.encoder(input_ids=ids, attention_mask=self.source_mask).last_hidden_state
            ids, mask = ids.new_full((len(ids), 1), self.model.config.decoder_start_token_id), None
        else:  # their keys and values are in the cache: only the shape is asked for
            width = self.model.config.hidden_size
            states = self.model.shared.weight.new_zeros(()).expand(*self.source_mask.shape, width)
        self._grow(ids, mask)
        hidden: Tensor = self.model.decoder(
            input_ids=ids,
            attention_mask=self.mask,
            encoder_hidden_states=states,
            encoder_attention_mask=self.source_mask,
            past_key_values=self.both,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.source_mask = _select_rows(self.sources, self.source_mask, rows)

    def join(self, other: Reader) -> None:
        assert isinstance(other, EncoderDecoderReader)
        super().join(other)
        self.source_mask = _join_caches(self.sources, self.source_mask, other.sources, other.source_mask)


def open_reader(loaded: LoadedBase) -> Reader:
    """A reader of the kind that the base needs."""
    return EncoderDecoderReader(loaded) if loaded.base.is_encoder_decoder else Reader(loaded)


def _select_rows(cache: Cache, mask: Tensor, rows: Tensor) -> Tensor:
    """Makes a cache that of `rows`, without the padding that all of them have; their mask."""
    mask = mask[rows]
    padding = int(mask.any(0).int().argmax())
    for layer in _layers(cache):
        layer.hold(layer.keys[rows, :, padding:], layer.values[rows, :, padding:])
    return mask[:, padding:]


def _join_caches(cache: Cache, mask: Tensor, other: Cache, other_mask: Tensor) -> Tensor:
    """Puts the rows of another cache behind those of the first; the mask of both."""
    width = max(mask.shape[1], other_mask.shape[1])
    for layer, new in zip(_layers(cache), _layers(other), strict=True):
        both = [(layer.keys, new.keys), (layer.values, new.values)]
        layer.hold(*(torch.cat([_pad_front(a, width, -2), _pad_front(b, width, -2)]) for a, b in both))
    return torch.cat([_pad_front(mask, width), _pad_front(other_mask, width)])


def _layers(cache: Cache) -> "list[_RoomyLayer]":
    return cache.layers  # type: ignore[return-value]


class _RoomyLayer(DynamicLayer):
    """Keys and values [n, h, t, d] as the beginning of larger buffers, so that a token more copies nothing.

    Layers of a sliding window keep all of it too; transformers' mask hides what is too far away.
    """

    keys: Any
    values: Any
    buffers: Sequence[Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.hold(key_states[:, :, :0], value_states[:, :, :0])
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        if self.buffers[0].shape[2] < end:
            self.buffers = [_with_room(tensor, end + ROOM) for tensor in (self.keys, self.values)]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = new
        self.keys, self.values = [buffer[:, :, :end] for buffer in self.buffers]
        return self.keys, self.values

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Forgets what was held, for these."""
        self.keys, self.values = keys, values
        self.buffers = [keys, values]


def _with_room(tensor: Tensor, tokens: int) -> Tensor:
    n, heads, width, size = tensor.shape
    buffer = tensor.new_empty(n, heads, tokens, size)
    buffer[:, :, :width] = tensor
    return buffer


def _pad_front(tensor: Tensor, width: int, axis: int = -1) -> Tensor:
    """Zeros before a tensor, up to `width` along an axis."""
    shape = list(tensor.shape)
    shape[axis] = width - shape[axis]
    return torch.cat([tensor.new_zeros(shape), tensor], axis)


def left_padded(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of rows of any length → ids [n, t] and mask [n, t], padded on the left with 0."""
    width = max(map(len, tokens))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in tokens], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
    return ids, mask


def right_padded(tokens: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token ids of rows of any length → ids [n, t], padded on the right with 0."""
    width = max(map(len, tokens))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in tokens], device=device)


def equal_groups(rows_of: dict[str | None, list[int]]) -> dict[str | None, list[int]]:
    """Groups that have any rows, made equally large: one that has fewer repeats its last."""
    most = max(map(len, rows_of.values()), default=0)
    return {name: rows + rows[-1:] * (most - len(rows)) for name, rows in rows_of.items() if rows}


def by_adapter(names: Sequence[str | None], lengths: Sequence[int]) -> dict[str | None, list[int]]:
    """The rows of each adapter, from short to long."""
    rows_of: dict[str | None, list[int]] = {name: [] for name in names}
    for row in sorted(range(len(names)), key=lambda row: lengths[row]):
        rows_of[names[row]].append(row)
    return rows_of
