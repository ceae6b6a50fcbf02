"""The version of this code, stored with every run and every adapter."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_version() -> str:
    """Our version and, in a checkout, its commit: '0.9.0+g1a2b3c4d5e', with '-dirty' where files were changed.

    'unknown' where neither is known: the package is not installed, and git is not there.
    """
    try:
        number = version("xdet-lab")
    except PackageNotFoundError:
        number = "unknown"
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # a copy inside another repository has that one's commits, not ours
        return number
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, cwd=root)
    except OSError:  # no git here
        return number
    return number if described.returncode else f"{number}+g{described.stdout.strip()}"
