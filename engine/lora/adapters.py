"""The adapters folder. `<adapters>/<model>/<variant_id>/` with PEFT's two files and `meta.json`, written last.

Owns what is finished, damaged or left over, and how a wave becomes visible: whole, or not at all.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from engine.errors import ModelError, StoreError
from engine.lora import peft_files
from engine.vocabulary import Variant, digest, slug

META = "meta.json"
CONFIG, WEIGHTS = peft_files.CONFIG, peft_files.WEIGHTS
_STAGING, _READY = ".staging-", ".ready-"


def folder_of(root: Path, variant: Variant) -> Path:
    """Where the adapter of a variant is, or will be."""
    return root / slug(variant.model) / variant.variant_id


def trouble(folder: Path, variant: Variant) -> str | None:
    """None for a finished adapter of `variant`; else why it is none: absent, unfinished or damaged."""
    return _trouble(folder, variant.variant_id) if folder.exists() else "absent"


def _trouble(folder: Path, variant_id: str) -> str | None:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        weights = _sha256(folder / WEIGHTS)
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "unfinished"
    if not isinstance(meta, dict) or meta.get("variant_id") != variant_id:
        return "damaged (meta.json belongs to another variant)"
    return None if meta.get("weights_sha256") == weights else "damaged (weights do not match the saved checksum)"


@dataclass(frozen=True)
class AdapterFolder:
    """A finished adapter on disk. One that PEFT made elsewhere has no `meta.json`, and so no digest.

    `base_folder` is where the base's weights were when it was made, '' where nothing says so. `targets`: names of the
    layers that it adapts, as far as its configuration lists them.
    """

    model: str
    folder: Path
    base_folder: str
    digest: str | None
    targets: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.folder.name

    def check_whole(self) -> None:
        """Errors: ModelError when its weights are not those it was saved with."""
        if self.digest is not None and _sha256(self.folder / WEIGHTS) != self.digest:
            raise ModelError(f"{self.folder}: its weights are damaged. Delete it, and run its sweep again.")


def finished_adapters(root: Path) -> list[AdapterFolder]:
    """The adapters of all bases, by folder. What cannot be read is no adapter; weights are not looked into."""
    folders = [read_folder(config.parent) for config in sorted(root.glob(f"[!.]*/[!.]*/{CONFIG}"))]
    return [folder for folder in folders if folder]


def read_folder(folder: Path) -> AdapterFolder | None:
    """The finished adapter of a folder, None where there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        meta = json.loads((folder / META).read_text(encoding="utf-8")) if (folder / META).exists() else {}
        model = meta.get("variant", {}).get("model", folder.resolve().parent.name)
        base = meta.get("base_folder") or config.get("base_model_name_or_path") or ""
        digest_of_weights = meta.get("weights_sha256")
        listed = config.get("target_modules")
        targets = frozenset(path.rsplit(".", 1)[-1] for path in (listed if isinstance(listed, list) else ()))
    except (OSError, ValueError, AttributeError):
        return None
    return AdapterFolder(model, folder, base, digest_of_weights, targets) if (folder / WEIGHTS).is_file() else None


def write_meta(folder: Path, variant: Variant, facts: dict[str, Any]) -> None:
    """`meta.json`: the whole variant, and what is known of its training. The last file of a finished adapter."""
    meta = {
        "variant_id": variant.variant_id,
        "variant": asdict(variant),
        "weights_sha256": _sha256(folder / WEIGHTS),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }
    (folder / META).write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def staging(root: Path, variants: Sequence[Variant]) -> Path:
    """A fresh folder in which a wave is saved before it is published; made on the adapters' own disk."""
    folder = root / slug(variants[0].model) / f"{_STAGING}{variants[0].variant_id}"
    shutil.rmtree(folder, ignore_errors=True)
    for variant in variants:
        (folder / variant.variant_id).mkdir(parents=True)
    return folder


def checkpoint(root: Path, variants: Sequence[Variant], max_concurrent: int) -> Path:
    """Where a wave of these variants, so many at once, saves what it has come to."""
    wave = digest([max_concurrent, *(variant.variant_id for variant in variants)])
    return root / slug(variants[0].model) / f".wave-{wave}.pt"


def publish(staged: Path) -> None:
    """Makes all adapters of a staged wave visible. A kill in between is mended by `publish_leftovers`."""
    ready = staged.with_name(staged.name.replace(_STAGING, _READY))
    shutil.rmtree(ready, ignore_errors=True)
    staged.rename(ready)
    _move_out(ready)


def publish_leftovers(root: Path, model: str) -> None:
    """Finishes what a killed process had begun to publish, and removes what it had only begun to save."""
    for ready in (root / slug(model)).glob(f"{_READY}*"):
        _move_out(ready)
    for staged in (root / slug(model)).glob(f"{_STAGING}*"):
        shutil.rmtree(staged, ignore_errors=True)


def _move_out(ready: Path) -> None:
    for adapter in sorted(ready.iterdir()):
        target = ready.parent / adapter.name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        adapter.rename(target)
    ready.rmdir()


ADAPTER_COLUMNS = [
    *("model", "name", "strategy", "train_lang", "train_fraction", "texts", "epochs", "losses", "final_loss"),
    *("finished_at", "bytes", "state", "why"),
]


def list_adapters(root: Path) -> pd.DataFrame:
    """What is in the adapter folder, by model and name: adapters, and what kills and other programs left there.

    Columns `ADAPTER_COLUMNS`: model and name are the folders'; strategy, train_lang, train_fraction, texts (how many it
    learnt), epochs, losses (a list: nats per token, one per step), final_loss (the last one) and finished_at (UTC) are
    its meta.json's, None where that says nothing; bytes of all its files; state is finished, unfinished or damaged,
    and why says what is the matter. A broken folder is a row like any other: nothing here raises.
    """
    rows = [_row(path) for model in _visible(root) for path in sorted(model.glob("*")) if _is_shown(path)]
    table = pd.DataFrame(rows, columns=ADAPTER_COLUMNS)
    numbers = ["train_fraction", "texts", "epochs", "final_loss"]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return table


def fingerprint(root: Path) -> str:
    """Changes whenever a file in the adapter folder does; reads none of them."""
    return digest([[str(path), *_stat(path)] for path in _files(root)])


def _files(root: Path) -> list[Path]:
    """All files below a folder. A sweep moves folders meanwhile: what goes away under the walk is passed over."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)


def _stat(path: Path) -> tuple[int, int]:
    """Time and size; zeros for what is no file, or has gone since it was seen."""
    with suppress(OSError):
        if path.is_file():
            status = path.stat()
            return status.st_mtime_ns, status.st_size
    return 0, 0


def _visible(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))


def _is_shown(path: Path) -> bool:
    return path.is_dir() or path.name.startswith(".wave-")


def _row(path: Path) -> dict[str, Any]:
    row = {
        "model": path.parent.name,
        "name": path.name,
        "bytes": sum(_stat(file)[1] for file in [path, *_files(path)]),
    }
    if path.name.startswith("."):
        why = "checkpoint of running or interrupted training" if path.is_file() else "incomplete checkpoint"
        return {**row, "state": "unfinished", "why": why}
    why = _trouble(path, path.name) or ""
    meta: Any = None
    with suppress(OSError, ValueError):
        meta = json.loads((path / META).read_text(encoding="utf-8"))
    row |= {name: _field(meta, "variant", name) for name in ("strategy", "train_lang", "train_fraction")}
    row |= {"texts": _field(meta, "texts"), "epochs": _field(meta, "variant", "hyperparameters", "epochs")}
    row["finished_at"] = _field(meta, "finished_at")
    with suppress(LookupError, TypeError, ValueError):
        losses = [float(loss) for loss in _field(meta, "losses")]
        row |= {"final_loss": losses[-1], "losses": losses}
    if why == "unfinished":
        missing = [name for name in (META, CONFIG, WEIGHTS) if not (path / name).is_file()]
        why = f"unfinished ({'no ' + ', no '.join(missing) if missing else 'unreadable file'})"
    state, _, detail = why.partition(" ")
    return {**row, "state": state or "finished", "why": detail.strip("()")}


def _field(meta: Any, *names: str) -> Any:
    for name in names:
        meta = meta.get(name) if isinstance(meta, dict) else None
    return meta


def check_writable(folder: Path) -> None:
    """Errors: StoreError when nothing can be written in `folder`, which is made when absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}). Give another --db or --adapters.") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
