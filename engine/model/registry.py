"""The known bases, what their architectures need, and how they are loaded.

Owns hub ids, LoRA targets and dtypes. `resolve` is cheap and fails early; `load` is heavy. Weights come from
safetensors (`engine.model.checkpoints` makes them of a pickle of tensors); no remote code is run.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.config import EMBEDDED_MODEL, TINY_MODEL
from engine.errors import ModelError, unknown
from engine.model import checkpoints, embedded, hub, tiny
from engine.model.shape import Shape, shape_of
from engine.vocabulary import slug

_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Architecture:
    """What an architecture needs. `targets`: the linear layers that get an adapter. `packs`: whether sentences can lie
    one behind the other in a row, told apart by their positions. `vllm`: whether vLLM runs it with adapters (Bloom's it
    would have to merge, an engine each, one after the other; mT5 it does not run)."""

    targets: tuple[str, ...] = _QKVO
    packs: bool = True
    vllm: bool = True
    is_encoder_decoder: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "ApertusForCausalLM": Architecture(vllm=False),
    "BloomForCausalLM": Architecture(("query_key_value",), packs=False, vllm=False),
    "CohereForCausalLM": Architecture(),
    "Cohere2ForCausalLM": Architecture(),
    "FalconForCausalLM": Architecture(("query_key_value",), packs=False, vllm=False),
    "Gemma2ForCausalLM": Architecture(),
    "Gemma3ForCausalLM": Architecture(),
    "Gemma3ForConditionalGeneration": Architecture(vllm=False),
    "GlmForCausalLM": Architecture(),
    "Glm4ForCausalLM": Architecture(),
    "GPT2LMHeadModel": Architecture(("c_attn",), packs=False, vllm=False),
    "GPTNeoXForCausalLM": Architecture(("query_key_value",)),
    "GraniteForCausalLM": Architecture(),
    "LlamaForCausalLM": Architecture(),
    "MistralForCausalLM": Architecture(),
    "MixtralForCausalLM": Architecture(),
    "MT5ForConditionalGeneration": Architecture(("q", "v"), packs=False, vllm=False, is_encoder_decoder=True),
    "Olmo2ForCausalLM": Architecture(),
    "OPTForCausalLM": Architecture(("q_proj", "k_proj", "v_proj", "out_proj"), packs=False),
    "Phi3ForCausalLM": Architecture(("qkv_proj", "o_proj")),
    "Qwen2ForCausalLM": Architecture(),
    "Qwen3ForCausalLM": Architecture(),
    "Qwen3MoeForCausalLM": Architecture(),
    "SmolLM3ForCausalLM": Architecture(),
    "StableLmForCausalLM": Architecture(vllm=False),
    "T5ForConditionalGeneration": Architecture(("q", "v"), packs=False, vllm=False, is_encoder_decoder=True),
    "XGLMForCausalLM": Architecture(("q_proj", "k_proj", "v_proj", "out_proj"), packs=False, vllm=False),
}
"""Each is tested against PEFT (tests/pipeline/test_bases.py, docs/bases.md)."""

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""How transformers ends the names of causal language models."""

LATEST = "latest"
"""The revision of a hub base that is only described: which one it is, only the hub can say."""


@dataclass(frozen=True)
class KnownBase:
    """A base by its key. `licence`: the hub's word. `is_instruct`: it was tuned to answer chats."""

    key: str
    hub_id: str
    architecture: str
    shape: Shape
    licence: str = "unknown"
    is_instruct: bool = False


_GEMMA = Shape(18, 640, 2048, 1024, 256, 262_144, 18)
_AYA = Shape(32, 4096, 14_336, 4096, 1024, 256_000, 32)
_BLOOM = Shape(30, 4096, 16_384, 4096, 4096, 250_880, 30, mlp_matrices=2)
_MT5 = Shape(48, 1024, 2816, 1024, 1024, 250_112, 72, embeddings=2)
_TINY = Shape(2, 32, 64, 64, 32, 2048, 2)

KNOWN_BASES: dict[str, KnownBase] = {
    base.key: base
    for base in (
        KnownBase(EMBEDDED_MODEL, "google/gemma-3-270m", "Gemma3ForCausalLM", _GEMMA, "gemma"),
        KnownBase("aya-expanse-8b", "CohereLabs/aya-expanse-8b", "CohereForCausalLM", _AYA, "cc-by-nc-4.0", True),
        KnownBase("aya-23-8b", "CohereLabs/aya-23-8B", "CohereForCausalLM", _AYA, "cc-by-nc-4.0", True),
        KnownBase("bloom-7b1", "bigscience/bloom-7b1", "BloomForCausalLM", _BLOOM, "bigscience-bloom-rail-1.0"),
        KnownBase("mt5-large", "google/mt5-large", "MT5ForConditionalGeneration", _MT5, "apache-2.0"),
        KnownBase(TINY_MODEL, "", "Gemma3ForCausalLM", _TINY),
    )
}


@dataclass(frozen=True)
class Base:
    """A base found and ready to load: `revision` is the identity of its weights and tokenizer."""

    name: str
    revision: str
    architecture: str
    shape: Shape
    prepare: Callable[[], Path]
    """Makes the folder that transformers loads (converts, builds or downloads; at once when already there)."""
    lora_targets: tuple[str, ...] = ()
    """Other linear layers than the architecture's own get an adapter."""

    @property
    def facts(self) -> Architecture:
        """Of its architecture; the safe choices where it is not one of ours."""
        return ARCHITECTURES.get(self.architecture, Architecture((), packs=False, vllm=False))

    @property
    def targets(self) -> tuple[str, ...]:
        return self.lora_targets or self.facts.targets

    @property
    def is_encoder_decoder(self) -> bool:
        return self.facts.is_encoder_decoder


def describe(name: str) -> Base:
    """`resolve` without the network for the bases of the paper: enough for a plan, not for a run. Errors: its."""
    known = _known_base(name) if name.lower() not in (EMBEDDED_MODEL, TINY_MODEL) and not Path(name).is_dir() else None
    if known is None:
        return resolve(name)
    return Base(known.key, LATEST, known.architecture, known.shape, lambda: resolve(known.key).prepare())


def resolve(name: str) -> Base:
    """A key of ours, a hub id or a local folder → the base, its revision pinned.

    Errors: UsageError (no such name), ModelError (not to be had here, or of an architecture we do not know).
    """
    if name.lower() in (EMBEDDED_MODEL, TINY_MODEL):
        name = name.lower()
    if name == EMBEDDED_MODEL:
        return Base(name, embedded.revision(), KNOWN_BASES[name].architecture, KNOWN_BASES[name].shape, embedded.folder)
    if name == TINY_MODEL:
        return Base(name, tiny.RECIPE, KNOWN_BASES[name].architecture, KNOWN_BASES[name].shape, tiny.folder)
    if Path(name).is_dir():
        return _local(Path(name))
    known = _known_base(name)
    return _hub(known.hub_id if known else name, known.key if known else name)


def at_hand(name: str, folder: str) -> str | None:
    """What `resolve` finds without the network for the base `name`, whose weights were last seen in `folder`; None
    where they are not on this machine."""
    if name == TINY_MODEL or (name == EMBEDDED_MODEL and find_spec(embedded.PACKAGE) is not None):
        return name
    return folder if folder and (Path(folder) / "config.json").is_file() else None


def _known_base(name: str) -> KnownBase | None:
    """The base of ours with this key or hub id, None for another hub id. Errors: UsageError."""
    for base in KNOWN_BASES.values():
        if name.lower() in (base.key, base.hub_id.lower()):
            return base
    if "/" not in name:
        raise unknown("model", name, KNOWN_BASES, "--models; or a hub id, or a folder")
    return None


def prepare(base: Base) -> Base:
    """`base` itself, its weights on this machine and whole. Errors: ModelError, also when it lacks a layer to adapt."""
    model = checkpoints.check_whole(base.prepare(), base.name, auto_class(base.architecture))
    check_targets(model, base.targets)
    if base.name not in (EMBEDDED_MODEL, TINY_MODEL):
        _check_vocabulary(model, base)
    return base


def _check_vocabulary(model: Any, base: Base) -> None:
    """Errors: ModelError when a tokenizer has tokens that the base has no embedding for."""
    from transformers import AutoTokenizer

    try:
        tokens = len(AutoTokenizer.from_pretrained(base.prepare()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{base.name}: its tokenizer cannot be loaded: {error}") from error
    rows = int(model.get_input_embeddings().weight.shape[0])
    if tokens > rows:
        raise ModelError(
            f"{base.name}: its tokenizer has {tokens:,} tokens, and the base has embeddings for {rows:,}. Resize them "
            "(resize_token_embeddings) and save it again, or restore its own tokenizer."
        )


def check_chat_template(base: Base) -> None:
    """Errors: ModelError when its tokenizer has no chat template."""
    from transformers import AutoTokenizer

    if AutoTokenizer.from_pretrained(base.prepare()).chat_template is None:
        raise ModelError(
            f"{base.name}: its tokenizer has no chat template. Leave --chat-template out, as for base models."
        )


def linear_names(model: Any) -> set[str]:
    """The names of a model's linear layers, without their paths."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    modules = model.named_modules()
    return {name.rsplit(".", 1)[-1] for name, module in modules if isinstance(module, nn.Linear | Conv1D)}


def check_targets(model: Any, targets: Sequence[str]) -> None:
    """Errors: ModelError when a model has no linear layer of one of these names."""
    linear = linear_names(model)
    if missing := [target for target in targets if target not in linear]:
        raise ModelError(
            f"the base has no linear layer named {', '.join(missing)} to adapt. Its linear layers: "
            f"{', '.join(sorted(linear))}. Give others with --lora-targets."
        )


def resolve_all(
    names: Sequence[str], find: Callable[[str], Base] = resolve, lora_targets: tuple[str, ...] = ()
) -> list[Base]:
    """The bases of these names, each content once, with adapters on `lora_targets` (empty: the architecture's own);
    `find` is `resolve`, or `describe` for an outline. Errors: its; ModelError without any targets.

    Local folders of one name and other content (runA/checkpoint-500, runB/checkpoint-500) are told apart by the folder
    above, and by their revision where that has one name too.
    """
    bases: dict[tuple[str, str], tuple[Base, Path]] = {}
    for name in names:
        base = replace(find(name), lora_targets=lora_targets)
        if not base.targets:
            raise ModelError(
                f"{name}: the architecture {base.architecture} is not known. Give --lora-targets with the names of the "
                f"linear layers that get an adapter (such as q_proj v_proj). Known: {', '.join(ARCHITECTURES)}."
            )
        bases.setdefault((base.name if base.revision == LATEST else "", base.revision), (base, Path(name).resolve()))
    for is_longest in (False, True):
        count = Counter(base.name for base, _ in bases.values())
        for key, (base, path) in bases.items():
            if count[base.name] > 1:
                name = f"{base.name}-{base.revision}" if is_longest else f"{path.parent.name}-{base.name}"
                bases[key] = replace(base, name=slug(name)), path
    return [base for base, _ in bases.values()]


def _local(folder: Path) -> Base:
    """A folder of config, tokenizer and weights; its revision is the hash of their content."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder}: no config.json; --models needs a folder that transformers can load.")
    weights = checkpoints.pattern_of((path.name for path in folder.iterdir()), str(folder))
    try:
        built = _architecture_and_shape(json.loads(config.read_text(encoding="utf-8")), str(folder))
    except ValueError as error:
        raise ModelError(f"{config}: not valid JSON: {error}") from error
    _refuse_incomplete(folder, weights)
    name, revision = slug(folder.resolve().name), _content_hash(folder, weights)
    auto = partial(auto_class, built[0])
    return Base(name, revision, *built, _preparation(weights, revision, name, lambda: folder, auto))


TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
"""Files of which a tokenizer has one."""
LFS_POINTER = b"version https://git-lfs"


def _refuse_incomplete(folder: Path, weights: str) -> None:
    """Errors: ModelError when a folder is an adapter's, has no tokenizer, or names of files in place of files."""
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        raise ModelError(
            f"{folder}: has an adapter in it (adapter_config.json). --models takes a base alone: merge the adapter "
            "(merge_and_unload), or move its files to another folder."
        )
    if not names & set(TOKENIZERS):
        raise ModelError(f"{folder}: no tokenizer ({', '.join(TOKENIZERS)}). Save it there with save_pretrained.")
    for path in sorted(folder.glob(weights)):
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"{path}: a pointer of Git LFS, not the weights. Run `git lfs pull` in its folder.")


def _preparation(
    weights: str, revision: str, name: str, source: Callable[[], Path], auto: Callable[[], Any]
) -> Callable[[], Path]:
    """What makes the folder with safetensors of a model whose files, with weights of this pattern, `source` gives."""
    if weights == checkpoints.SAFETENSORS:
        return source
    return lambda: checkpoints.convert(revision, name, source, auto)


def _hub_weights(config: Path, hub_id: str) -> str:
    """The pattern of a hub model's weights; the hub is not asked for what is converted already."""
    is_converted = checkpoints.is_converted(config.parent.name)
    return checkpoints.PICKLES if is_converted else hub.weights_of(config, hub_id)


def auto_class(architecture: str) -> Any:
    """The class of transformers that loads it."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    is_encoder_decoder = architecture in ARCHITECTURES and ARCHITECTURES[architecture].is_encoder_decoder
    return AutoModelForSeq2SeqLM if is_encoder_decoder else AutoModelForCausalLM


def _classifiers() -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def _content_hash(folder: Path, weights: str) -> str:
    content = hashlib.sha256()
    for path in sorted(path for pattern in ("*.json", "*.model", weights) for path in folder.glob(pattern)):
        with open(path, "rb") as file:
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return content.hexdigest()[:12]


def find_classifier(source: str) -> tuple[Path, str]:
    """A hub id or folder of a classifier → its folder with safetensors, downloaded where it must be, and its revision.

    Errors: UsageError, ModelError (also when it is not whole).
    """
    folder = Path(source)
    if not folder.is_dir():
        config = hub.config_of(source, "--scorers classifier:")
        revision = config.parent.name
        weights = _hub_weights(config, source)
        files = partial(hub.download, source, revision, weights)
    elif not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; a classifier needs a folder that transformers can load.")
    else:
        weights = checkpoints.pattern_of((path.name for path in folder.iterdir()), str(folder))
        revision = _content_hash(folder, weights)
        files = partial(Path, folder)
    prepared = _preparation(weights, revision, source, files, _classifiers)()
    checkpoints.check_whole(prepared, source, _classifiers())
    return prepared, revision


def classifier_at_hand(source: str) -> Path | None:
    """The folder of a classifier whose weights are on this machine, in the hub's cache or where `source` says."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(source)
    if not folder.is_dir():
        try:
            config = try_to_load_from_cache(source, "config.json")
        except HFValidationError:
            return None
        folder = Path(config).parent if isinstance(config, str) else folder
    return folder if list(folder.glob("*.safetensors")) else None


def _hub(hub_id: str, name: str) -> Base:
    config = hub.config_of(hub_id, "--models")
    commit = config.parent.name
    built = _architecture_and_shape(json.loads(config.read_text(encoding="utf-8")), hub_id)
    weights = _hub_weights(config, hub_id)
    source, auto = partial(hub.download, hub_id, commit, weights), partial(auto_class, built[0])
    return Base(name, commit, *built, _preparation(weights, commit, name, source, auto))


def _architecture_and_shape(config: dict[str, Any], name: str) -> tuple[str, Shape]:
    """The architecture and the shape that a config.json tells. Errors: ModelError."""
    if quantization := config.get("quantization_config"):
        method = (
            quantization.get("quant_method", "an unknown method") if isinstance(quantization, dict) else quantization
        )
        raise ModelError(
            f"{name}: its weights are quantised ({method}), and adapters are trained on unquantised ones. Give the "
            "original model; --quantization nf4 rounds it to 4 bits."
        )
    architecture = str((config.get("architectures") or [_by_model_type(str(config.get("model_type", "unknown")))])[0])
    if architecture not in ARCHITECTURES and not architecture.endswith(CAUSAL):
        raise ModelError(
            f"{name}: {architecture} is no causal language model, nor a known encoder-decoder. "
            f"Known: {', '.join(ARCHITECTURES)}."
        )
    try:
        return architecture, shape_of(config)
    except KeyError as error:
        raise ModelError(f"{name}: its config.json lacks {error}, which {architecture} needs.") from error


def _by_model_type(model_type: str) -> str:
    """The architecture of ours that a model type is of, where config.json names none; else the model type itself."""
    letters = model_type.removesuffix("_text").replace("_", "").replace("-", "").lower()
    return next(
        (n for n in ARCHITECTURES if n.partition("For")[0].partition("LMHead")[0].lower() == letters), model_type
    )


def versions() -> dict[str, str]:
    """The versions that shape weights and text."""
    numbers = {}
    for package in ("torch", "transformers", "peft", "tokenizers"):
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "absent"
    return numbers
