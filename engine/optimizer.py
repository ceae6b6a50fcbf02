"""AdamW over all adapters in training at once: their weights are the rows of one tensor, so a step is a few operators
however many there are. Each row has its own learning rate, number of steps and clip norm.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from engine.lora import Adapter, Stack, Stacked

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""As torch's AdamW has them. Weight decay is zero."""

WEIGHTS, GRADIENT, MOMENTS = "weights", "gradient", ("mean", "square")


class StackedAdamW:
    """Adapters in training, in float32, with their two moments; `rank` is the largest, smaller ones are padded with
    zeros, which stay zero.

    A row holds A of every layer of the stack, then B of every layer, as `lora.Stacked` has them.
    """

    def __init__(self, stack: Stack, rank: int) -> None:
        self.stack, self.rank = stack, rank
        ranks = [len(layer.paths) * rank for layer in stack.layers]
        of_a = [(stack.shapes[layer.paths[0]][0], r) for layer, r in zip(stack.layers, ranks, strict=True)]
        of_b = [(r, sum(layer.widths)) for layer, r in zip(stack.layers, ranks, strict=True)]
        self.shapes, self.ends = [*of_a, *of_b], [0]
        for inputs, outputs in self.shapes:
            self.ends.append(self.ends[-1] + inputs * outputs)
        self.begin_of_b = self.ends[len(of_a)]
        self.adapters: list[Adapter] = []
        self.rows = {name: self._zeros(0) for name in (WEIGHTS, GRADIENT, *MOMENTS)}
        self.computed = self.rows[WEIGHTS]
        # What an adapter has no weight at learns nothing.
        self.is_weight = self._zeros(1)
        for _, a, b in self._parts(self.is_weight[0], rank):
            a.fill_(1.0)
            b.fill_(1.0)

    def add(self, adapter: Adapter, moments: Mapping[str, Tensor] | None = None) -> None:
        """A row more; it goes on from moments that `moments` gave."""
        new = {name: self._zeros(1) for name in self.rows}
        for path, a, b in self._parts(new[WEIGHTS][0], adapter.rank):
            a.copy_(adapter.weights[path][0].data)
            b.copy_(adapter.weights[path][1].data)
        for name, moment in (moments or {}).items():
            new[name][0] = moment
        self.rows = {name: torch.cat([tensor, new[name]]) for name, tensor in self.rows.items()}
        self.adapters.append(adapter)
        self._compute()

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all but these rows, in this order."""
        if list(rows) != list(range(len(self.adapters))):
            self.rows = {name: tensor[self._index(rows)] for name, tensor in self.rows.items()}
            self.adapters = [self.adapters[row] for row in rows]
            self._compute()

    def write(self, row: int) -> None:
        """Gives the adapter of a row its weights."""
        adapter = self.adapters[row]
        for path, a, b in self._parts(self.rows[WEIGHTS][row], adapter.rank):
            adapter.weights[path][0].data.copy_(a)
            adapter.weights[path][1].data.copy_(b)

    def moments(self, row: int) -> dict[str, Tensor]:
        """A copy of what the next step of a row depends on, but its weights."""
        return {name: self.rows[name][row].clone() for name in MOMENTS}

    def leaves(self, rows: Sequence[int]) -> list[Stacked]:
        """What a pass over these rows computes with, and gets gradients for: the weights in the base's dtype, the
        scale α / r within B."""
        chosen = self.computed.index_select(0, self._index(rows))
        leaves = [
            chosen[:, begin:end].view(len(rows), *shape).detach().requires_grad_()
            for (begin, end), shape in zip(pairwise(self.ends), self.shapes, strict=True)
        ]
        half = len(leaves) // 2
        return list(zip(leaves[:half], leaves[half:], strict=True))

    def collect(self, rows: Sequence[int], leaves: Sequence[Stacked]) -> None:
        """Takes the gradients of a pass over these rows."""
        in_order = [leaf.grad for half in zip(*leaves, strict=True) for leaf in half]
        gradient = torch.cat([grad.flatten(1) for grad in in_order if grad is not None], 1).float()
        index = self._index(rows)
        gradient[:, self.begin_of_b :] *= self._scales()[index]
        self.rows[GRADIENT].index_copy_(0, index, gradient)

    def step(self, learning_rates: Sequence[float], steps: Sequence[int], norms: Sequence[float]) -> None:
        """One step of every row: its learning rate, which step it is (from 1), and what its gradient is clipped to."""
        weights, gradient, mean, square = self.rows.values()
        numbers = [
            (rate / (1 - BETAS[0] ** step), (1 - BETAS[1] ** step) ** 0.5, norm)
            for rate, step, norm in zip(learning_rates, steps, norms, strict=True)
        ]
        size, root, most = torch.tensor(numbers, device=self.stack.device).T[:, :, None]
        gradient *= self.is_weight
        gradient *= (most / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp_(max=1.0)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        weights.addcdiv_(mean * -size, square.sqrt().div_(root).add_(EPSILON))
        self._compute()

    def _compute(self) -> None:
        scaled = self.rows[WEIGHTS].clone()
        scaled[:, self.begin_of_b :] *= self._scales()
        self.computed = scaled.to(self.stack.dtype)

    def _scales(self) -> Tensor:
        return torch.tensor([adapter.scale for adapter in self.adapters], device=self.stack.device)[:, None]

    def _zeros(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.ends[-1], device=self.stack.device)

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.stack.device)

    def _parts(self, row: Tensor, rank: int) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Where an adapter has its weights in a row: (path, A [rank, d], B [o, rank])."""
        spans = zip(pairwise(self.ends), self.shapes, strict=True)
        views = [row[begin:end].view(shape) for (begin, end), shape in spans]
        half = len(views) // 2
        for layer, a, b in zip(self.stack.layers, views[:half], views[half:], strict=True):
            for path, parts in layer.parts_of(a, b, rank):
                yield path, *parts
