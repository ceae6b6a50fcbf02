"""What README and docs say is so: commands parse, flags, columns, paths and targets exist, drawings are of today."""

import re
import runpy
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import run_sweep
from engine import store
from engine.config import SWEEPS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("docs/*.md")}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
COMMANDS = re.findall(r"^(?:[A-Z_]+=\S+ )*python run_sweep\.py ([^#\n]*)", README, re.M)
OTHERS = {"--help", "--editable", "--no-deps", "--out", "--model", "--port", "--max-loras"}
"""Flags of other programs."""


def test_the_drawings_of_the_architecture_page_are_of_today() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "draw_rooms.py"))["page"]()
    assert page == PAGES["docs/architecture.md"], "run `python docs/draw_rooms.py`"


def test_the_table_of_bases_is_of_today() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "list_bases.py"))["page"]()
    assert page == PAGES["docs/bases.md"], "run `python docs/list_bases.py`"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    """Parsed and checked by the program itself; what would be done is left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("rank = 8", encoding="utf-8")
    planned: list[object] = []
    monkeypatch.setattr("engine.sweep.estimate.outline", lambda sweep: [planned.append(sweep)])
    monkeypatch.setattr("engine.sweep.report.dry_run", lambda console, sweep: None)
    monkeypatch.setattr("engine.sweep.search.plan", lambda search, is_outline: planned.append(search) or [])
    monkeypatch.setattr("engine.sweep.report.search_outline", lambda console, bases, seconds: None)
    exported = SimpleNamespace(summary="")
    monkeypatch.setattr("engine.export.folders.export", lambda *words: planned.append(words) or exported)
    words = re.sub(r"[\[\]…]|SWEEP|options", "", command).partition(">")[0].split()
    dry_run = [] if words[:1] == ["export"] or "--help" in words else ["--dry-run"]
    if "--help" in words:
        with pytest.raises(SystemExit) as end:
            run_sweep.command_line(words)
        assert end.value.code == 0
    else:
        assert run_sweep.command_line([*words, *dry_run]) == 0
        assert len(planned) == (0 if "--print-config" in words else 1)


def test_the_commands_of_the_readme_are_found() -> None:
    assert len(COMMANDS) >= 12


def test_flags_of_the_docs_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["search", "--help"], ["export", "--help"]):
        with pytest.raises(SystemExit):
            run_sweep.command_line(words)
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) | OTHERS
    unknown = {(page, flag) for page, text in PAGES.items() for flag in re.findall(r"(?<![\w<!-])--[a-z][a-z-]+", text)}
    assert {(page, flag) for page, flag in unknown if flag not in known} == set()


@pytest.mark.parametrize("view", ["settings", "cells", "samples"])
def test_the_readme_lists_the_columns_of_the_views(tmp_path: Path, view: str) -> None:
    listed = re.search(rf"^\* `{view}`: (.*?)(?=^\* |^\n|^```)", README, re.M | re.S)
    assert listed is not None
    names = re.findall(r"[a-z_0-9]+", re.sub(r"\([^)]*\)", "", listed[1]))
    with store.writing(tmp_path / "results.duckdb") as connection:
        columns = [name for name, *_ in connection.execute(f"DESCRIBE {view}").fetchall()]
    assert names == columns


def test_paths_of_the_docs_exist() -> None:
    made_later = re.compile(r"^(data/(results|smoke)|\.venv|\.gallery)")
    missing = set()
    for page, text in PAGES.items():
        here = (ROOT / page).parent
        links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
        paths = re.findall(r"`((?:engine|app|tests|docs|data|bench|adapters)/[\w./<>-]*)", text)
        missing |= {(page, link) for link in links if not (here / link).exists()}
        missing |= {
            (page, path)
            for path in paths
            if "<" not in path and not made_later.match(path) and not (ROOT / path).exists()
        }
    assert missing == set()


def test_the_citation_has_the_version_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M) == [package]


def test_make_targets_of_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = {name for text in PAGES.values() for name in re.findall(r"`make ([a-z-]+)", text)}
    assert named <= targets and "test" in named


def test_the_readme_lists_the_sweeps() -> None:
    assert re.findall(r"^\| `(\w+)`(?: \(default\))? \|", README, re.M)[: len(SWEEPS)] == list(SWEEPS)
