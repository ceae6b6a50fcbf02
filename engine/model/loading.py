"""Loads a base: frozen, in evaluation mode, on the best device, with a tokenizer that pads on the left."""

import gc
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from engine.config import NF4
from engine.errors import ModelError
from engine.model import attention, checkpoints, lm_head, nf4, norms, rope
from engine.model.lm_head import LMHead
from engine.model.registry import Base, auto_class

T = TypeVar("T")

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

    def encode(self, texts: Sequence[str], is_chat: bool = False, max_tokens: int | None = None) -> list[list[int]]:
        """Texts → token ids, as `encode`; of an encoder-decoder's texts the end token is a part."""
        ends = frozenset[int]() if self.base.is_encoder_decoder else self.end_ids
        return encode(self.tokenizer, texts, ends, is_chat, max_tokens)

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


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    ends: frozenset[int],
    is_chat: bool = False,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Texts as a causal base reads them → token ids: after the tokenizer's opening token, and without the end token
    that some tokenizers append. `is_chat`: each as the user's turn of a chat, in the tokenizer's template."""
    if is_chat:
        turns = [[{"role": "user", "content": text}] for text in texts]
        made: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False) if turns else []
        return list(made)
    options = {"truncation": True, "max_length": max_tokens} if max_tokens else {}
    rows: list[list[int]] = tokenizer(list(texts), **options)["input_ids"] if texts else []
    return [row[:-1] if row and row[-1] in ends else row for row in rows]


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
    use_ours(model)
    loaded = LoadedBase(base, model.eval(), tokenizer, device)
    check_head(loaded)
    return loaded


def use_ours(model: "PreTrainedModel") -> None:
    """Has a frozen model compute the same in fewer operators."""
    attention.use(model)
    norms.use(model)
    rope.use(model)


HEAD_TOLERANCE = 0.1
"""Largest gap between logits, in standard deviations of theirs; rounding in bfloat16 makes a tenth of it."""


@torch.inference_mode()
def check_head(loaded: LoadedBase) -> None:
    """Errors: ModelError when the logits that we compute are not the model's own: an architecture may do more with them
    than we know of, and every likelihood would be wrong."""
    model: Any = loaded.model
    ids = torch.arange(3, 7, device=loaded.device)[None]
    hidden: Tensor
    if loaded.base.is_encoder_decoder:
        states = model.encoder(input_ids=ids).last_hidden_state
        hidden = model.decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False).last_hidden_state
        expected = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits[0].float()
    else:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        expected = model(input_ids=ids, use_cache=False).logits[0].float()
    if not expected.isfinite().all():
        raise ModelError(
            f"{loaded.base.name}: its logits are not numbers, so its weights are damaged. Download or save it again."
        )
    gap = (loaded.lm_head.logits(hidden[0]).float() - expected).abs().max() / expected.std()
    if not gap < HEAD_TOLERANCE:
        raise ModelError(
            f"{loaded.base.name}: {loaded.base.architecture} computes its logits in a way that this version does not "
            "know, so likelihoods would be wrong. Please report the architecture."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the host had too little memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def halving(work: Callable[[int], T], size: int, unit: str) -> tuple[T, int]:
    """What `work(size)` returns, and the size; where memory is short, it is called again with half of it. Errors: what
    torch raises when 1 does not fit."""
    while True:
        try:
            return work(size), size
        except Exception as error:
            if not is_out_of_memory(error) or size < 2:
                raise
        size //= 2  # outside the except, whose traceback holds all that the call had
        release()
        warnings.warn(f"out of memory; going on with {size} {unit} at once", stacklevel=2)


def release() -> None:
    """Gives back the memory of models and tensors that nobody holds any more. After an error: outside its `except`,
    whose traceback holds all that the failed call had."""
    lm_head.release()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
