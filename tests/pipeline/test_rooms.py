"""The import contracts of pyproject.toml, and what may not be imported before it is needed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = {
    "engine/analysis/metrics.py": "from engine.lora import stack",  # a lower room imports a higher one
    "engine/nowhere.py": "from engine.sweep import plan",  # a module that has no room
    "engine/sweep/plan.py": "import duckdb",
    "app/tables/grid.py": "from engine.model import registry",
}
"""A file, and a forbidden import that is planted in it."""

HEAVY = {"torch", "transformers", "peft", "vllm", "ray"}


def test_forbidden_imports_break_their_contracts(tmp_path: Path) -> None:
    for package in ("engine", "app"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in PLANTED.items():
        with open(tmp_path / file, "a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and "Contracts: 0 kept, 3 broken." in ran.stdout, ran.stdout + ran.stderr
    for reason in (
        "engine.analysis.metrics -> engine.lora.stack",
        "engine.nowhere",
        "engine.sweep.plan -> duckdb",
        "app.tables.grid -> engine.model.registry",
    ):
        assert reason in ran.stdout, ran.stdout


@pytest.mark.parametrize("words", [["demo", "--dry-run"], ["search", "--dry-run"]])
def test_a_dry_run_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys, run_sweep\n"
        "try: code = run_sweep.command_line(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        f"sys.exit(code or ' '.join({HEAVY} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
