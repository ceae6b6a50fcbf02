"""Tokenizers of the real classes with small vocabularies, learnt from the bundled sample: what the hub's files of each
architecture put before and after a text, they put too."""

import json
from typing import Any

import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from engine import dataset, tiny

SIZE = 900
KINDS = {
    "CohereForCausalLM": "CohereTokenizer",
    "Gemma3ForCausalLM": "GemmaTokenizer",
    "LlamaForCausalLM": "LlamaTokenizer",
    "MistralForCausalLM": "LlamaTokenizer",
    "Qwen2ForCausalLM": "Qwen2Tokenizer",
    "Qwen3ForCausalLM": "Qwen2Tokenizer",
}


def real(architecture: str) -> Any:
    """The tokenizer of an architecture. transformers has no class for Bloom's any more: a byte-level BPE, like that
    of our tiny base, and opens no text."""
    sample = dataset.load("sample")
    text = [side for pairs in sample.train.values() for pair in pairs for side in (pair.toxic, pair.neutral)]
    if architecture == "MT5ForConditionalGeneration":
        return _t5(text)
    if architecture == "BloomForCausalLM":
        made = tiny.tokenizer()
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        return made
    made = getattr(transformers, KINDS[architecture])().train_new_from_iterator(text, SIZE)
    if made.bos_token:
        opening = [(made.bos_token, made.bos_token_id)]
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{made.bos_token} $A", pair=f"{made.bos_token} $A {made.bos_token} $B", special_tokens=opening
        )
    return made


def _t5(text: list[str]) -> Any:
    learnt = tokenizers.Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=special, unk_token="<unk>", show_progress=False)
    learnt.train_from_iterator(text, trainer)
    pieces = json.loads(learnt.to_str())["model"]["vocab"]
    return transformers.T5Tokenizer(vocab=[(piece, score) for piece, score in pieces], extra_ids=3)
