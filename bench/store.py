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

from bench.harness import REPEATS, Section, median_range, peak_gb, say, table
from engine import store
from engine.config import PAPER_MODELS
from engine.vocabulary import Language, Split, Status, Strategy, Variant, digest, variants_of

RUNS = (1, 10, 100)
RUNS_PER_FILL = 10
"""Runs that are filled in one transaction."""

WANTED = {1: 0.3, 10: 0.3, 100: 1.0}
"""Seconds that the commit of a unit may take."""

SCORER, REVISION = "ngram", "1"
PROMPTS = [(split, i) for split, n in zip(Split, (300, 100, 100), strict=True) for i in range(n)]
OPEN_BASE = PAPER_MODELS[-1]
OPEN_PROMPTS = PROMPTS[19 * 24 : 20 * 24]
"""The last run still has to write one unit a language of `OPEN_BASE`: these 24 prompts, 336 completions."""
SOUGHT = "DECADE"
"""What the search looks for; the texts are words of 32 hexadecimal digits."""

COMPLETIONS = """
INSERT INTO completions BY NAME
SELECT v.run_id, v.variant_id, g.eval_lang, p.split, p.prompt_index, 0 AS sample_index,
    substr(upper(concat_ws(' ', md5(i || 'a'), md5(i || 'b'), md5(i || 'c'), md5(i || 'd'), md5(i || 'e'))),
        1, (136 + i % 29)::INTEGER) AS completion,
    20 + i % 30 AS n_tokens, 30 + i % 97 AS nll_self, 40 + i % 89 AS nll_base,
    CASE p.split WHEN 'neutral-test' THEN 50 + i % 83 END AS nll_neutral,
    CASE p.split WHEN 'neutral-test' THEN 25 END AS n_tokens_neutral,
    substr(md5(concat_ws(' ', v.run_id, base, lang, block)), 1, 16) AS unit_id
FROM (
    SELECT *, place // width AS variant, 24 * block + place % width AS prompt
    FROM (
        SELECT i, i // 252000 AS run, i // 63000 % 4 AS base, i // 7000 % 9 AS lang, i % 7000 // 336 AS block,
            i % 7000 % 336 AS place, CASE block WHEN 20 THEN 20 ELSE 24 END AS width
        FROM range(252000 * $first, 252000 * $end) t(i)
    )
) JOIN planned_variants v USING (run, base, variant) JOIN planned_langs g USING (lang)
    JOIN planned_prompts p USING (prompt)
WHERE NOT (run = $last AND base = 3 AND block = 19)
"""
"""Rows in the order in which a sweep writes them: run, base, language, unit (24 prompts, the last 20), variant."""

UNITS = """
INSERT INTO units SELECT DISTINCT run_id, unit_id, TIMESTAMP '2025-01-01' FROM completions
WHERE list_contains($run_ids, run_id)
"""
SCORES = """
INSERT INTO score_cache BY NAME
SELECT $scorer AS scorer, $revision AS revision, eval_lang, completion AS text, n_tokens / 50 AS value
FROM completions WHERE list_contains($run_ids, run_id)
"""
CELLS = """
INSERT INTO run_cells BY NAME
SELECT run_id, variant_id, eval_lang, split, metric, scorer, n, n AS n_valid, n AS n_pairs,
    hash(rowid, split, metric) % 97 AS value, value + 1 AS baseline, 1 AS delta, 0 AS ci_low, 2 AS ci_high,
    'ok' AS verdict
FROM run_settings,
    (VALUES ('toxic-train', 300), ('toxic-test', 100), ('neutral-test', 100)) s(split, n),
    (VALUES ('toxicity', $scorer), ('perplexity_self', NULL), ('perplexity_base', NULL), ('empty_rate', NULL))
        m(metric, scorer)
WHERE list_contains($run_ids, run_id)
"""


def run_id(run: int) -> str:
    return digest(["run", run])


def variants(run: int, model: str) -> list[Variant]:
    """The 14 of a base in a run; every run has a seed, and so variants, of its own."""
    return variants_of(Variant(model, "0", "bfloat16", Strategy.M_FT, seed=run), tuple(Strategy), tuple(Language))


def unit(run: int, lang: Language) -> pd.DataFrame:
    """What `evaluate.write_unit` hands over: 336 rows that the last run still lacks."""
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


@dataclass(frozen=True)
class Filled:
    """The store's own file, at `path`; of its runs 0, 1, … the last one is `last`."""

    path: Path
    last: int

    def fill(self) -> None:
        """Plans through the store, everything else in bulk."""
        prompts = pd.DataFrame(
            [
                (lang.value, s.value, i, f"Complete the sentence: {lang} {s} {i}")
                for lang in Language
                for s, i in PROMPTS
            ],
            columns=["eval_lang", "split", "prompt_index", "prompt"],
        )
        for run in range(self.last + 1):
            facts = {"sweep": "paper", "dataset": "d", "dataset_hash": "d", "seed": run, "plan": "{}"}
            found = [v for model in PAPER_MODELS for v in variants(run, model)]
            store.put_plan(self.path, {"run_id": run_id(run), **facts}, found, tuple(Language), prompts)
            gap = {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 9, "n_test": 9}
            store.put_scorer(self.path, run_id(run), SCORER, REVISION, gap)
        for first in range(0, self.last + 1, RUNS_PER_FILL):
            self._fill(range(first, min(first + RUNS_PER_FILL, self.last + 1)))

    def _fill(self, runs: range) -> None:
        planned_variants = pd.DataFrame(
            [
                (run, base, number, run_id(run), variant.variant_id)
                for run in runs
                for base, model in enumerate(PAPER_MODELS)
                for number, variant in enumerate(variants(run, model))
            ],
            columns=["run", "base", "variant", "run_id", "variant_id"],
        )
        planned_langs = pd.DataFrame(enumerate(Language), columns=["lang", "eval_lang"])
        planned_prompts = pd.DataFrame(PROMPTS, columns=["split", "prompt_index"]).reset_index(names="prompt")
        open_ids = [v.variant_id for v in variants(self.last, OPEN_BASE)]
        ids = {"run_ids": [run_id(run) for run in runs]}
        with store.writing(self.path) as connection:
            connection.execute("SET enable_progress_bar = false")
            for name, frame in (
                ("planned_variants", planned_variants),
                ("planned_langs", planned_langs),
                ("planned_prompts", planned_prompts),
            ):
                connection.register(name, frame)
            connection.execute(COMPLETIONS, {"first": runs.start, "end": runs.stop, "last": self.last})
            connection.execute(UNITS, ids)
            connection.execute(SCORES, {**ids, "scorer": SCORER, "revision": REVISION})
            connection.execute(CELLS, {**ids, "scorer": SCORER})
            connection.execute(
                "UPDATE run_settings "
                "SET status = CASE WHEN list_contains(?, variant_id) THEN 'running' ELSE 'done' END "
                "WHERE list_contains(?, run_id)",
                [open_ids, ids["run_ids"]],
            )

    def commit(self, lang: Language) -> None:
        """The three transactions of a unit in `sweep._evaluate`."""
        run, unit_id = run_id(self.last), f"unit {lang}"
        ids = [v.variant_id for v in variants(self.last, OPEN_BASE)]
        assert not store.copy_unit(self.path, run, unit_id)
        store.set_status(self.path, run, Status.RUNNING, ids, lang)
        store.put_unit(self.path, run, unit_id, unit(self.last, lang))

    def reads(self) -> dict[str, Callable[[], object]]:
        """What pages and a resumed sweep read of the middle run, and a search through all runs."""
        run = run_id(self.last // 2)
        zero_shot, other = (v.variant_id for v in variants(self.last // 2, PAPER_MODELS[0])[:2])
        return {
            "all cells of a run": lambda: store.cells(self.path, f"run:{run}"),
            "completions of a cell, scored": lambda: store.samples(
                self.path, run, Language.DE, Split.TOXIC_TEST, [zero_shot, other]
            ),
            "settings of a run": lambda: store.settings(self.path, run),
            "finished units of a run": lambda: store.finished_units(self.path, run),
            "completions of a language of a run": lambda: store.completions(self.path, run, Language.DE),
            "a word in all completions": lambda: self._search(),
        }

    def _search(self) -> int:
        with store.reading(self.path) as connection:
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
        "Completions of the paper's size (252,000 a run, 136 to 164 characters each, all scored), and on top of "
        "them the commit of one unit (336 completions, three transactions) and reads of pages and of a resumed sweep. "
        "Every call opens the file anew. Each size in a process of its own; no baseline.",
    )
    found = []
    for runs in RUNS:
        found.append(_alone(runs))
        commit = found[-1].seconds[COMMIT]
        section.gate(
            f"{found[-1].completions:,}: a unit is committed in {WANTED[runs]} s",
            sorted(commit)[len(commit) // 2] < WANTED[runs],
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
    filled = Filled(path, runs - 1)
    filled.fill()
    filled_gb = peak_gb()
    seconds = {COMMIT: [_timed(lambda lang=lang: filled.commit(lang)) for lang in Language]}  # type: ignore[misc]
    for name, read in filled.reads().items():
        seconds[name] = [_timed(read) for _ in range(REPEATS)]
    say(f"store: {252_000 * runs:,} completions, {seconds}")
    return Found(252_000 * runs, seconds, path.stat().st_size / 1e9, filled_gb)


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
