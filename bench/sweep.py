"""The whole program: a small grid cold and resumed, and the demo, now and as it was after the first sweep."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import HERE, Contestant, Section

ROOT = HERE.parent
FIRST_SWEEP = "1b3bde7"
"""The commit of the first sweep, before anything was made faster."""

SIZES = [
    *("--splits", "toxic-train", "toxic-test", "neutral-test", "--limit-train", "30", "--limit-eval", "8"),
    *("--max-new-tokens", "16", "--epochs", "2"),
]
"""Of the demo as it was after the first sweep, so that both have the same to do."""

GRID = [
    "--strategies",
    "ZS",
    "X-FT",
    "--train-langs",
    "de",
    "en",
    "zh",
    "--eval-langs",
    "de",
    "zh",
    "--limit-train",
    "20",
]
"""Four variants, 8 settings, 192 completions."""


def bench() -> Section:
    section = Section(
        "sweep",
        "A small grid, cold and resumed",
        "`run_sweep.py demo` on four variants and two languages (20 training pairs, 8 prompts a split, 16 tokens, two "
        "epochs), as a process: from nothing, and again when all is done.",
        unit="sweep",
    )
    with tempfile.TemporaryDirectory() as place, _first_sweep() as before:
        root = Path(place)
        contestants = [
            Contestant("cold", "loads, trains, generates, scores", 1, lambda: _cold(ROOT, root / "now", GRID)),
            Contestant("resumed", "finds all of it done", 1, lambda: _sweep(ROOT, root / "now", GRID)),
        ]
        if before:
            contestants.append(
                Contestant("cold, first sweep", f"commit {FIRST_SWEEP}", 1, lambda: _cold(before, root / "then", GRID))
            )
        section.race(contestants)
    section.ratio("resumed", "cold")
    if before:
        section.ratio("cold", "cold, first sweep")
    else:
        section.body.append("Not compared with the first sweep: its commit is not in this copy.")
    return section


def demo() -> Section:
    """Forty minutes: not part of `make bench` where nothing else is said."""
    section = Section(
        "demo",
        "The demo, against what it took after the first sweep",
        "`run_sweep.py demo` (126 settings) with 3 splits, 8 prompts, 16 tokens and two epochs, as the demo was then; "
        f"from nothing, in turn with commit {FIRST_SWEEP}.",
        unit="sweep",
    )
    with tempfile.TemporaryDirectory() as place, _first_sweep() as before:
        if not before:
            section.body.append("Not run: the first sweep's commit is not in this copy.")
            return section
        root = Path(place)
        runs = [
            Contestant("now", "this commit", 1, lambda: _cold(ROOT, root / "now", [])),
            Contestant("first sweep", f"commit {FIRST_SWEEP}", 1, lambda: _cold(before, root / "then", [])),
        ]
        section.race(runs, warm=False)
    section.ratio("now", "first sweep", 1 / 0.6)
    return section


@contextmanager
def _first_sweep() -> Iterator[Path | None]:
    """A checkout of the first sweep's commit, or None where there is none."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "first"
        git = ["git", "-C", str(ROOT), "worktree"]
        if subprocess.run([*git, "add", "--detach", str(tree), FIRST_SWEEP], capture_output=True).returncode:
            yield None
            return
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)


def _cold(code: Path, place: Path, options: list[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    _sweep(code, place, options)


def _sweep(code: Path, place: Path, options: list[str]) -> None:
    files = ["--db", str(place / "results.duckdb"), "--adapters", str(place / "adapters")]
    subprocess.run(
        [sys.executable, "run_sweep.py", "demo", *SIZES, *options, *files], cwd=code, check=True, capture_output=True
    )
