"""Which version and commit stand with a result."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with our module in it, which believes to be there."""
    (tmp_path / "engine").mkdir()
    file = tmp_path / "engine" / "provenance.py"
    shutil.copy(provenance.__file__, file)
    commands = ("init -q", "add .", "-c user.name=x -c user.email=x@x commit -qm first")
    for command in commands:
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return tmp_path


def test_a_checkout_has_its_commit_and_says_when_files_were_changed(checkout: Path) -> None:
    clean = provenance.code_version.__wrapped__()
    assert re.fullmatch(r"(unknown|[\d.]+)\+g[0-9a-f]{10}", clean)
    (checkout / "engine" / "provenance.py").write_text("changed")
    assert provenance.code_version.__wrapped__() == f"{clean}-dirty"


def test_a_copy_inside_another_repository_has_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkout / "vendored" / "engine" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(inside))
    assert "+g" not in provenance.code_version.__wrapped__()


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert "+g" not in provenance.code_version.__wrapped__()
