"""N adapters over one frozen base, stacked: rows of a batch are grouped by adapter and each group meets its own.

    y = W x + (x A[g]) B[g]        A [G, d, r], B [G, r, o], x [G, rows · tokens, d]

Owns the adapters' weights (float32) and their file format, which is PEFT's. A smaller rank is padded with
zeros; a group without an adapter (ZS) meets zeros. Knows nothing of losses, text or results.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.frozen import FrozenLinear
from engine.vocabulary import Hyperparameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."


@dataclass
class Adapter:
    """LoRA weights of one variant: `weights[module] = (A [r, d], B [o, r])`, as PEFT has them."""

    rank: int
    alpha: float
    dropout: float
    weights: dict[str, tuple[nn.Parameter, nn.Parameter]]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def parameters(self) -> list[nn.Parameter]:
        return [p for pair in self.weights.values() for p in pair]


@dataclass
class DropoutStreams:
    """Each group's own stream of dropout masks: (generator, rows, tokens) without padding, so that no group's
    masks depend on the company it is in."""

    groups: list[tuple[torch.Generator, int, int]]


SHARE_INPUT = ("q_proj", "k_proj", "v_proj")
"""Layers of one attention block that are given the same tensor."""


class LoraLinear(nn.Module):
    """Frozen linear layers that share their input, and beside them the stacked adapters of the active groups.

    One product serves all of them, and one dropout mask. `Share` gives each layer its part.
    """

    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.paths = tuple(linears)
        self.widths = [linear.out_features for linear in linears.values()]
        weights: list[Tensor] = [linear.weight for linear in linears.values()]
        biases: list[Tensor] = [linear.bias for linear in linears.values() if linear.bias is not None]
        self.frozen = FrozenLinear(torch.cat(weights), torch.cat(biases) if biases else None)
        self.a: Tensor | None = None
        self.b: list[Tensor] = []
        self.rates: list[float] = []
        self.streams: DropoutStreams | None = None
        self.given: Tensor | None = None
        self.parts: dict[int, Tensor] = {}

    def part(self, index: int, x: Tensor) -> Tensor:
        """What the layer `index` makes of x; the first to ask has it computed for all."""
        if x is not self.given or index not in self.parts:
            self.given, self.parts = x, dict(enumerate(self(x)))
        part = self.parts.pop(index)
        if not self.parts:
            self.given = None
        return part

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [rows, tokens, d] → one [rows, tokens, o] a layer."""
        parts = list(self.frozen(x).split(self.widths, -1))
        if self.a is None:
            return parts
        groups = len(self.a)
        grouped = x.reshape(groups, -1, x.shape[-1])
        if self.streams is not None:
            grouped = self._dropped(grouped, x.shape[1], self.streams)
        low = torch.bmm(grouped, self.a).split(self.b[0].shape[1], -1)
        return [
            torch.baddbmm(y.reshape(groups, -1, y.shape[-1]), part.contiguous(), b).view(y.shape)
            for y, part, b in zip(parts, low, self.b, strict=True)
        ]

    def _dropped(self, grouped: Tensor, tokens: int, streams: DropoutStreams) -> Tensor:
        width = grouped.shape[-1]
        mask = grouped.new_ones(len(grouped), grouped.shape[1] // tokens, tokens, width)
        for group, (rate, (generator, rows, length)) in enumerate(zip(self.rates, streams.groups, strict=True)):
            if rate:
                keep = _keep((rows, length, width), rate, generator)
                mask[group, :rows, :length] = keep.to(mask.dtype) / (1 - rate)
        return grouped * mask.view_as(grouped)


class Share(nn.Module):
    """Stands in the base where one of the linear layers stood."""

    def __init__(self, whole: LoraLinear, index: int) -> None:
        super().__init__()
        self.whole, self.index = (whole,), index  # in a tuple: not a child of every sharer

    def forward(self, x: Tensor) -> Tensor:
        return self.whole[0].part(self.index, x)


def _keep(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    """True with probability 1 - rate (to 1/65536). One 64-bit draw serves four places."""
    size = shape[0] * shape[1] * shape[2]
    draws = torch.empty((size + 3) // 4, dtype=torch.int64, device=generator.device)
    sixteen_bits = draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:size]
    return (sixteen_bits >= round(rate * 65536) - 32768).view(shape)


def read_adapter(folder: Path, device: str = "cpu") -> Adapter:
    """An adapter in PEFT's format, in float32. Errors: ModelError when it is damaged or of another kind."""
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
        tensors: Mapping[str, Tensor] = load_file(folder / WEIGHTS_FILE, device=device)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a readable adapter in PEFT's format: {error}") from error
    if getattr(config, "use_dora", False) or config.rank_pattern or config.alpha_pattern or config.bias != "none":
        raise ModelError(f"{folder}: DoRA, rank patterns, alpha patterns and biases are not supported.")
    weights = {}
    for key in sorted(k for k in tensors if k.endswith(".lora_A.weight")):
        path = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors.get(key.replace(".lora_A.", ".lora_B."))
        if b is None:
            raise ModelError(f"{folder}: the adapter's layer {path} has no counterpart here.")
        weights[path] = (nn.Parameter(a.float()), nn.Parameter(b.float()))
    if 2 * len(weights) != len(tensors):
        raise ModelError(f"{folder}: holds weights that are not LoRA pairs.")
    alpha = config.lora_alpha * (config.r**0.5 if config.use_rslora else 1)
    return Adapter(config.r, alpha, config.lora_dropout, weights)


class Stack:
    """The adapters over one base. Building it replaces the base's linear layers but its head, in place, for good."""

    def __init__(self, model: "PreTrainedModel", targets: Sequence[str]) -> None:
        head = model.get_output_embeddings()
        linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
        found = {name: module for name, module in linear.items() if name.rsplit(".", 1)[-1] in targets}
        if not found:
            raise ModelError(f"the base has no linear layers named {', '.join(targets)} to adapt.")
        self.targets = tuple(targets)
        self.dtype = next(iter(found.values())).weight.dtype
        self.device = next(iter(found.values())).weight.device
        self.adapters: dict[str, Adapter] = {}
        self.shapes = {name: (module.in_features, module.out_features) for name, module in found.items()}
        self.layers: list[LoraLinear] = []
        together: dict[tuple[str, str], dict[str, nn.Linear]] = {}
        for name, module in found.items():
            parent, _, leaf = name.rpartition(".")
            together.setdefault((parent, "" if leaf in SHARE_INPUT else leaf), {})[name] = module
        for linears in together.values():
            whole = LoraLinear(linears)
            self.layers.append(whole)
            for index, name in enumerate(linears):
                model.set_submodule(name, Share(whole, index))
        for name in linear.keys() - found.keys():
            model.set_submodule(name, FrozenLinear(linear[name].weight, linear[name].bias))

    def create(self, name: str, hyperparameters: Hyperparameters, seed: int) -> Adapter:
        """A fresh adapter as PEFT begins one: A uniform in ±1/√d, B zero. Its stream is keyed by seed and layer."""
        h = hyperparameters
        weights = {}
        for path, (inputs, outputs) in self.shapes.items():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {path}".encode()))
            bound = inputs**-0.5
            a = torch.empty(h.rank, inputs).uniform_(-bound, bound, generator=generator)
            b = torch.zeros(outputs, h.rank)
            weights[path] = (nn.Parameter(a.to(self.device)), nn.Parameter(b.to(self.device)))
        self.adapters[name] = Adapter(h.rank, h.alpha, h.dropout, weights)
        return self.adapters[name]

    def load(self, name: str, folder: Path) -> Adapter:
        """An adapter in PEFT's format. Errors: ModelError when it is damaged or does not fit the base."""
        adapter = read_adapter(folder, str(self.device))
        for path, (a, b) in adapter.weights.items():
            if path not in self.shapes:
                raise ModelError(f"{folder}: the adapter's layer {path} has no counterpart here.")
            if (a.shape[1], b.shape[0]) != self.shapes[path]:
                raise ModelError(f"{folder}: the adapter's layer {path} does not fit this base.")
        self.adapters[name] = adapter
        return adapter

    def save(self, name: str, folder: Path, base_name: str) -> None:
        """The adapter's two files in PEFT's format; `folder` exists."""
        from peft import LoraConfig
        from safetensors.torch import save_file

        adapter = self.adapters[name]
        LoraConfig(
            r=adapter.rank,
            lora_alpha=int(adapter.alpha),
            lora_dropout=adapter.dropout,
            target_modules=list(self.targets),
            task_type="CAUSAL_LM",
            base_model_name_or_path=base_name,
            inference_mode=True,
        ).save_pretrained(str(folder))
        tensors = {}
        for path, (a, b) in adapter.weights.items():
            tensors[f"{_PREFIX}{path}.lora_A.weight"] = a.detach().cpu().contiguous()
            tensors[f"{_PREFIX}{path}.lora_B.weight"] = b.detach().cpu().contiguous()
        save_file(tensors, folder / WEIGHTS_FILE)

    @contextmanager
    def groups(self, names: Sequence[str | None], dropout: DropoutStreams | None = None) -> Iterator[None]:
        """Within, a batch is `len(names)` groups of equally many rows, one after the other; group g meets the
        adapter names[g], or none. Errors: KeyError for a name that is not here (never the base in silence)."""
        adapters = [None if name is None else self.adapters[name] for name in names]
        if any(adapters):
            rank = max(adapter.rank for adapter in adapters if adapter)
            for layer in self.layers:
                stacked = [self._stacked(path, adapters, rank) for path in layer.paths]
                layer.a, layer.b = torch.cat([a for a, _ in stacked], -1), [b for _, b in stacked]
                layer.rates = [adapter.dropout if adapter else 0.0 for adapter in adapters]
                layer.streams = dropout
        try:
            yield
        finally:
            for layer in self.layers:
                layer.a, layer.b, layer.streams = None, [], None

    def _stacked(self, path: str, adapters: Sequence[Adapter | None], rank: int) -> tuple[Tensor, Tensor]:
        """A [G, d, rank] and B [G, rank, o] of one layer, the scale α / r within B, in the base's dtype."""
        a_parts, b_parts = [], []
        inputs, outputs = self.shapes[path]
        for adapter in adapters:
            pair = adapter.weights.get(path) if adapter else None
            if adapter is None or pair is None:
                a_parts.append(torch.zeros(inputs, rank, device=self.device))
                b_parts.append(torch.zeros(rank, outputs, device=self.device))
            else:
                missing = rank - adapter.rank
                a_parts.append(nn.functional.pad(pair[0].T, (0, missing)))
                b_parts.append(nn.functional.pad(pair[1].T, (0, 0, 0, missing)) * adapter.scale)
        return torch.stack(a_parts).to(self.dtype), torch.stack(b_parts).to(self.dtype)
