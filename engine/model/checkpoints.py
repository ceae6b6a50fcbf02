"""The weight files of a model folder: their format, whether they are complete, and the conversion of pickles to
safetensors.

Weights are read from safetensors. Where there is only a `pytorch_model.bin` (google/mt5-large, for one), it is
unpickled with `weights_only`, which builds tensors and runs no code, and kept as safetensors from then on. Weights that
a folder lacks are never made up: transformers would draw them at random, and only warn.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from engine.errors import ModelError
from engine.model.cache import cache_folder, make_once

SAFETENSORS, PICKLES = "*.safetensors", "pytorch_model*.bin"
SIDE_FILES = ("*.json", "*.model", "*.txt")
"""Configuration and tokenizer: what a model needs beside its weights."""

MAX_NAMED = 3
"""Tensors that an error names."""


def pattern_of(files: Iterable[str], name: str) -> str:
    """`SAFETENSORS` where a model has such files, else `PICKLES`. Errors: ModelError when it has neither."""
    names = list(files)
    for pattern in (SAFETENSORS, PICKLES):
        if any(fnmatch(file, pattern) for file in names if "/" not in file):
            return pattern
    others = ", ".join(sorted(file for file in names if file.endswith((".h5", ".msgpack", ".ckpt", ".gguf", ".pt"))))
    raise ModelError(
        f"{name}: no {SAFETENSORS} and no {PICKLES}: it has no weights to load"
        + (f" (it has {others})" if others else "")
        + ". Load it with the library that made it, save model and tokenizer with save_pretrained, and give that "
        "folder."
    )


def is_converted(revision: str) -> bool:
    """Whether `convert` has made this revision."""
    return _converted_folder(revision).is_dir()


def convert(revision: str, name: str, source: Callable[[], Path], auto: Callable[[], Any]) -> Path:
    """A folder in our cache that has as safetensors what the folder `source()` has as pickles, made once.

    `auto`: gives the class of transformers that loads it (imported at need). Errors: ModelError.
    """
    return make_once(_converted_folder(revision), lambda place: _convert(source(), place, name, auto()))


def _converted_folder(revision: str) -> Path:
    return cache_folder() / "safetensors" / revision


def check_whole(folder: Path, name: str, auto: Any) -> Any:
    """The model without its weights. Errors: ModelError when weights that it needs are not in its folder, or of another
    shape. Reads names and shapes alone."""
    return read(folder, name, auto, device_map="meta")


def read(folder: Path, name: str, auto: Any, **options: Any) -> Any:
    """The model of a folder with safetensors, all of its weights from there. Errors: ModelError."""
    from safetensors import SafetensorError

    try:
        # What does not fit is named below, like what is missing.
        model, info = auto.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{name}: cannot be loaded from {folder}: {error}") from error
    _refuse_missing(folder, name, info)
    return model


def _refuse_missing(folder: Path, name: str, info: Mapping[str, Any]) -> None:
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if misfits := sorted({str(key[0]) for key in info["mismatched_keys"]}):
        raise ModelError(
            f"{name}: the shapes of weights in {folder} do not match its config.json ({_some(misfits)}). "
            "Restore the config.json that it was saved with."
        )
    if not missing:
        return
    cause = ""
    if unexpected:
        cause = f" Its files have {len(unexpected)} tensors that the model has no place for ({_some(unexpected)})."
    if any(key.startswith("_orig_mod.") for key in unexpected):
        cause += " They were saved from a model under torch.compile: save the model itself (model._orig_mod)."
    are = "weight is" if len(missing) == 1 else "weights are"
    raise ModelError(
        f"{name}: {len(missing)} {are} not in {folder} ({_some(missing)}), so they would be random.{cause} "
        "Save the whole model with save_pretrained, and give that folder."
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:MAX_NAMED]) + (", …" if len(keys) > MAX_NAMED else "")


def _convert(folder: Path, place: Path, name: str, auto: Any) -> None:
    """The model of `folder`, whose weights are pickles, with safetensors in `place`."""
    pickles = sorted(folder.glob(PICKLES))
    warnings.warn(
        f"{name}: its weights are {pickles[0].name}, a pickle. They are converted once to safetensors, in "
        f"{cache_folder()}.",
        stacklevel=2,
    )
    for path in pickles:
        check_tensors(path, name)
    try:
        model, info = auto.from_pretrained(folder, dtype="auto", output_loading_info=True, use_safetensors=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name}: cannot be loaded from {folder}: {error}") from error
    _refuse_missing(folder, name, info)
    model.save_pretrained(place)
    # The hub's own configuration and tokenizer, to the letter; an index would name the pickles.
    for path in (path for pattern in SIDE_FILES for path in folder.glob(pattern)):
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, place / path.name)


def check_tensors(path: Path, name: str) -> None:
    """Errors: ModelError when a pickle holds anything but tensors by name, or cannot be read; none of it is run."""
    import torch

    way_out = "Load it where you trust it, save_pretrained it (safetensors), and give that folder."
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # torch's format before 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"{name}: {path} is a pickle that contains more than tensors and could run code, so it is not loaded. "
            f"{way_out} ({str(error).partition('.')[0]}.)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{name}: {path} is damaged or not a weights file ({error}). Download it again.") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ModelError(f"{name}: {path} holds more than named tensors (a training checkpoint?). {way_out}")
