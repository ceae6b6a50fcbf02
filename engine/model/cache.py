"""The folder of converted and built bases; each is written atomically."""

import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Where converted and built bases are kept, the user's cache directory."""
    from platformdirs import user_cache_path

    return user_cache_path("xdet-lab", appauthor=False)


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make(empty folder)` when it is not there. Whole or absent, also after a kill."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=folder.name + ".", dir=folder.parent) as scratch:
            scratch_folder = Path(scratch) / "made"
            scratch_folder.mkdir()
            make(scratch_folder)
            try:
                scratch_folder.rename(folder)
            except OSError:
                if not folder.exists():  # another process was not quicker: a real failure
                    raise
    return folder
