"""N adapters over one frozen base, stacked: the rows of a batch are grouped by adapter.

    y = W x + (x A[g]) B[g]        A [G, d, r], B [G, r, o], x [G, rows · tokens, d]

Where the groups are of unequal size, each token knows its own (`Members`): then x meets the A of all groups at once,
what is not of its group is set to zero, and what is left meets the B of all.

Owns the adapters' weights (float32) and their file format, which is PEFT's. A smaller rank is padded with
zeros; a group without an adapter (ZS) meets zeros. Knows nothing of losses, text or results.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.lora.dropout import Dropout
from engine.lora.layout import Layout, Stacked
from engine.lora.peft_files import WEIGHTS
from engine.model.frozen import FrozenLinear
from engine.model.registry import check_targets
from engine.vocabulary import Hyperparameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFIX = "base_model.model."


@dataclass(eq=False)
class Adapter:
    """LoRA weights of one variant: `weights[module] = (A [r, d], B [o, r])`, as PEFT has them. One that is trained has
    them in `flat`, as a `Layout` says."""

    rank: int
    alpha: float
    dropout: float
    weights: dict[str, tuple[Tensor, Tensor]]
    flat: Tensor | None = None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def version(self) -> int:
        """Another one whenever a weight has changed."""
        return sum(parameter._version for parameter in self.parameters())

    def parameters(self) -> list[Tensor]:
        return [p for pair in self.weights.values() for p in pair]


class Members:
    """The group of every token, 0 to `groups` - 1; another number is none, which meets no adapter."""

    def __init__(self, group: Tensor, groups: int) -> None:
        """group [tokens]."""
        self.is_other = group[:, None] != torch.arange(groups, device=group.device)
        self.of_columns: dict[int, Tensor] = {}

    def keep_own(self, low: Tensor) -> Tensor:
        """low [tokens, groups · n] with zeros where it is not of the token's group."""
        n = low.shape[1] // self.is_other.shape[1]
        if n not in self.of_columns:
            self.of_columns[n] = self.is_other.repeat_interleave(n, 1)
        return low.masked_fill(self.of_columns[n], 0.0)


VISION = "vision_tower"
"""What reads images in a multimodal base; it gets no adapter."""

SHARE_INPUT = ("q_proj", "k_proj", "v_proj")
"""Layers of one attention block that are given the same tensor."""


class LoraLinear(nn.Module):
    """Frozen linear layers that share their input, and beside them the stacked adapters of the active groups.

    One product serves all of them, and one dropout mask. `Share` gives each layer its part.
    """

    def __init__(self, linears: Mapping[str, nn.Linear], index: int) -> None:
        super().__init__()
        self.paths, self.index = tuple(linears), index
        self.widths = [linear.out_features for linear in linears.values()]
        weights: list[Tensor] = [linear.weight for linear in linears.values()]
        biases: list[Tensor] = [linear.bias for linear in linears.values() if linear.bias is not None]
        self.frozen = FrozenLinear(torch.cat(weights), torch.cat(biases) if biases else None)
        self.stacked: Stacked | None = None
        self.dropout: Dropout | None = None
        self.members: Members | None = None
        self.given: Tensor | None = None
        self.parts: dict[int, Tensor] = {}

    def output(self, index: int, x: Tensor) -> Tensor:
        """What the layer `index` makes of x; the first to ask has it computed for all."""
        if x is not self.given or index not in self.parts:
            self.given, self.parts = x, dict(enumerate(self(x)))
        part = self.parts.pop(index)
        if not self.parts:
            self.given = None
        return part

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [rows, tokens, d] → one [rows, tokens, o] a layer."""
        y = self.frozen(x)
        if self.stacked is not None:
            add = self._add_to_groups if self.members is None else self._add_to_tokens
            y = add(y, x, *self.stacked)
        return list(y.split(self.widths, -1))

    def _add_to_groups(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        grouped = x.reshape(len(a), -1, x.shape[-1])
        if self.dropout is not None:
            grouped = self.dropout(grouped, x.shape[1], self.index)
        return torch.baddbmm(y.view(*grouped.shape[:2], -1), torch.bmm(grouped, a), b).view(y.shape)

    def _add_to_tokens(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        assert self.members is not None
        flat = x.reshape(-1, x.shape[-1])
        if self.dropout is not None:
            flat = self.dropout(flat[:, None], 1, self.index)[:, 0]
        low = self.members.keep_own(flat @ a.transpose(0, 1).flatten(1))
        return torch.addmm(y.view(len(flat), -1), low, b.flatten(0, 1)).view(y.shape)


class Share(nn.Module):
    """Stands in the base where one of the linear layers stood."""

    def __init__(self, whole: LoraLinear, index: int) -> None:
        super().__init__()
        self.whole, self.index = (whole,), index  # in a tuple: not a child of every sharer

    def forward(self, x: Tensor) -> Tensor:
        return self.whole[0].output(self.index, x)


def read_adapter(folder: Path, device: str = "cpu") -> Adapter:
    """An adapter in PEFT's format, in float32. Errors: ModelError when it is damaged or of another kind."""
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
        tensors: Mapping[str, Tensor] = load_file(folder / WEIGHTS, device=device)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a readable adapter in PEFT's format: {error}") from error
    _refuse_unknown(folder, config)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for key in sorted(k for k in tensors if k.endswith(".lora_A.weight")):
        path = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors.get(key.replace(".lora_A.", ".lora_B."))
        if b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ModelError(f"{folder}: lora_A and lora_B of {path} do not make a pair.")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ModelError(f"{folder}: the adapter has weights that are not numbers (in {path}). Train it again.")
        pairs[path] = (a.float(), b.float())
    if not pairs or 2 * len(pairs) != len(tensors):
        others = [k for k in tensors if not k.endswith((".lora_A.weight", ".lora_B.weight"))]
        raise ModelError(
            f"{folder}: holds weights that are not LoRA pairs ({', '.join(others[:3]) or 'none at all'}). Merge the "
            "adapter into its base (merge_and_unload) and give that folder to --models."
        )
    # One rank and one scale for all layers: smaller ranks are padded with zeros, and other scales go into B.
    rank = max(len(a) for a, _ in pairs.values())
    scale = _scale(config, "", rank)
    weights = {}
    for path, (a, b) in pairs.items():
        room = rank - len(a)
        b = b * (_scale(config, path, len(a)) / scale)
        weights[path] = (nn.functional.pad(a, (0, 0, 0, room)), nn.functional.pad(b, (0, room)))
    return Adapter(rank, scale * rank, config.lora_dropout, weights)


def _scale(config: Any, path: str, rank: int) -> float:
    """What PEFT multiplies a layer's update by; `path` '': of the layers that no pattern names."""
    from peft.utils.other import get_pattern_key

    key = get_pattern_key(config.alpha_pattern.keys(), path) if path else ""
    alpha = float(config.alpha_pattern.get(key, config.lora_alpha))
    return alpha / (rank**0.5 if config.use_rslora else rank)


TAKEN = {
    *("auto_mapping", "peft_version", "base_model_name_or_path", "revision", "task_type", "inference_mode", "r"),
    *("target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "runtime_config", "megatron_core"),
}
"""Fields of PEFT's configuration that may have any value: what they say is in the weights, or is read."""

INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the base's weights as they are."""


def _refuse_unknown(folder: Path, config: Any) -> None:
    """Errors: ModelError when an adapter is more than LoRA on linear layers over the base's own weights."""
    from peft import LoraConfig

    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise ModelError(
            f"{folder}: a {config.peft_type} adapter; only LoRA is supported. Merge it into its base and give that "
            "folder to --models."
        )
    if config.init_lora_weights not in INITIALISATIONS:
        raise ModelError(
            f"{folder}: initialised with {config.init_lora_weights!r}, which changes the base's own weights. Convert "
            "it (save_pretrained with path_initial_model_for_weight_conversion), or merge it into its base."
        )
    plain = LoraConfig()
    names = {f.name for f in fields(plain)} - TAKEN - {"peft_type", "init_lora_weights"}
    for name in sorted(names):
        value, default = getattr(config, name, None), getattr(plain, name)
        if value != default and value not in (None, False, [], {}):
            raise ModelError(
                f"{folder}: {name} = {value!r} is not supported. Merge the adapter into its base (merge_and_unload) "
                "and give that folder to --models."
            )


def _use_linear(model: "PreTrainedModel") -> None:
    """GPT-2 keeps its linear layers transposed, in a class of their own; here they become linear layers like any."""
    from transformers.pytorch_utils import Conv1D

    for name, module in [item for item in model.named_modules() if isinstance(item[1], Conv1D)]:
        outputs, inputs = module.nf, module.weight.shape[0]
        linear = nn.Linear(inputs, outputs, device="meta")
        linear.weight = nn.Parameter(module.weight.T.contiguous(), requires_grad=False)
        linear.bias = nn.Parameter(module.bias, requires_grad=False)
        model.set_submodule(name, linear)


class Stack:
    """The adapters over one base. Building it replaces the base's linear layers but its head, in place, for good."""

    def __init__(self, model: "PreTrainedModel", targets: Sequence[str]) -> None:
        head = model.get_output_embeddings()
        _use_linear(model)
        check_targets(model, targets)
        linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head and VISION not in name
        }
        targeted = {name: module for name, module in linear.items() if name.rsplit(".", 1)[-1] in targets}
        # PEFT takes the names of layers for those of images too, where there are any; then whole paths.
        has_images = any(VISION in name for name, _ in model.named_modules())
        self.targets = tuple(targeted) if has_images else tuple(targets)
        self.task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
        self.dtype = next(iter(targeted.values())).weight.dtype
        self.device = next(iter(targeted.values())).weight.device
        self.adapters: dict[str, Adapter] = {}
        self.kept: tuple[list[tuple[Adapter | None, int]], Sequence[Stacked]] = [], []
        self.shapes = {name: (module.in_features, module.out_features) for name, module in targeted.items()}
        self.layers: list[LoraLinear] = []
        together: dict[tuple[str, str], dict[str, nn.Linear]] = {}
        for name, module in targeted.items():
            parent, _, leaf = name.rpartition(".")
            together.setdefault((parent, "" if leaf in SHARE_INPUT else leaf), {})[name] = module
        for linears in together.values():
            whole = LoraLinear(linears, len(self.layers))
            self.layers.append(whole)
            for index, name in enumerate(linears):
                model.set_submodule(name, Share(whole, index))
        for name in linear.keys() - targeted.keys():
            model.set_submodule(name, FrozenLinear(linear[name].weight, linear[name].bias))

    def layout(self, rank: int) -> Layout:
        """Of adapters with room for this rank."""
        return Layout(
            [(layer.paths, self.shapes[layer.paths[0]][0], tuple(layer.widths)) for layer in self.layers], rank
        )

    def create(self, name: str, hyperparameters: Hyperparameters, seed: int, layout: Layout | None = None) -> Adapter:
        """A fresh adapter as PEFT begins one: A uniform in ±1/√d, B zero. Its stream is keyed by seed and layer."""
        h = hyperparameters
        layout = layout or self.layout(h.rank)
        flat = torch.zeros(layout.size)
        for path, (a, _) in layout.weights(flat, h.rank).items():
            inputs = self.shapes[path][0]
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {path}".encode()))
            a.copy_(torch.empty(h.rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator))
        flat = flat.to(self.device)
        self.adapters[name] = Adapter(h.rank, h.alpha, h.dropout, layout.weights(flat, h.rank), flat)
        return self.adapters[name]

    def load(self, name: str, folder: Path) -> Adapter:
        """An adapter in PEFT's format. Errors: ModelError when it is damaged or does not fit the base."""
        adapter = read_adapter(folder, str(self.device))
        for path, (a, b) in adapter.weights.items():
            if path not in self.shapes:
                raise ModelError(f"{folder}: the adapter's layer {path} does not exist in this base.")
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
            task_type=self.task,
            base_model_name_or_path=base_name,
            inference_mode=True,
        ).save_pretrained(str(folder))
        tensors = {}
        for path, (a, b) in adapter.weights.items():
            tensors[f"{_PREFIX}{path}.lora_A.weight"] = a.detach().cpu().contiguous()
            tensors[f"{_PREFIX}{path}.lora_B.weight"] = b.detach().cpu().contiguous()
        save_file(tensors, folder / WEIGHTS)

    @contextmanager
    def groups(self, names: Sequence[str | None]) -> Iterator[None]:
        """Within, a batch is `len(names)` groups of equally many rows, one after the other; group g meets the
        adapter names[g], or none. Errors: KeyError for a name that is not here (never the base in silence)."""
        adapters = [None if name is None else self.adapters[name] for name in names]
        with self.using(self._stacked(adapters)):
            yield

    @contextmanager
    def using(
        self, stacked: Sequence[Stacked], dropout: Dropout | None = None, members: Members | None = None
    ) -> Iterator[None]:
        """Within, each layer has its adapters of `stacked`, group by group; none of them has any where it is empty.
        `members`: the group of each token, where groups are not equally large."""
        for layer, one in zip(self.layers, stacked, strict=bool(stacked)):
            layer.stacked, layer.dropout, layer.members = one, dropout, members
        try:
            yield
        finally:
            for layer in self.layers:
                layer.stacked = layer.dropout = layer.members = None

    def _stacked(self, adapters: Sequence[Adapter | None]) -> Sequence[Stacked]:
        """Adapters, one a group, as the layers compute with them; the last are kept as long as none has changed."""
        state = [(adapter, adapter.version if adapter else 0) for adapter in adapters]
        if state != self.kept[0]:
            self.kept = [], []  # before the next ones take their memory
            rank = max((adapter.rank for adapter in adapters if adapter), default=0)
            with torch.inference_mode(False):  # who asks next may be in training
                self.kept = state, self._stack(adapters, rank) if rank else []
        return self.kept[1]

    def _stack(self, adapters: Sequence[Adapter | None], rank: int) -> list[Stacked]:
        """Adapters of at most this rank, one a group, as the layers compute with them."""
        layout = self.layout(rank)
        flat = torch.zeros(len(adapters), layout.size, device=self.device)
        for row, adapter in zip(flat, adapters, strict=True):
            if adapter is not None:
                places = layout.weights(row, adapter.rank)
                for path, weights in adapter.weights.items():
                    for place, part in zip(places[path], weights, strict=True):
                        place.copy_(part)
        scales = torch.tensor([adapter.scale if adapter else 0.0 for adapter in adapters], device=self.device)
        return layout.stack(flat, scales, self.dtype)
