"""The import contracts of pyproject.toml, and what may not be imported before it is needed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = {
    "engine/analysis/metrics.py": ("from engine.lora import stack", "The engine, from top to bottom"),
    "engine/sweep/plan.py": ("import duckdb", "Only the store imports duckdb"),
    "app/tables/grid.py": ("from engine.model import registry", "The app reads"),
    "engine/nowhere.py": ("from engine.sweep import plan", "The engine, from top to bottom"),
}
"""A file, the import that is planted in it, and the contract that it breaks."""

HEAVY = {"torch", "transformers", "peft", "vllm", "ray"}


@pytest.mark.parametrize("file", PLANTED)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, file: str) -> None:
    line, contract = PLANTED[file]
    for package in ("engine", "app"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / file, "a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    broken = [text for text in ran.stdout.splitlines() if "BROKEN" in text]
    assert ran.returncode == 1 and [text.startswith(contract) for text in broken] == [True], ran.stdout + ran.stderr


@pytest.mark.parametrize("words", [["--help"], ["demo", "--dry-run"], ["search", "--dry-run"], ["export", "--help"]])
def test_help_and_dry_runs_import_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys, run_sweep\n"
        "try: code = run_sweep.command_line(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        f"sys.exit(code or ' '.join({HEAVY} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
