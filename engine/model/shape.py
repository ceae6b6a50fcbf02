"""Dimensions of a base, from which its parameters, its memory and its adapters' size are computed. Read from
config.json; pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer. Of an encoder-decoder, `num_layers` counts both, and a decoder's has two of
    `num_attentions`.

    `q_dim` and `kv_dim` are the widths of all heads together, `intermediate_size` that of an MLP of `mlp_matrices`.
    `embeddings`: 1 where the output head is the input embedding, else 2.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    q_dim: int
    kv_dim: int
    vocab_size: int
    num_attentions: int
    mlp_matrices: int = 3
    embeddings: int = 1

    @property
    def activations(self) -> int:
        """Numbers that the layers make of a token."""
        per_layer = 4 * self.hidden_size + 2 * self.q_dim + 2 * self.kv_dim + self.mlp_matrices * self.intermediate_size
        return self.num_layers * per_layer

    @property
    def layers_of_a_token(self) -> float:
        """Layers that a token passes: of an encoder-decoder those of one of the two, half of all."""
        return self.num_layers / 2 if self.num_attentions > self.num_layers else self.num_layers

    @property
    def caching_layers(self) -> int:
        """Layers that keep a token's keys and values: of an encoder-decoder, the decoder's, which keep a token of the
        prompt for one of its attentions, and one that is written for the other."""
        return self.num_attentions - self.num_layers or self.num_layers

    @property
    def parameters(self) -> int:
        """Of all matrices; norms and biases are less than a thousandth."""
        attention = self.hidden_size * (2 * self.q_dim + 2 * self.kv_dim)
        mlp = self.mlp_matrices * self.hidden_size * self.intermediate_size
        return (
            self.embeddings * self.vocab_size * self.hidden_size
            + self.num_attentions * attention
            + self.num_layers * mlp
        )

    @property
    def head_parameters(self) -> int:
        """Of the output head."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """Of all layers: what a token passes that is read and not predicted."""
        return self.parameters - self.embeddings * self.head_parameters

    def adapter_parameters(self, targets: tuple[str, ...], rank: int) -> int:
        """Of LoRA on these layers of every attention or MLP."""
        h, q, kv, inner = self.hidden_size, self.q_dim, self.kv_dim, self.intermediate_size
        attention = {
            **dict.fromkeys(("q_proj", "q"), h + q),
            **dict.fromkeys(("k_proj", "v_proj", "k", "v"), h + kv),
            **dict.fromkeys(("o_proj", "out_proj", "o", "dense"), q + h),
            **dict.fromkeys(("query_key_value", "qkv_proj", "c_attn", "Wqkv"), h + q + 2 * kv),
        }
        # A layer that is not known by name counts as one of the MLP's.
        return rank * sum(
            self.num_attentions * attention[target] if target in attention else self.num_layers * (h + inner)
            for target in targets
        )


NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "heads": ("num_attention_heads", "n_head", "attention_heads", "num_heads", "n_heads"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
}
"""What config.json calls the sizes, by the family of the architecture."""

TWO_MATRICES = ("apertus", "bloom", "falcon", "gpt2", "gpt_neox", "opt", "xglm")
"""Model types whose MLP has no gate."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """config.json → the shape; of a multimodal base, that of its text part. Errors: KeyError where it does not say
    enough."""
    config = {"tie_word_embeddings": config.get("tie_word_embeddings", True)} | config.get("text_config", config)
    if config.get("is_encoder_decoder"):
        encoder = config["num_layers"]
        decoder = config.get("num_decoder_layers") or encoder
        width = config["num_heads"] * config["d_kv"]
        layers, attentions = encoder + decoder, encoder + 2 * decoder
        mlp = 3 if "gated" in str(config.get("feed_forward_proj", "gated")) else 2
        sizes = (layers, config["d_model"], config["d_ff"], width, width, config["vocab_size"], attentions, mlp)
        # mT5's head is its own: `tie_word_embeddings` means something else there, and transformers overrules it.
        is_tied = config.get("model_type") == "t5" and config.get("tie_word_embeddings", True)
        return Shape(*sizes, embeddings=1 if is_tied else 2)
    layers, hidden, heads = (_size(config, name) for name in ("layers", "hidden", "heads"))
    size = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or config.get("num_kv_heads") or heads
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon's
        kv_heads = 1
    matrices = 2 if config.get("model_type") in TWO_MATRICES else 3
    experts = config.get("num_local_experts") or config.get("num_experts") or 1
    inner = (config.get("moe_intermediate_size") or _size(config, "inner", 4 * hidden)) * experts
    return Shape(
        layers,
        hidden,
        inner,
        heads * size,
        kv_heads * size,
        config["vocab_size"],
        layers,
        matrices,
        embeddings=1 if config.get("tie_word_embeddings", True) else 2,
    )


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    for key in NAMES[name]:
        if config.get(key) is not None:
            return int(config[key])
    if default is None:
        raise KeyError(NAMES[name][0])
    return default
