"""Tiny bases whose files are of the kinds that the hub has of each architecture: tokenizers of the real classes with
small vocabularies, learnt from the bundled sample, which put before and after a text what the real ones put."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import processors

from engine.data import dataset
from engine.model import tiny

SIZE = 900
MARKERS, UNUSED = 3, 12
"""mT5's gap markers, which are tokens like any other; and rows of its weights that no token has."""
KINDS = {
    "CohereForCausalLM": "CohereTokenizer",
    "Gemma3ForCausalLM": "GemmaTokenizer",
    "LlamaForCausalLM": "LlamaTokenizer",
    "MistralForCausalLM": "LlamaTokenizer",
    "Qwen2ForCausalLM": "Qwen2Tokenizer",
    "Qwen3ForCausalLM": "Qwen2Tokenizer",
}


def build(folder: Path, architecture: str) -> None:
    """A tiny base in a folder that exists."""
    sample = dataset.load("sample")
    text = [side for pairs in sample.train.values() for pair in pairs for side in (pair.toxic, pair.neutral)]
    if architecture == "MT5ForConditionalGeneration":
        _build_mt5(folder, _t5(text))
    elif architecture == "BloomForCausalLM":
        made = tiny.tokenizer()
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # Bloom's opens no text
        tiny.build(folder, architecture, made)
        _change(folder / "tokenizer_config.json", tokenizer_class="BloomTokenizerFast")  # gone from transformers 5
    else:
        tiny.build(folder, architecture, _real(KINDS[architecture], text) if architecture in KINDS else None)


def _real(kind: str, text: list[str]) -> Any:
    made = getattr(transformers, kind)().train_new_from_iterator(text, SIZE)
    if kind == "CohereTokenizer":  # it is there beside the end of a turn, and no configuration names it
        made.add_tokens(["<EOS_TOKEN>"], special_tokens=True)
    if made.bos_token:
        opening = [(made.bos_token, made.bos_token_id)]
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{made.bos_token} $A", pair=f"{made.bos_token} $A {made.bos_token} $B", special_tokens=opening
        )
    return made


def _build_mt5(folder: Path, spiece: bytes) -> None:
    """Of mT5 the hub has no tokenizer.json but sentencepiece's file; its head is not its embedding, and both have more
    rows than there are tokens."""

    def write_tokenizer(place: Path) -> None:
        (place / "spiece.model").write_bytes(spiece)
        words = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 0}
        (place / "tokenizer_config.json").write_text(json.dumps({**words, "tokenizer_class": "T5Tokenizer"}))

    with tempfile.TemporaryDirectory() as place:
        write_tokenizer(Path(place))
        tiny.build(folder, "MT5ForConditionalGeneration", transformers.T5Tokenizer.from_pretrained(place))
    (folder / "tokenizer.json").unlink()
    write_tokenizer(folder)
    weights = load_file(folder / "model.safetensors")
    drawn = torch.Generator().manual_seed(0)
    shared = weights["shared.weight"]
    unused = torch.empty(UNUSED, shared.shape[1]).normal_(std=float(shared.std()), generator=drawn)
    weights["shared.weight"] = torch.cat([shared, unused])
    weights["lm_head.weight"] = torch.empty_like(weights["shared.weight"]).normal_(std=0.6, generator=drawn)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _change(folder / "config.json", vocab_size=len(weights["shared.weight"]), tie_word_embeddings=False)


def _change(file: Path, **words: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **words}))


def _t5(text: list[str]) -> bytes:
    """A spiece.model as mT5's is made. One thread, for the same pieces every time."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=written,
        vocab_size=SIZE,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    made = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    for number in reversed(range(MARKERS)):
        made.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=made.SentencePiece.USER_DEFINED)
    return bytes(made.SerializeToString())
