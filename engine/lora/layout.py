"""Stores an adapter as one flat tensor, so that stacking adapters and splitting gradients takes a few operators per
kind of layer, not per layer.

Layers are of one kind when they have the same inputs and outputs. Of each kind there lie, one behind the other, A of
all its layers [layers, d, paths, rank], then, path by path, B [layers, rank, o].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

Stacked = tuple[Tensor, Tensor]
"""Adapters of the paths that share an input: A [G, d, paths · rank], and B [G, paths · rank, o], all outputs beside
each other. B is zero where one path's rank meets another's output, so that one product serves all paths."""

Paths = tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """Where a part of the tensor begins, and its shape."""

    begin: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.begin + prod(self.shape)

    def view(self, rows: Tensor) -> Tensor:
        """rows [..., size] → [..., *shape]."""
        return rows[..., self.begin : self.end].view(*rows.shape[:-1], *self.shape)


@dataclass(frozen=True)
class _Kind:
    """The layers of a kind, and where their A is and the B of each path."""

    layers: tuple[Paths, ...]
    a: _Part
    b: tuple[_Part, ...]


class Layout:
    """Where what lies, in adapters with room for `rank`."""

    def __init__(self, layers: Sequence[tuple[Paths, int, tuple[int, ...]]], rank: int) -> None:
        """layers: paths, inputs, and the outputs of each path; as many as `stack` gives, in that order."""
        self.layers, self.rank, self.size = [paths for paths, _, _ in layers], rank, 0
        self.kinds: list[_Kind] = []
        for inputs, outputs in dict.fromkeys((inputs, outputs) for _, inputs, outputs in layers):
            alike = tuple(paths for paths, *shape in layers if shape == [inputs, outputs])
            a = self._part(len(alike), inputs, len(outputs), rank)
            self.kinds.append(_Kind(alike, a, tuple(self._part(len(alike), rank, o) for o in outputs)))

    def _part(self, *shape: int) -> _Part:
        part = _Part(self.size, shape)
        self.size = part.end
        return part

    def weights(self, flat: Tensor, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Views of an adapter [size] of this rank as PEFT has them: path → (A [rank, d], B [o, rank])."""
        return {
            path: (kind.a.view(flat)[layer, :, i, :rank].T, kind.b[i].view(flat)[layer, :rank].T)
            for kind in self.kinds
            for layer, paths in enumerate(kind.layers)
            for i, path in enumerate(paths)
        }

    def stack(self, flat: Tensor, scales: Tensor, dtype: torch.dtype) -> list[Stacked]:
        """Adapters [G, size], and α / r of each [G], which goes into B → what the layers compute with."""
        stacked: dict[Paths, Stacked] = {}
        for kind in self.kinds:
            a = kind.a.view(flat).flatten(3).to(dtype)
            b = a.new_zeros(*a.shape[:2], a.shape[3], sum(part.shape[2] for part in kind.b))
            for block, part in self._blocks(b, kind):
                block.copy_(part.view(flat) * scales[:, None, None, None])
            for layer, paths in enumerate(kind.layers):
                stacked[paths] = (a[:, layer], b[:, layer])
        return [stacked[paths] for paths in self.layers]

    def gradient(self, stacked: Sequence[Stacked], scales: Tensor, gradient: Tensor) -> None:
        """Fills those of the adapters [G, size], in float32, with the gradients that what `stack` gave has got."""
        grads = {paths: (a.grad, b.grad) for paths, (a, b) in zip(self.layers, stacked, strict=True)}
        for kind in self.kinds:
            a, b = (torch.stack(list(of_layers), 1) for of_layers in zip(*map(grads.get, kind.layers), strict=True))
            kind.a.view(gradient).copy_(a.view(*a.shape[:3], *kind.a.shape[2:]))
            for block, part in self._blocks(b, kind):
                torch.mul(block, scales[:, None, None, None], out=part.view(gradient))

    def _blocks(self, b: Tensor, kind: _Kind) -> Iterator[tuple[Tensor, _Part]]:
        """What each path has of B [..., paths · rank, o], and where that lies."""
        outputs = 0
        for rows, part in zip(b.split(self.rank, -2), kind.b, strict=True):
            width = part.shape[2]
            yield rows[..., outputs : outputs + width], part
            outputs += width
