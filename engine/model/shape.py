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
        """Of LoRA on these layers of every attention."""
        widths = {
            "q_proj": self.hidden_size + self.q_dim,
            "k_proj": self.hidden_size + self.kv_dim,
            "v_proj": self.hidden_size + self.kv_dim,
            "o_proj": self.q_dim + self.hidden_size,
            "query_key_value": self.hidden_size + self.q_dim + 2 * self.kv_dim,
            "q": self.hidden_size + self.q_dim,
            "v": self.hidden_size + self.kv_dim,
        }
        return self.num_attentions * rank * sum(widths[target] for target in targets)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """config.json → the shape. Errors: KeyError where it does not say enough."""
    if config.get("model_type") == "bloom":
        hidden = config.get("hidden_size") or config["n_embed"]
        layers = config["n_layer"]
        return Shape(layers, hidden, 4 * hidden, hidden, hidden, config["vocab_size"], layers, 2)
    if config.get("is_encoder_decoder"):
        encoder = config["num_layers"]
        decoder = config.get("num_decoder_layers") or encoder
        width = config["num_heads"] * config["d_kv"]
        layers, attentions = encoder + decoder, encoder + 2 * decoder
        sizes = (layers, config["d_model"], config["d_ff"], width, width, config["vocab_size"], attentions)
        # mT5's head is its own: `tie_word_embeddings` means something else there, and transformers overrules it.
        return Shape(*sizes, embeddings=2)
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    layers = config["num_hidden_layers"]
    keys = (config.get("num_key_value_heads") or heads) * size
    return Shape(
        layers,
        config["hidden_size"],
        config["intermediate_size"],
        heads * size,
        keys,
        config["vocab_size"],
        layers,
        embeddings=1 if config.get("tie_word_embeddings", True) else 2,
    )
