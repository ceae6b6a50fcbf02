"""Results files of the paper's size: as many runs of 504 settings and 252,000 completions as wanted, made in bulk.

Plans go through the store, everything else into its tables at once. Texts are words of the bundled sample, two thirds
of them the same for every variant of a prompt; every fiftieth is empty. Scores, cells and averages are numbers of the
right kind and order, and mean nothing.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engine import analysis, store
from engine.analysis import metrics
from engine.config import PAPER_MODELS
from engine.data.dataset import load
from engine.vocabulary import NINE, Language, Metric, Split, Strategy, Variant, digest, variants_of

RUNS_PER_FILL = 10
"""Runs that are filled in one transaction."""

SCORERS = ("ngram", "classifier")
REVISION = "1"
PROMPTS = [(split, i) for split, n in zip(Split, (300, 100, 100), strict=True) for i in range(n)]
OPEN_BASE = PAPER_MODELS[-1]
OPEN_PROMPTS = PROMPTS[19 * 24 : 20 * 24]
"""An open run still has to write one unit a language of `OPEN_BASE`: these 24 prompts, 336 completions."""

COMPLETIONS = """
INSERT INTO completions BY NAME
SELECT v.run_id, v.variant_id, g.eval_lang, p.split, p.prompt_index, s.sample_index::INTEGER AS sample_index,
    CASE hash(i, s.sample_index) % 50 WHEN 0 THEN '' ELSE replace(array_to_string([
        g.words[(1 + hash(CASE hash(i, s.sample_index, j) % 3 WHEN 0 THEN i ELSE -prompt END, s.sample_index, j)
            % len(g.words))::BIGINT]
        for j in range(g.length)], ' '), ' ', g.joint) END AS completion,
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
    JOIN planned_prompts p USING (prompt), range($samples) s(sample_index)
WHERE NOT (run = $open AND base = 3 AND block = 19)
"""
"""Rows in the order in which a sweep writes them: run, base, language, unit (24 prompts, the last 20), variant."""

UNITS = """
INSERT INTO units SELECT DISTINCT run_id, unit_id, TIMESTAMP '2025-01-01' FROM completions
WHERE list_contains($run_ids, run_id)
"""
SCORES = """
INSERT OR IGNORE INTO score_cache BY NAME
SELECT $scorer AS scorer, $revision AS revision, eval_lang, completion AS text,
    CASE WHEN completion = '' THEN 'empty' WHEN hash(completion) % 100 = 0 THEN 'too-long' END AS reason,
    CASE WHEN reason IS NULL THEN (hash($scorer, completion) % 1000 / 1000) ** 3 END AS value
FROM completions WHERE list_contains($run_ids, run_id)
"""
"""One text in a hundred has none. The same text is scored once."""

CELLS = """
INSERT INTO run_cells BY NAME
SELECT run_id, variant_id, eval_lang, split, metric, scorer, n, n AS n_valid, n AS n_pairs,
    5 + hash(s.rowid, split, metric) % 3000 / 100 AS value,
    CASE strategy WHEN 'ZS' THEN NULL ELSE 5 + hash(s.rowid, metric) % 3000 / 100 END AS baseline,
    baseline - value AS delta, coalesce(delta, value) - 4 AS ci_low, coalesce(delta, value) + 4 AS ci_high,
    CASE WHEN is_tested AND strategy <> 'ZS' THEN hash(s.rowid, split) % 1000 / 1000 END AS p_value,
    least(1, 2 * p_value) AS q_value,
    CASE WHEN is_judged AND hash(s.rowid, split, 1) % 10 = 0 THEN 'degenerate' ELSE 'ok' END AS verdict,
    CASE verdict WHEN 'degenerate' THEN 'repeats itself: repetition_rate 0.61, limit 0.5, ZS 0.12' END AS verdict_reason
FROM run_settings s JOIN variants USING (variant_id), planned_cells WHERE list_contains($run_ids, run_id)
"""


def run_id(run: int) -> str:
    return digest(["run", run])


def variants(run: int, model: str) -> list[Variant]:
    """The 14 of a base in a run; every run has a seed, and so variants, of its own."""
    return variants_of(Variant(model, "0", "bfloat16", Strategy.M_FT, seed=run), tuple(Strategy), tuple(NINE))


@dataclass(frozen=True)
class BenchFile:
    """The store's own file, at `path`; of its runs 0, 1, … the last one is `last`.

    `is_open`: the last run still has to write one unit a language of `OPEN_BASE`, which is not finished then.
    """

    path: Path
    last: int
    samples: int = 1
    scorers: tuple[str, ...] = SCORERS
    is_open: bool = False

    def fill(self) -> None:
        for run in range(self.last + 1):
            facts = {"sweep": "paper", "dataset": "d", "dataset_hash": "d", "seed": run, "plan": "{}"}
            found = [v for model in PAPER_MODELS for v in variants(run, model)]
            store.put_plan(self.path, {"run_id": run_id(run), **facts}, found, tuple(NINE), _prompts())
            gap = {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 9, "n_test": 9}
            for scorer in self.scorers:
                store.put_scorer(self.path, run_id(run), scorer, REVISION, gap)
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
        planned_prompts = pd.DataFrame(PROMPTS, columns=["split", "prompt_index"]).reset_index(names="prompt")
        open_ids = [v.variant_id for v in variants(self.last, OPEN_BASE)] if self.is_open else []
        ids = {"run_ids": [run_id(run) for run in runs]}
        with store.writing(self.path) as connection:
            for name, frame in (
                ("planned_variants", planned_variants),
                ("planned_langs", _langs()),
                ("planned_prompts", planned_prompts),
                ("planned_cells", self._cells()),
            ):
                connection.register(name, frame)
            span = {"first": runs.start, "end": runs.stop, "open": self.last if self.is_open else -1}
            connection.execute(COMPLETIONS, {**span, "samples": self.samples})
            connection.execute(UNITS, ids)
            for scorer in self.scorers:
                connection.execute(SCORES, {**ids, "scorer": scorer, "revision": REVISION})
            connection.execute(CELLS, ids)
            connection.execute(
                "UPDATE run_settings "
                "SET status = CASE WHEN list_contains(?, variant_id) THEN 'running' ELSE 'done' END "
                "WHERE list_contains(?, run_id)",
                [open_ids, ids["run_ids"]],
            )

    def _cells(self) -> pd.DataFrame:
        """split, n, metric, scorer, is_tested and is_judged of every cell that a setting has."""
        rows = []
        for split in Split:
            n = sum(own is split for own, _ in PROMPTS)
            for metric, measure in metrics.MEASURES.items():
                if measure.is_worst and self.samples == 1:
                    continue
                if measure.source is Metric.PERPLEXITY_NEUTRAL and split is not Split.NEUTRAL_TEST:
                    continue
                for scorer in self.scorers if measure.source is Metric.TOXICITY else (None,):
                    rows.append((split, n, metric, scorer, measure.is_tested, metric in metrics.GUARDED_METRICS))
            rows += [(split, n, metric, None, False, False) for metric in (Metric.DISTINCT_1, Metric.DISTINCT_2)]
        return pd.DataFrame(rows, columns=["split", "n", "metric", "scorer", "is_tested", "is_judged"])

    def summarise(self) -> None:
        """What a sweep makes of its cells and scores besides."""
        for run in range(self.last + 1):
            with store.writing(self.path) as connection:
                for lang in NINE:
                    store.count_unscored(connection, run_id(run), lang)
            store.put_agreement(self.path, run_id(run), analysis.agreement(store.scores(self.path, run_id(run))))
            cells = store.cells(self.path, f"run:{run_id(run)}")
            cells = cells[cells["metric"].isin(metrics.AVERAGED)]
            for model in PAPER_MODELS:
                averages = metrics.eval_averages(cells[cells["model"] == model])
                store.put_averages(self.path, run_id(run), model, metrics.MEAN, averages)


def _words() -> dict[Language, list[str]]:
    """Of the bundled sample's neutral sentences; pairs of characters of Chinese, which has no spaces."""
    train = load("sample").train
    texts = {lang: " ".join(pair.neutral for pair in train[lang]) for lang in NINE}
    words = {lang: sorted(set(text.split())) for lang, text in texts.items()}
    chinese = texts[Language.ZH].replace(" ", "")
    return words | {Language.ZH: sorted({chinese[i : i + 2] for i in range(len(chinese) - 1)})}


def _langs() -> pd.DataFrame:
    rows = [
        (number, lang.value, words, *((40, "") if lang is Language.ZH else (22, " ")))
        for number, (lang, words) in enumerate(_words().items())
    ]
    return pd.DataFrame(rows, columns=["lang", "eval_lang", "words", "length", "joint"])


def _prompts() -> pd.DataFrame:
    draw = random.Random(0)
    rows = [
        (lang.value, split.value, index, " ".join(draw.choices(words, k=12)))
        for lang, words in _words().items()
        for split, index in PROMPTS
    ]
    return pd.DataFrame(rows, columns=["eval_lang", "split", "prompt_index", "sentence"])
