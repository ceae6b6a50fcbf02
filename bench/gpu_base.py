"""A base with random weights on the device at hand, text made of random token ids, and what counts and times there."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.model import loading, shape
from engine.model.loading import LoadedBase
from engine.model.machine import Machine, at_hand
from engine.model.registry import Base
from engine.vocabulary import Pair

SHAPES: dict[str, dict[str, Any]] = {
    "cohere-8b": {
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14_336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 256_000, "logit_scale": 0.0625,
    },
    "tiny": {
        "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 2048, "logit_scale": 0.0625,
    },
}  # fmt: skip
"""The configuration of a Cohere model: Aya 8B's, and one for a CPU."""

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
BOS, EOS, PAD = 1, 2, 0
SENTENCE_TOKENS = (20, 44)
"""The fewest and the most of a sentence."""


class NumberTokenizer:
    """Stands for a tokenizer: a text is its token ids, written as numbers."""

    eos_token_id, pad_token_id = EOS, PAD
    added_tokens_encoder: Mapping[str, int] = MappingProxyType({})

    def __call__(self, texts: str | Sequence[str], add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        opening = [BOS] if add_special_tokens else []
        rows = [[*opening, *map(int, text.split())] for text in ([texts] if isinstance(texts, str) else texts)]
        return {"input_ids": rows[0] if isinstance(texts, str) else rows}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


@dataclass(frozen=True)
class Device:
    """The device at hand and the shape of its base."""

    shape_name: str

    @property
    def is_cuda(self) -> bool:
        return torch.cuda.is_available()

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda" if self.is_cuda else "cpu")

    @cached_property
    def machine(self) -> Machine:
        return at_hand() if self.is_cuda else Machine("cpu", "this machine", 16e9, "float32", {})

    def plain(self, dtype: torch.dtype, layers: int | None = None, logit_scale: float | None = None) -> Any:
        """The base as transformers has it, frozen, with `layers` and a scale of its logits (None: the shape's own)."""
        from transformers import CohereConfig, CohereForCausalLM

        sizes = dict(SHAPES[self.shape_name])
        if layers is not None:
            sizes["num_hidden_layers"] = layers
        if logit_scale is not None:
            sizes["logit_scale"] = logit_scale
        config = CohereConfig(
            **sizes,
            bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
        )  # fmt: skip
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self.torch_device:
                model: Any = CohereForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
        return model.requires_grad_(False).eval()

    def loaded(self, model: Any) -> LoadedBase:
        """The base as the engine has it, over a model of `plain`."""
        loading.use_ours(model)
        its_shape = shape.shape_of(model.config.to_dict())
        base = Base("random", "0", "CohereForCausalLM", its_shape, lambda: Path())
        tokenizer: Any = NumberTokenizer()
        return loading.LoadedBase(base, model, tokenizer, self.torch_device)

    def texts(self, count: int, seed: int = 0) -> list[str]:
        """Sentences of random tokens."""
        rng, size = random.Random(seed), SHAPES[self.shape_name]["vocab_size"]
        lengths = [rng.randint(*SENTENCE_TOKENS) for _ in range(count)]
        return [" ".join(str(rng.randrange(3, size)) for _ in range(length)) for length in lengths]

    def pairs(self, count: int, seed: int = 0) -> list[Pair]:
        return [Pair(text, text) for text in self.texts(count, seed)]

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one call, from an idle device to an idle device."""
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - began

    def reset_peak(self) -> None:
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Of the device's memory, since the last reset; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.is_cuda else None


class OperatorCount(TorchDispatchMode):
    """Counts what is dispatched: operators, but those that only give another view of a tensor; and those that have the
    host wait for the device."""

    WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        self.operators += not _is_view(func, out, args)
        is_by_mask = name.startswith(("aten.index.", "aten.index_put")) and any(
            torch.is_tensor(index) and index.dtype == torch.bool for index in args[1]
        )
        is_to_host = (
            name.startswith(("aten._to_copy", "aten.copy_"))
            and torch.is_tensor(out)
            and out.device.type == "cpu"
            and any(torch.is_tensor(arg) and arg.device.type != "cpu" for arg in args)
        )
        self.waits += name.startswith(self.WAITS) or is_by_mask or is_to_host
        return out


def _is_view(func: Any, out: Any, args: Sequence[Any]) -> bool:
    """Whether an operator computes nothing: what it gives lies where an argument lies, and is not written to."""
    first = out[0] if isinstance(out, list | tuple) and out else out
    if func._schema.is_mutable or not torch.is_tensor(first) or first.layout is not torch.strided:
        return False
    return any(
        torch.is_tensor(arg)
        and arg.layout is torch.strided
        and arg.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        for arg in args
    )
