"""Exports an adapter, or a merged model, to a folder. PEFT's two files, or one merged model, with a model card.

Owns which adapter is meant, the checks before anything is written, and the folder, which is whole or absent. What the
card says is `engine.export.card`'s.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, StoreError, UsageError, unknown
from engine.export import card
from engine.lora import adapters
from engine.lora.adapters import AdapterFolder
from engine.model import checkpoints, registry
from engine.model.cache import make_once
from engine.model.registry import Base
from engine.vocabulary import Hyperparameters, Strategy, Variant


@dataclass(frozen=True)
class Export:
    """What was written, and of how many measured languages its card tells."""

    variant: Variant
    folder: Path
    is_merged: bool
    n_langs: int

    @property
    def summary(self) -> str:
        kind = "base and adapter in one" if self.is_merged else "in PEFT's format"
        numbers = f"numbers of {self.n_langs} languages" if self.n_langs else "NO numbers: no run here has measured it"
        return f"{self.folder}: {self.variant.variant_id}, {kind}; its card (README.md) has {numbers}."


def export(name: str, to: Path, merged: bool, db: Path, root: Path) -> Export:
    """Writes the adapter `name` (a variant id, the beginning of one, or a folder) to the folder `to`.

    `merged`: as a whole model, in the dtype of the base's weights. `db`: where its numbers are. Errors: UsageError (no
    such adapter, several, `to` is not empty), ModelError (the adapter is damaged, its base is not to be had or not the
    one it was trained over), StoreError (no results file, `to` cannot be written); nothing is left behind.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to}: exists and is not empty. Nothing is overwritten; give another --to.")
    adapter = find_adapter(root, name)
    adapter.check_whole()
    facts = _training_of(adapter)
    measured = card.measurements_of(db, facts.variant.variant_id)
    base = _base(adapter, facts.variant) if merged else None
    readme = card.card_text(facts, measured, merged)

    def write(folder: Path) -> None:
        if base is not None:
            merge(base.prepare(), adapter.folder, folder)
        else:
            shutil.copyfile(adapter.folder / adapters.WEIGHTS, folder / adapters.WEIGHTS)
            config = json.loads((adapter.folder / adapters.CONFIG).read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = card.base_name(facts.variant)
            (folder / adapters.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")

    try:
        if to.exists():
            to.rmdir()
        make_once(to, write)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written ({error.strerror or error}). Give another --to.") from error
    return Export(facts.variant, to, merged, measured.n_langs)


def find_adapter(root: Path, name: str) -> AdapterFolder:
    """The finished adapter with this variant id or beginning of one, or in this folder. Errors: UsageError."""
    if Path(name).is_dir():
        adapter = adapters.read_folder(Path(name))
        if adapter is None:
            raise UsageError(f"{name}: not a finished adapter, which has {adapters.CONFIG} and {adapters.WEIGHTS}.")
        return adapter
    by_name = {adapter.name: adapter for adapter in adapters.finished_adapters(root)}
    if not by_name:
        raise UsageError(f"{root}: contains no finished adapter. Run a sweep, or give another --adapters.")
    fitting = [name] if name in by_name else [other for other in by_name if other.startswith(name)]
    if not fitting:
        # A digest is like another one by chance alone.
        raise unknown(
            "adapter", name, by_name, "VARIANT; in --adapters", lambda id_: re.sub("-[0-9a-f]{5,12}$", "", id_)
        )
    if len(fitting) > 1:
        raise UsageError(f"{name!r} is a prefix of {', '.join(fitting)}. Give a longer prefix.")
    return by_name[fitting[0]]


def _training_of(adapter: AdapterFolder) -> card.Training:
    """What its meta.json says of an adapter. Errors: ModelError when that is not ours."""
    try:
        meta: dict[str, Any] = json.loads((adapter.folder / adapters.META).read_text(encoding="utf-8"))
        config = json.loads((adapter.folder / adapters.CONFIG).read_text(encoding="utf-8"))
        spec = dict(meta["variant"])
        hyperparameters = dict(spec.pop("hyperparameters"))
        targets = tuple(hyperparameters.pop("targets"))
        variant = Variant(
            **{**spec, "strategy": Strategy(spec["strategy"])},
            hyperparameters=Hyperparameters(**hyperparameters, targets=targets),
        )
        losses = [float(loss) for loss in meta.get("losses") or []]
        facts = card.Training(
            variant=variant,
            dataset=str(meta["dataset"]),
            texts=int(meta["texts"]),
            steps=len(losses),
            final_loss=losses[-1] if losses else None,
            finished_at=str(meta["finished_at"]),
            versions={str(k): str(v) for k, v in (meta.get("versions") or {}).items()},
            is_encoder_decoder=config["task_type"] == "SEQ_2_SEQ_LM",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{adapter.folder}: its {adapters.META} does not say how it was trained ({type(error).__name__}: {error}). "
            "Only adapters made by a sweep can be exported."
        ) from error
    if meta.get("variant_id") != variant.variant_id:
        raise ModelError(f"{adapter.folder}: damaged, its {adapters.META} is not that of {meta.get('variant_id')}.")
    return facts


def _base(adapter: AdapterFolder, variant: Variant) -> Base:
    """The base that an adapter was trained over, its revision checked. Errors: ModelError."""
    if "-" in variant.dtype:
        raise ModelError(
            f"{adapter.folder}: trained over a base in {variant.dtype}, which a merged model cannot be stored in. "
            f"Export it without --merged."
        )
    source = registry.at_hand(adapter.model, adapter.base_folder)
    try:
        base = registry.resolve(source or adapter.model)
    except UsageError as error:
        raise ModelError(
            f"{adapter.model}: the base of the adapter is not on this machine; it was in {adapter.base_folder or '?'}."
        ) from error
    seen = {base.revision, Path(source).name if source else ""}  # a folder of the hub's cache is named by its commit
    if variant.revision not in seen:
        raise ModelError(
            f"{adapter.model}: the adapter was trained over revision {variant.revision} of it, and here is "
            f"{base.revision}. Merging would give a different model from the one that was measured."
        )
    return base


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Writes config, tokenizer and weights of a base and an adapter in PEFT's format, as one model, into `target`.

    Weights are in the dtype that the base's are stored in: what the adapter adds is rounded to it. Errors: ModelError.
    """
    from peft import PeftModel
    from transformers import AutoConfig, AutoTokenizer

    try:
        architectures = AutoConfig.from_pretrained(base).architectures or [""]
        model = checkpoints.read(base, str(base), registry.auto_class(architectures[0]), dtype="auto")
        whole = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{adapter}: cannot be merged into {base}: {error}") from error
    whole.save_pretrained(target)
    tokenizer.save_pretrained(target)
