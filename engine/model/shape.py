"""The shape of a base: what its size, its memory and its adapters follow from. Read from config.json; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer. Of an encoder-decoder, `layers` counts both, and a decoder's has two `attentions`.

    `queries` and `keys` are the widths of all heads together, `inner` that of an MLP of `mlp_matrices`. `embeddings`: 1
    where the output head is the input embedding, else 2.
    """

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int
    attentions: int
    mlp_matrices: int = 3
    embeddings: int = 1

    @property
    def keeping(self) -> int:
        """Layers that keep a token's keys and values: of an encoder-decoder, the decoder's, which keep a token of the
        prompt for one of its attentions, and one that is written for the other."""
        return self.attentions - self.layers or self.layers

    @property
    def parameters(self) -> int:
        """Of all matrices; norms and biases are less than a thousandth."""
        attention = self.hidden * (2 * self.queries + 2 * self.keys)
        mlp = self.mlp_matrices * self.hidden * self.inner
        return self.embeddings * self.vocabulary * self.hidden + self.attentions * attention + self.layers * mlp

    @property
    def head_parameters(self) -> int:
        """Of the output head."""
        return self.vocabulary * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Of all layers: what a token passes that is read and not predicted."""
        return self.parameters - self.embeddings * self.head_parameters

    @property
    def activations(self) -> int:
        """Numbers that the layers make of a token: what training keeps of it."""
        per_layer = 4 * self.hidden + 2 * self.queries + 2 * self.keys + self.mlp_matrices * self.inner
        return self.layers * per_layer

    def adapter_parameters(self, targets: tuple[str, ...], rank: int) -> int:
        """Of LoRA on these layers of every attention."""
        widths = {
            "q_proj": self.hidden + self.queries,
            "k_proj": self.hidden + self.keys,
            "v_proj": self.hidden + self.keys,
            "o_proj": self.queries + self.hidden,
            "query_key_value": self.hidden + self.queries + 2 * self.keys,
            "q": self.hidden + self.queries,
            "v": self.hidden + self.keys,
        }
        return self.attentions * rank * sum(widths[target] for target in targets)


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
