"""The results file as it grows: what a sweep commits and what pages read, at 1, 10 and 100 runs of the paper's size.

A run has 252,000 completions, each scored. The store is used as a sweep and the app use it: a connection a call.
The largest file takes 19 GB of the temporary folder. Linux only: the peak of memory is read from /proc.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.filled import OPEN_BASE, OPEN_PROMPTS, SCORERS, BenchFile, run_id, variants
from bench.harness import REPEATS, Section, median_range, peak_gb, say, table
from engine import store
from engine.config import PAPER_MODELS
from engine.vocabulary import NINE, Language, Split, Status

RUNS = (1, 10, 100)
TARGETS = {1: 0.3, 10: 0.3, 100: 1.0}
"""Seconds that the commit of a unit may take."""

SOUGHT = "Aufzug wieder"
"""What the search looks for."""


def unit(run: int, lang: Language) -> pd.DataFrame:
    """What `evaluate.write` hands over: 336 rows that the last run still lacks."""
    rows = [
        (
            v.variant_id,
            lang.value,
            split.value,
            index,
            0,
            f"{run} {lang} {v.label} {index} ".ljust(150, "."),
            40,
            80.0,
            90.0,
        )
        for v in variants(run, OPEN_BASE)
        for split, index in OPEN_PROMPTS
    ]
    frame = pd.DataFrame(rows, columns=[*store.COMPLETION_KEY, "completion", "n_tokens", "nll_self", "nll_base"])
    return frame.assign(nll_neutral=60.0, n_tokens_neutral=25)


def commit(filled: BenchFile, lang: Language) -> None:
    """The three transactions of a unit in `sweep._evaluate`."""
    run, unit_id = run_id(filled.last), f"unit {lang}"
    ids = [v.variant_id for v in variants(filled.last, OPEN_BASE)]
    assert not store.copy_unit(filled.path, run, unit_id)
    store.set_status(filled.path, run, Status.RUNNING, ids, lang)
    store.put_unit(filled.path, run, unit_id, unit(filled.last, lang))


def reads(filled: BenchFile) -> dict[str, Callable[[], object]]:
    """What pages and a resumed sweep read of the middle run, and a search through all runs."""
    path, run = filled.path, run_id(filled.last // 2)
    zero_shot, other = (v.variant_id for v in variants(filled.last // 2, PAPER_MODELS[0])[:2])
    return {
        "all cells of a run": lambda: store.cells(path, f"run:{run}"),
        "completions of a cell, scored": lambda: store.samples(
            path, run, Language.DE, Split.TOXIC_TEST, [zero_shot, other]
        ),
        "settings of a run": lambda: store.settings(path, run),
        "finished units of a run": lambda: store.finished_units(path, run),
        "completions of a language of a run": lambda: store.completions(path, run, Language.DE),
        "a word in all completions": lambda: _search(path),
    }


def _search(path: Path) -> int:
    with store.reading(path) as connection:
        row = connection.execute("SELECT count(*) FROM completions WHERE contains(completion, ?)", [SOUGHT])
        return int((row.fetchone() or (0,))[0])


@dataclass(frozen=True)
class Found:
    """Of one size: seconds of every repeat of each operation; GB of the file and of memory."""

    completions: int
    seconds: dict[str, list[float]]
    file_gb: float
    filled_gb: float


def bench() -> Section:
    section = Section(
        "store",
        "The results file",
        "Completions of the paper's size (252,000 a run, words of the bundled sample, most of them 80 to 160 "
        "characters, all scored), and on top of them the commit of one unit (336 completions, three transactions) and "
        "reads of pages and of a resumed sweep. "
        "Every call opens the file anew. Each size in a process of its own; no baseline.",
    )
    found = []
    for runs in RUNS:
        found.append(_alone(runs))
        commit = found[-1].seconds[COMMIT]
        section.gate(
            f"{found[-1].completions:,}: a unit is committed in {TARGETS[runs]} s",
            sorted(commit)[len(commit) // 2] < TARGETS[runs],
            f"{median_range(commit)} s",
        )
    header = ("seconds", *(f"{f.completions:,} completions" for f in found))
    rows = [(name, *(median_range(f.seconds[name], 2) for f in found)) for name in found[0].seconds]
    rows.append(("file, GB", *(f"{f.file_gb:.2f}" for f in found)))
    rows.append(("most memory while filling, GB", *(f"{f.filled_gb:.2f}" for f in found)))
    section.body.append(table(header, rows))
    return section


COMMIT = "commit of a unit"


def _alone(runs: int) -> Found:
    with (
        tempfile.TemporaryDirectory() as place,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
    ):
        return process.submit(_measure, Path(place) / "results.duckdb", runs).result()


def _measure(path: Path, runs: int) -> Found:
    filled = BenchFile(path, runs - 1, scorers=SCORERS[:1], is_open=True)
    filled.fill()
    filled_gb = peak_gb()
    seconds = {COMMIT: [_time(lambda lang=lang: commit(filled, lang)) for lang in NINE]}  # type: ignore[misc]
    for name, read in reads(filled).items():
        seconds[name] = [_time(read) for _ in range(REPEATS)]
    say(f"store: {252_000 * runs:,} completions, {seconds}")
    return Found(252_000 * runs, seconds, path.stat().st_size / 1e9, filled_gb)


def _time(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
