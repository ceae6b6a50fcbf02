"""A tiny base with random weights and its own tokenizer, built in a second: for `smoke` and the tests.

It has the embedded base's architecture and writes gibberish; what it is good for is running every line of
the pipeline. Deterministic: one recipe, one content.
"""

from pathlib import Path
from typing import Any

from engine.model.cache import cache_folder, make_once

PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}
_T5 = {"num_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 0.6}
_VISION = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}
ENCODER_DECODERS = ("MT5ForConditionalGeneration", "T5ForConditionalGeneration")
SIZES: dict[str, dict[str, Any]] = {
    "BloomForCausalLM": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "FalconForCausalLM": {name: size for name, size in PLAIN.items() if name != "intermediate_size"},
    "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 512},
    "GPTNeoXForCausalLM": PLAIN,
    "Gemma2ForCausalLM": GROUPED | {"head_dim": 16, "final_logit_softcapping": 6.0},
    "Gemma3ForCausalLM": GROUPED | {"head_dim": 16},
    "Gemma3ForConditionalGeneration": {"text_config": GROUPED | {"head_dim": 16}, "vision_config": _VISION},
    "GraniteForCausalLM": GROUPED
    | {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1},
    "MT5ForConditionalGeneration": _T5,
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4},
    "OPTForCausalLM": PLAIN | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Qwen3ForCausalLM": GROUPED | {"head_dim": 16},
    "Qwen3MoeForCausalLM": GROUPED
    | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "T5ForConditionalGeneration": _T5,
    "XGLMForCausalLM": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
}
"""By architecture; others are like Llama."""

RECIPE = "tiny-1"
VOCABULARY_SIZE = 2048


def folder() -> Path:
    """The folder of the tiny base of `smoke`, built at the first call."""
    return make_once(cache_folder() / f"tiny-random-{RECIPE}", lambda place: build(place, "Gemma3ForCausalLM"))


def build(folder: Path, architecture: str, words: Any = None) -> None:
    """A tiny random base of one of the known architectures, as a normal model folder. `words`: a tokenizer that takes
    the place of ours."""
    import torch
    import transformers

    words = words or tokenizer()
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    ids |= {"vocab_size": len(words)}
    size: dict[str, Any] = {"initializer_range": 0.3, **ids, **SIZES.get(architecture, GROUPED | {"head_dim": 8})}
    if architecture in ENCODER_DECODERS:
        size["decoder_start_token_id"] = ids["pad_token_id"]
    if "text_config" in size:
        size["text_config"] |= {"initializer_range": 0.3, **ids}
    kind = getattr(transformers, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(kind.config_class(**size))
        if architecture == "MT5ForConditionalGeneration":  # a head of its own, which its configuration cannot say
            model.lm_head = torch.nn.Linear(model.config.d_model, len(words), bias=False)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def tokenizer() -> Any:
    """Byte-level BPE learnt from the bundled sample; begins every text with BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from engine.data import dataset

    sample = dataset.load("sample")
    text = [side for pairs in sample.train.values() for pair in pairs for side in (pair.toxic, pair.neutral)]
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(text, trainer)
    fast.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
