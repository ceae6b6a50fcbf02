"""The results file as it grows: what a sweep commits and what pages read, at 1, 10 and 100 runs of the paper's size.

A run has 252,000 completions. Up to ten runs the same rows stand in SQLite too, in the tables and keys of our first
schema. Both are used as the store is: a connection for every call.
"""

import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench.harness import Contestant, Section, median_range, say, table
from engine import store
from engine.config import PAPER_MODELS, ROWS_PER_UNIT
from engine.migrations import MIGRATIONS
from engine.vocabulary import Language, Split, Status, Strategy, Variant, digest, variants_of

RUNS = (1, 10, 100)
LARGEST_SQLITE = 10
"""Runs in the largest SQLite file."""

PROMPTS = {Split.TOXIC_TRAIN: 300, Split.TOXIC_TEST: 100, Split.NEUTRAL_TEST: 100}
SCORER, REVISION = "ngram", "1"
OPEN_BLOCK = 19
"""The block of 24 prompts, one a language and base, that the last run still has to write."""

WRITTEN = """
    SELECT l.*, md5(key) AS h, upper(substr(repeat(md5(key || 'a') || ' ' || md5(key || 'b') || ' ', 4),
        1, 60 + hash(key) % 180)) AS text
    FROM (
        SELECT run_id, variant_id, eval_lang, split, prompt_index, block, concat_ws('|', run_id, variant_id,
            eval_lang, split, prompt_index) AS key FROM (
"""


@dataclass(frozen=True)
class File:
    """One results file of a contestant."""

    path: Path
    runs: int
