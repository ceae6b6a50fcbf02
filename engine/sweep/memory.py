"""Memory of a base and its adapters, and what follows from it: how many adapters train at once, how many tokens a
pass holds, whether a plan fits. Estimates: those for a CPU are checked by `bench`, those for a GPU by `bench.gpu`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from operator import mul

from engine.config import BATCH_ROWS, BFLOAT16
from engine.lora.adapter_run import TOKENS_PER_PASS
from engine.model.machine import Machine
from engine.model.registry import Base

PLANNED_SHARE = 0.8
"""The share of the memory that a plan may fill; what it leaves is for what estimates forget."""

MAX_SHARE = 0.95
"""The share beyond which a plan is refused."""

WORKING_BYTES = {"cpu": 1.2e9, "cuda": 4e9}
"""Logits of a pass, the libraries, and the rest."""

TOKENS_PER_TEXT = 32
"""Of a training sentence, about."""

TOKENS_PER_ROW = 180
"""Of a prompt, its completion, and the room that is kept for more of it, about."""

MIN_TOKENS = 512

ADAPTER_COPIES = 8
"""Of an adapter in training, in float32: weights, gradient, AdamW's two moments, as much again of what the layers
compute with and its gradient, which are of the base's dtype, and the places where a pass finds adapters and leaves
gradients."""

UNITS_AT_ONCE = {"cpu": 1, "cuda": 9}
"""The most units of generation that are written together: on an H200, 3,024 rows at once are written 3.4 times as fast
as 336, and 1.7 times as fast as 1,008."""

PASSES_IN_MEMORY = {"cpu": 1, "cuda": 2}
"""Passes whose activations are in memory at a time: CUDA graphs keep theirs while a pass of a new shape is computed."""

_LIKE_LLAMA = (3.0, 3.0, 2.0, 3.0)
ACTIVATIONS: Mapping[str, tuple[float, float, float, float]] = {
    "BloomForCausalLM": (0.0, 0.0, 0.0, 2.8),
    "CohereForCausalLM": (2.0, 3.0, 2.0, 3.0),
    "Gemma3ForCausalLM": (5.0, 4.0, 4.0, 3.0),
    "MT5ForConditionalGeneration": (5.5, 6.1, 0.0, 6.0),
    "Qwen3ForCausalLM": (3.0, 4.0, 4.0, 3.0),
}
"""What training keeps of a token in a layer, in numbers per unit of hidden_size, q_dim, kv_dim and intermediate_size; a
fit of what autograd saves (tests/pipeline/test_memory.py). Other architectures are like Llama."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes: of the base; of its adapters with all that training or generation keeps of them; of the cache of keys and
    values; and of the rest (activations, logits, libraries)."""

    weights: float
    adapters: float
    cache: float
    working: float

    @property
    def total(self) -> float:
        return self.weights + self.adapters + self.cache + self.working

    def __str__(self) -> str:
        parts = {"weights": self.weights, "adapters": self.adapters, "cache": self.cache, "the rest": self.working}
        listed = ", ".join(f"{name} {part / 1e9:.1f}" for name, part in parts.items() if part)
        return f"{self.total / 1e9:.1f} GB ({listed})"


def adapter_bytes(base: Base, rank: int) -> float:
    """An adapter's weights in float32, as its file has them."""
    return 4.0 * base.shape.adapter_parameters(base.targets, rank)


@dataclass(frozen=True)
class Memory:
    """What a base and adapters of one rank need on a machine, and what fits there."""

    base: Base
    dtype: str
    rank: int
    machine: Machine

    def training(self, max_concurrent: int, tokens: int) -> MemoryEstimate:
        """So many adapters in training, and what a pass of so many tokens keeps for its backward pass."""
        s = self.base.shape
        widths = (s.hidden_size, s.q_dim, s.kv_dim, s.intermediate_size)
        numbers = sum(map(mul, ACTIVATIONS.get(self.base.architecture, _LIKE_LLAMA), widths))
        numbers += max_concurrent * self.rank * len(self.base.targets)  # a token meets the A of every adapter
        per_layer = numbers * self._size
        if self.machine.kind == "cpu":  # the masks of dropout; a GPU computes them again
            per_layer += s.hidden_size + s.q_dim
        activations = PASSES_IN_MEMORY[self.machine.kind] * tokens * s.layers_of_a_token * per_layer
        adapters = ADAPTER_COPIES * max_concurrent * adapter_bytes(self.base, self.rank)
        return MemoryEstimate(self._weights(2), adapters, 0.0, WORKING_BYTES[self.machine.kind] + activations)

    def generation(self, variants: int, rows: int) -> MemoryEstimate:
        """The adapters of so many variants, and the keys and values of so many rows, generated at once."""
        s = self.base.shape
        cache = rows * TOKENS_PER_ROW * s.caching_layers * 2 * s.kv_dim * self._size
        adapters = variants * adapter_bytes(self.base, self.rank) / 4 * (4 + self._size)
        return MemoryEstimate(self._weights(1), adapters, cache, WORKING_BYTES[self.machine.kind])

    def rows(self, variants: int) -> int:
        """How many rows our own backend generates at once: on a GPU as many units of them as memory holds."""
        for units in range(UNITS_AT_ONCE[self.machine.kind], 1, -1):
            if self.generation(variants, units * BATCH_ROWS).total <= PLANNED_SHARE * self.machine.memory:
                return units * BATCH_ROWS
        return BATCH_ROWS

    def tokens_per_pass(self, max_concurrent: int) -> int:
        """Padded tokens of one training pass: enough to fill the machine, and no more than memory holds."""
        most = TOKENS_PER_PASS[self.machine.kind]
        without = self.training(max_concurrent, 0).total
        per_token = self.training(max_concurrent, 1).total - without
        fitting = int((PLANNED_SHARE * self.machine.memory - without) / per_token) // MIN_TOKENS * MIN_TOKENS
        return max(min(MIN_TOKENS, most), min(most, fitting))

    def max_concurrent(self, steps: Sequence[int], batch_size: int) -> int:
        """How many adapter runs of so many steps to train at once: enough to fill a pass, and that the longest is not
        left alone at the end; no more than memory holds, and at least one."""
        if not steps:
            return 0
        fill = TOKENS_PER_PASS[self.machine.kind] // (TOKENS_PER_TEXT * batch_size)
        useful = min(len(steps), max(fill, ceil(sum(steps) / max(steps))))
        without = self.training(0, MIN_TOKENS).total
        fitting = (PLANNED_SHARE * self.machine.memory - without) / (
            ADAPTER_COPIES * adapter_bytes(self.base, self.rank)
        )
        return max(1, min(useful, int(fitting)))

    def _weights(self, packed: int) -> float:
        """On a CPU, layers are held packed for their products (`packed` times: training has their transposes too), the
        output head is so beside the embedding that it is, and the file, of 16 bits a weight, is mapped."""
        s = self.base.shape
        if self.machine.kind != "cpu":
            return s.parameters * self._size
        parameters = packed * s.layer_parameters + (packed + s.embeddings) * s.head_parameters
        return parameters * self._size + 2 * s.parameters

    @property
    def _size(self) -> int:
        return 2 if self.dtype == BFLOAT16 else 4
