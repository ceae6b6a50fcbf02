"""Forward and backward passes over a batch of every run → their losses and gradients.

On CUDA a pass of a shape that was there before is replayed as a CUDA graph: its thousands of kernels, which are small,
cost the host one launch. Lengths are rounded up there, so that few shapes occur.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engine.lora.batch import Row, Tensors, eighths, form_of
from engine.lora.dropout import Dropout, numbers_of
from engine.lora.layout import Layout
from engine.lora.stack import Members, Stack
from engine.model import loading
from engine.model.loading import LoadedBase
from engine.model.take import take

MOST_GRAPHS = 64
"""Graphs that are kept; each holds its kernels' arguments, and all share the memory they compute in."""


DROPOUT = ("seeds", "thresholds", "factors")

Shapes = tuple[Any, ...]

Compute = Callable[[Tensor, Tensors, Tensor], Tensor]


@dataclass(frozen=True)
class PassInput:
    """A run's part of a pass: its adapter as one tensor, α / r, its dropout with what that depends on, its batch."""

    flat: Tensor
    scale: float
    rate: float
    seed: int
    step: int
    batch: list[Row]


class Passes:
    """Of one wave over one base."""

    def __init__(self, loaded: LoadedBase, stack: Stack, layout: Layout) -> None:
        self.loaded, self.stack, self.layout = loaded, stack, layout
        self.form = form_of(loaded)
        self.is_cuda = loaded.device.type == "cuda"
        self.graphs = Graphs(loaded.device) if self.is_cuda else None
        self.room: tuple[Tensor, Tensor] | None = None

    def updates(self, inputs: Sequence[PassInput]) -> list[tuple[float, Tensor]]:
        """Each run's mean loss per token, and the gradient of its adapter, which the next call may write over. The loss
        of an adapter that is not finite is not a number."""
        flat, gradient = self._room(len(inputs))
        torch.stack([one.flat for one in inputs], out=flat)
        tensors = self._tensors(inputs)
        if self.graphs is None:
            losses = self._compute(flat, tensors, gradient)
        else:  # which know nothing of this object, so that its memory is free as soon as it is gone
            losses = self.graphs.run(self._compute, flat, tensors, gradient)
        return list(zip(losses.tolist(), gradient, strict=True))

    def release(self) -> None:
        """Gives back what passes hold: after running out of memory."""
        if self.graphs is not None:
            self.graphs.release()
        loading.release()

    def _room(self, runs: int) -> tuple[Tensor, Tensor]:
        """Room for the adapters of so many runs and for their gradients [runs, size], which stays where it is."""
        if self.room is None or len(self.room[0]) < runs:
            size = (runs, self.layout.size)
            self.room = torch.empty(size, device=self.loaded.device), torch.empty(size, device=self.loaded.device)
        return self.room[0][:runs], self.room[1][:runs]

    def _tensors(self, inputs: Sequence[PassInput]) -> Tensors:
        """What a pass reads besides the adapters, on the host."""
        tensors = self.form.tensors([one.batch for one in inputs], eighths if self.is_cuda else lambda length: length)
        tensors["scales"] = torch.tensor([one.scale for one in inputs])
        if any(one.rate for one in inputs):
            # Of padding, which belongs to no run, the last run's.
            runs = tensors["runs"].clamp(max=len(inputs) - 1) if "runs" in tensors else torch.arange(len(inputs))
            numbers = numbers_of([(one.seed, one.step) for one in inputs], [one.rate for one in inputs])
            tensors |= {name: of_runs[runs] for name, of_runs in zip(DROPOUT, numbers, strict=True)}
        return tensors

    def _compute(self, flat: Tensor, tensors: Tensors, gradient: Tensor) -> Tensor:
        """Adapters [runs, size] and what `_tensors` gives → losses [runs]; fills their gradients [runs, size].

        What is computed depends on the shapes alone.
        """
        tensors = {name: tensor.to(self.loaded.device) for name, tensor in tensors.items()}
        # One that is not finite would meet the others' tokens in one product.
        is_finite = flat.isfinite().all(1)
        stacked = self.layout.stack(flat.where(is_finite[:, None], 0.0), tensors["scales"], self.stack.dtype)
        for weights in chain.from_iterable(stacked):
            weights.requires_grad_()
        dropout, members = None, None
        if DROPOUT[0] in tensors:
            seeds, thresholds, factors = (tensors[name] for name in DROPOUT)
            dropout = Dropout(seeds, thresholds, factors, len(self.stack.layers), tensors.get("places"))
        if "runs" in tensors:
            members = Members(tensors["runs"], len(flat))
        with self.stack.using(stacked, dropout, members):
            states = self.form.states(self.loaded, tensors)
        predicting = take(states, tensors["at"], tensors["back"], tensors["predicts"])
        nll = self.loaded.lm_head.nll(predicting, tensors["labels"])
        # Not a product: a label that is not a number would be in every run's sum.
        losses = torch.where(tensors["shares"] > 0, nll * tensors["shares"], 0.0).sum(1)
        losses.sum().backward()
        self.layout.gradient(stacked, tensors["scales"], gradient)
        has_loss = is_finite & (tensors["shares"] > 0).any(1)
        return losses.detach().where(has_loss, torch.nan)


class FillNumbers(TorchFunctionMode):
    """Makes `torch.tensor` of a number a fill on the device: a copy from the host cannot be recorded, and Bloom's masks
    are made of such numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and isinstance(args[0], int | float):
            return torch.full((), args[0], **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Graphs:
    """A computation as CUDA graphs, one for each shape of what it reads."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.can_capture = device, True
        self.seen: set[Shapes] = set()
        self.graphs: dict[Shapes, tuple[torch.cuda.CUDAGraph, Tensors, Tensor]] = {}
        self.pool: Any = None

    def run(self, compute: Compute, flat: Tensor, tensors: Tensors, gradient: Tensor) -> Tensor:
        """What `compute` returns, which the next call may write over. `compute` is the same in every call, and `flat`
        and `gradient` are at the same place in every call with their shape."""
        shapes = (flat.data_ptr(), *(tuple(tensor.shape) for tensor in tensors.values()))
        if shapes in self.seen and shapes not in self.graphs and self.can_capture:
            self.capture(compute, shapes, flat, tensors, gradient)
        self.seen.add(shapes)
        if shapes not in self.graphs:
            # Also the first of every shape: it sets up the libraries, which cannot be recorded.
            return compute(flat, tensors, gradient)
        graph, inputs, losses = self.graphs[shapes]
        for name, tensor in tensors.items():
            inputs[name].copy_(tensor)
        graph.replay()
        return losses

    def release(self) -> None:
        """Gives back the memory of all graphs."""
        self.graphs.clear()
        self.seen.clear()
        self.pool = None

    def capture(self, compute: Compute, shapes: Shapes, flat: Tensor, tensors: Tensors, gradient: Tensor) -> None:
        """Records the computation for these shapes; where that is impossible, it goes on without."""
        if len(self.graphs) == MOST_GRAPHS:
            self.release()
        inputs = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool), FillNumbers():
                losses = compute(flat, inputs, gradient)
        except RuntimeError as error:
            if loading.is_out_of_memory(error):
                raise
            self.can_capture = False
            warnings.warn(f"training goes on without CUDA graphs, more slowly: {error}", stacklevel=2)
        else:
            self.pool = self.pool or graph.pool()
            self.graphs[shapes] = graph, inputs, losses
