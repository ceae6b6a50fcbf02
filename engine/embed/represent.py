"""Sentence embeddings of a data set's toxic and neutral text, under the base and its variants.

An embedding is the mean of a layer's hidden states (of an encoder-decoder: its encoder's) over the sentence's own
tokens: neither padding nor the tokenizer's opening token. What is made of them:
`engine.analysis.geometry`. Stores nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from engine.data.splits import Splits
from engine.generate.reader import right_padded
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase, halving
from engine.vocabulary import Language, Side

TOKENS_PER_PASS = 8192
"""Tokens of all variants together that are read at once, padding among them."""

BYTES_AT_ONCE = 1e9
"""What the embeddings may take that are held together."""

LAST_LAYER = -1


def sentences(splits: Splits, langs: Sequence[Language]) -> pd.DataFrame:
    """The text that is embedded, within the limits: eval_lang, part, side, sentence_index, sentence."""
    rows = [
        (lang.value, part.value, side.value, index, pair.toxic if side is Side.TOXIC else pair.neutral)
        for lang in langs
        for part, pairs in splits.parts(lang).items()
        for side in Side
        for index, pair in enumerate(pairs)
    ]
    return pd.DataFrame(rows, columns=["eval_lang", "part", "side", "sentence_index", "sentence"])


def most_at_once(loaded: LoadedBase, n_texts: int) -> int:
    """Of how many variants the embeddings of so many texts may be held together."""
    return max(1, int(BYTES_AT_ONCE / (4 * n_texts * loaded.model.config.hidden_size)))


@torch.inference_mode()
def embed(
    loaded: LoadedBase,
    stack: Stack,
    texts: Sequence[str],
    adapters: Sequence[str | None],
    advance: Callable[[int], None] = lambda rows: None,
    layer: int = LAST_LAYER,
) -> NDArray[np.float32]:
    """Texts under each of these adapters (None: the bare base) → [adapters, texts, dimensions].

    `layer` counts the embedding layer as 0; the last is taken after the base's final norm. `advance` is told of every
    adapters × texts that are done. Errors: KeyError (an adapter that is not in the stack).
    """
    around = loaded.opening_ids  # stands before the text; an encoder-decoder's source it closes
    opening, closing = ([], around) if loaded.base.is_encoder_decoder else (around, [])
    tokens = loaded.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    embeddings = np.empty((len(adapters), len(texts), loaded.model.config.hidden_size), np.float32)
    rows = [[*opening, *row, *closing] for row in tokens]

    def read(batch: Sequence[int], at_once: int) -> None:
        for start in range(0, len(batch), at_once):
            part = batch[start : start + at_once]
            ids = right_padded([rows[i] for i in part], loaded.device)
            lengths = torch.tensor([[len(tokens[i])] for i in part], device=loaded.device)
            places = torch.arange(ids.shape[1], device=loaded.device) - len(opening)
            weights = ((places >= 0) & (places < lengths)) / lengths
            mask = (places < lengths + len(closing)).long().repeat(len(adapters), 1)
            hidden = _hidden_states(loaded, ids.repeat(len(adapters), 1), mask, layer).view(
                len(adapters), *ids.shape, -1
            )
            embeddings[:, part] = torch.einsum("atwd,tw->atd", hidden.float(), weights).cpu().numpy()

    with stack.groups(adapters):
        for batch in _batches([len(row) for row in rows], len(adapters)):
            halving(partial(read, batch), len(batch), "texts")
            advance(len(batch) * len(adapters))
    return embeddings


def _hidden_states(loaded: LoadedBase, ids: torch.Tensor, mask: torch.Tensor, layer: int) -> torch.Tensor:
    """Hidden states [rows, tokens, dimensions] of one layer (of an encoder-decoder's encoder). All layers are kept only
    where an inner one is wanted."""
    keeps, model = {"output_hidden_states": layer != LAST_LAYER}, cast(Any, loaded.model)
    if loaded.base.is_encoder_decoder:
        read = model.encoder(input_ids=ids, attention_mask=mask, **keeps)
    else:  # padding stands on the right, where a causal base never looks, so that it needs no mask
        read = model.base_model(input_ids=ids, use_cache=False, **keeps)
    hidden: torch.Tensor = read.last_hidden_state if layer == LAST_LAYER else read.hidden_states[layer]
    return hidden


def _batches(lengths: Sequence[int], n_adapters: int) -> Iterator[list[int]]:
    """Indices of texts from short to long, as many together as fit a pass under so many adapters."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[index] * n_adapters > TOKENS_PER_PASS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
