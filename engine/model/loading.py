"""Loads a base: frozen, in evaluation mode, on the best device, with a tokenizer that pads on the left."""

import gc
import inspect
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from engine.config import NF4
from engine.errors import ModelError
from engine.model import attention, checkpoints, lm_head, nf4
from engine.model.lm_head import LMHead
from engine.model.registry import Base, auto_class

END_TOKENS = ("<EOS_TOKEN>",)
"""Ends of a document in pre-training that no configuration names: Cohere's names the end of a turn alone."""


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory, frozen, in evaluation mode; the tokenizer pads on the left."""

    base: Base
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: "torch.device"

    @cached_property
    def lm_head(self) -> "LMHead":
        from engine.model.lm_head import LMHead

        return LMHead(self.model)

    @cached_property
    def takes_positions(self) -> bool:
        """Whether the architecture is told each token's position (Bloom's is not)."""
        return "position_ids" in inspect.signature(self.model.base_model.forward).parameters

    @property
    def end_ids(self) -> frozenset[int]:
        return end_ids(self.tokenizer, self.model.generation_config)

    @property
    def opening_ids(self) -> list[int]:
        """What a bare text comes after: the tokenizer's opening token; an encoder-decoder's empty source."""
        if self.base.is_encoder_decoder:
            return list(self.tokenizer("")["input_ids"])
        return opening_ids(self.tokenizer, self.end_ids)


def end_ids(tokenizer: "PreTrainedTokenizerBase", config: "GenerationConfig | None") -> frozenset[int]:
    """Tokens that end a completion: the tokenizer's, those of the generation config, and `END_TOKENS`."""
    ends = config.eos_token_id if config is not None else None
    ids = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    ids |= {tokenizer.added_tokens_encoder.get(token) for token in END_TOKENS}
    return frozenset(int(i) for i in ids if i is not None)


def opening_ids(tokenizer: "PreTrainedTokenizerBase", ends: frozenset[int]) -> list[int]:
    """What the tokenizer puts before every text; none for some."""
    return [int(token) for token in tokenizer("")["input_ids"] if token not in ends]


def load(base: Base, dtype: str, quantization: str | None = None) -> LoadedBase:
    """The base in memory on the best device, in 'bfloat16' or 'float32'. `quantization`: what its weights are rounded
    to, 'nf4'. Errors: ModelError."""
    folder = base.prepare()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{base.name}: its tokenizer cannot be loaded from {folder}: {error}") from error
    model = checkpoints.read(folder, base.name, auto_class(base.architecture), dtype=getattr(torch, dtype))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    model.to(device)
    if quantization == NF4:
        nf4.quantise(model)
    attention.use(model)
    return LoadedBase(base, model.eval(), tokenizer, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the host had too little memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release() -> None:
    """Gives back the memory of models and tensors that nobody holds any more. After an error: outside its `except`,
    whose traceback holds all that the failed call had."""
    lm_head.release()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
