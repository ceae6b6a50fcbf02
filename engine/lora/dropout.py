"""Dropout masks that depend only on the adapter: its seed, its step, the layer, the token and the column.

Each number is a hash of these, so an adapter meets the same masks whatever it is trained beside, on a CPU and on a
GPU, and a mask need not be kept for the way back. On CUDA one kernel does it (`dropout_cuda`).
"""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

FIRST, SECOND = -2048144789, -1028477387
"""The multipliers of MurmurHash3's finalizer, as signed 32-bit numbers."""

TOKENS = 65_536
"""More than a row has."""


def numbers_of(seeds: Sequence[tuple[int, int]], rates: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Adapters' seeds and steps, and their rates → what `Dropout` takes of each."""
    hashes = [zlib.crc32(f"{seed} {step}".encode()) - 2**31 for seed, step in seeds]
    # A place is kept when its 16 bits, read as a signed number, are not below the threshold.
    thresholds = [round(rate * 65_536) - 32_768 for rate in rates]
    scales = torch.tensor([1 / (1 - rate) for rate in rates])
    return torch.tensor(hashes, dtype=torch.int32), torch.tensor(thresholds, dtype=torch.int32), scales


class Dropout:
    """The masks of one pass over groups of rows, one group an adapter; or of tokens that know their adapter, each a
    group."""

    def __init__(
        self, seeds: Tensor, thresholds: Tensor, scales: Tensor, layers: int, places: Tensor | None = None
    ) -> None:
        """`numbers_of` each group. `places` [groups]: of its one token among those of its adapter, as int32; None where
        groups are of rows."""
        self.seeds, self.thresholds, self.scales = seeds, thresholds, scales
        self.layers, self.places = layers, places
        self.keys: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor, tokens: int, layer: int) -> Tensor:
        """x [groups, rows · tokens, d] with a share of it zero and the rest scaled up."""
        shape = (x.shape[1] // tokens, tokens)
        if shape not in self.keys:
            self.keys[shape] = self._token_keys(*shape)
        y: Tensor = _Dropped.apply(x, self, self.keys[shape][layer])  # type: ignore[no-untyped-call]
        return y

    def _token_keys(self, rows: int, tokens: int) -> Tensor:
        """A number for each token of each layer [layers, groups, rows · tokens]."""
        device = self.seeds.device
        layers = torch.arange(1, self.layers + 1, dtype=torch.int32, device=device)[:, None] * FIRST
        if self.places is None:
            places = torch.arange(rows, dtype=torch.int32, device=device)[:, None] * TOKENS
            places = (places + torch.arange(tokens, dtype=torch.int32, device=device)).flatten()
        else:
            places = self.places[:, None]
        return _mix(_mix(self.seeds + layers)[:, :, None] + places)

    def keep_mask(self, keys: Tensor, columns: int) -> Tensor:
        """What the way back needs besides: which places of the tokens `keys` [groups, n] are kept [groups, n, columns];
        on CUDA the keys, since the kernel works it out again for nothing."""
        if keys.is_cuda:
            return keys
        words = keys[:, :, None] ^ column_keys((columns + 1) // 2, keys.device)  # one 32-bit number serves two columns
        words.mul_(FIRST)
        words.bitwise_xor_(words >> 15).mul_(SECOND)
        return words.view(torch.int16)[..., :columns] >= self.thresholds.to(torch.int16)[:, None, None]

    def apply_mask(self, x: Tensor, kept: Tensor) -> Tensor:
        """x [groups, n, columns] under its mask."""
        if x.is_cuda:
            from engine.lora import dropout_cuda

            columns = column_keys((x.shape[-1] + 1) // 2, x.device)
            return dropout_cuda.apply_mask(x.contiguous(), kept, columns, self.thresholds, self.scales)
        return (x * self.scales.to(x.dtype)[:, None, None]).mul_(kept)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout, keys: Tensor) -> Tensor:
        ctx.dropout, ctx.kept = dropout, dropout.keep_mask(keys, x.shape[-1])
        return dropout.apply_mask(x, ctx.kept)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return ctx.dropout.apply_mask(grad_outputs[0], ctx.kept), None, None


@cache
def column_keys(words: int, device: torch.device) -> Tensor:
    """A number for each pair of columns."""
    return _mix(torch.arange(1, words + 1, dtype=torch.int32, device=device))


def _mix(x: Tensor) -> Tensor:
    """MurmurHash3's finalizer, but with arithmetic shifts."""
    x = (x ^ (x >> 16)) * FIRST
    x = (x ^ (x >> 13)) * SECOND
    return x ^ (x >> 16)
