"""Filters, sorts and pages completions inside DuckDB, so that a page loads only its own rows.

Shows finished settings only, as the public views do. A completion stands beside what ZS of its base wrote to the same
prompt and sample. Scores are looked up for what is shown; for all, only where they decide what that is.
"""

import re
import unicodedata
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from engine import store


class Change(StrEnum):
    """What became of a completion, against that of ZS. A text is degenerate when its cell is, or when it is empty."""

    IMPROVED = "improved"
    WORSENED = "worsened"
    DEGENERATE = "degenerate"


class Order(StrEnum):
    """What comes first. What has no number comes last."""

    PROMPT = "prompt"
    IMPROVED = "improved"
    WORSENED = "worsened"
    MOST_TOXIC = "most-toxic"
    LEAST_TOXIC = "least-toxic"


@dataclass(frozen=True)
class Filters:
    """Which completions of a run. Empty, or None: all of them.

    `scorer` judges, '' where the run has none. `toxicity`: lowest and highest, in 0..1; what has no score never
    matches. `text`: see `spellings`; looked for in the completion and in the sentence of its prompt.
    """

    run_id: str
    scorer: str
    variant_ids: tuple[str, ...] = ()
    eval_lang: str = ""
    split: str = ""
    toxicity: tuple[float, float] | None = None
    change: Change | None = None
    text: str = ""


@dataclass(frozen=True)
class Key:
    """One completion of a run."""

    variant_id: str
    eval_lang: str
    split: str
    prompt_index: int
    sample_index: int


COLUMNS = [
    *("variant_id", "eval_lang", "split", "prompt_index", "sample_index", "sentence", "completion", "toxicity"),
    *("reason", "verdict_reason", "zero_shot", "completion_zs", "toxicity_zs", "reason_zs"),
]
"""Of what is found. `verdict_reason`: why the cell is degenerate, else None. `zero_shot`: the variant_id of ZS, None
where there is none and on ZS's own rows. Toxicity is in 0..1."""

ORDERS = {
    Order.PROMPT: "",
    Order.IMPROVED: "zs.value - own.value DESC NULLS LAST, ",
    Order.WORSENED: "zs.value - own.value ASC NULLS LAST, ",
    Order.MOST_TOXIC: "own.value DESC NULLS LAST, ",
    Order.LEAST_TOXIC: "own.value ASC NULLS LAST, ",
}
BY_PROMPT = "c.eval_lang, c.split, c.prompt_index, c.sample_index, c.variant_id"

CHANGES = {
    Change.IMPROVED: "zs.value > own.value",
    Change.WORSENED: "zs.value < own.value",
    Change.DEGENERATE: r"(v.verdict_reason IS NOT NULL OR regexp_full_match(c.completion, '[\s\pZ]*'))",
}

COMMON_TABLES = """
    base AS (SELECT model, eval_lang, variant_id AS zero_shot FROM run_settings JOIN variants USING (variant_id)
        WHERE run_id = $run_id AND strategy = 'ZS' AND status = 'done'),
    place AS (SELECT variant_id, eval_lang, nullif(zero_shot, variant_id) AS zero_shot
        FROM run_settings JOIN variants USING (variant_id) LEFT JOIN base USING (model, eval_lang)
        WHERE run_id = $run_id AND status = 'done'),
    verdict AS (SELECT variant_id, eval_lang, split, any_value(verdict_reason) AS verdict_reason FROM run_cells
        WHERE run_id = $run_id AND verdict = 'degenerate' GROUP BY ALL),
    score AS (SELECT eval_lang, text, value, reason FROM score_cache WHERE scorer = $scorer AND revision = $revision),
    zs AS MATERIALIZED (SELECT b.variant_id, b.eval_lang, b.split, b.prompt_index, b.sample_index, k.value
        FROM completions b JOIN base ON zero_shot = variant_id AND base.eval_lang = b.eval_lang
        JOIN score k ON k.eval_lang = b.eval_lang AND k.text = b.completion WHERE run_id = $run_id),
    prompted AS (SELECT eval_lang, split, prompt_index, sentence FROM prompts WHERE run_id = $run_id)
"""
FROM = "completions c JOIN place p ON p.variant_id = c.variant_id AND p.eval_lang = c.eval_lang"
JOINS = {
    "own.": " LEFT JOIN score own ON own.eval_lang = c.eval_lang AND own.text = c.completion",
    "zs.": " LEFT JOIN zs ON zs.variant_id = p.zero_shot AND zs.eval_lang = c.eval_lang AND zs.split = c.split"
    " AND zs.prompt_index = c.prompt_index AND zs.sample_index = c.sample_index",
    "v.": " LEFT JOIN verdict v ON v.variant_id = c.variant_id AND v.eval_lang = c.eval_lang AND v.split = c.split",
}
"""What is joined where a query speaks of it: the scores of a whole run cost more than all the rest."""

ZERO_SHOT = """
    SELECT place, b.variant_id AS zero_shot, b.completion AS completion_zs FROM page JOIN completions b
    ON b.variant_id = zero_shot AND b.eval_lang = page.eval_lang AND b.split = page.split
    AND b.prompt_index = page.prompt_index AND b.sample_index = page.sample_index WHERE b.run_id = $run_id
"""
SCORES = """
    SELECT eval_lang, text, value, reason FROM score_cache JOIN (
        SELECT eval_lang, completion AS text FROM page
        UNION SELECT eval_lang, completion_zs FROM page JOIN beside USING (place)
    ) USING (eval_lang, text) WHERE scorer = $scorer AND revision = $revision
"""
PAGE_ROWS = f"""
    SELECT c.variant_id, c.eval_lang, c.split, c.prompt_index, c.sample_index, sentence, c.completion,
        own.value AS toxicity, own.reason, v.verdict_reason, b.zero_shot, completion_zs, zs.value AS toxicity_zs,
        zs.reason AS reason_zs
    FROM page c JOIN prompted t ON t.eval_lang = c.eval_lang AND t.split = c.split AND t.prompt_index = c.prompt_index
        LEFT JOIN beside b USING (place)
        LEFT JOIN scores own ON own.eval_lang = c.eval_lang AND own.text = c.completion
        LEFT JOIN scores zs ON zs.eval_lang = c.eval_lang AND zs.text = completion_zs
        {JOINS["v."]}
    ORDER BY place
"""


def rows(path: Path, filters: Filters, order: Order, first: int, size: int) -> pd.DataFrame:
    """`COLUMNS` of `size` completions in an order, from number `first` on, counted from 0."""
    where, parameters = _conditions(filters)
    by = ORDERS[order] + BY_PROMPT
    return _page_rows(path, f"{_from_where(where, by)} ORDER BY {by} LIMIT {size} OFFSET {first}", parameters)


def count(path: Path, filters: Filters) -> int:
    """How many completions `rows` has to show."""
    where, parameters = _conditions(filters)
    with store.reading(path) as connection:
        result = connection.execute(
            f"WITH {COMMON_TABLES} SELECT count(*) {_from_where(where)}", _full(connection, parameters)
        )
        row = result.fetchone()
    return row[0] if row else 0


def completion(path: Path, run_id: str, scorer: str, key: Key) -> pd.DataFrame:
    """`COLUMNS` of one completion; no row where there is none."""
    where, parameters = _conditions(Filters(run_id, scorer))
    place = " AND ".join(f"c.{name} = ${name}" for name in asdict(key))
    return _page_rows(path, _from_where(f"{where} AND {place}"), {**parameters, **asdict(key)})


def spellings(text: str) -> tuple[str, ...]:
    """The ways in which `text` may have been stored: as it is, composed (NFC) and decomposed (NFD), without repeats."""
    return tuple(dict.fromkeys([text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]))


def _conditions(filters: Filters) -> tuple[str, dict[str, Any]]:
    """What a completion must fulfil, as SQL, and its parameters with those of `PARTS`."""
    parameters: dict[str, Any] = {"run_id": filters.run_id, "scorer": filters.scorer}
    where = ["c.run_id = $run_id"]
    if filters.variant_ids:
        where.append("list_contains($variant_ids, c.variant_id)")
        parameters["variant_ids"] = list(filters.variant_ids)
    for name in ("eval_lang", "split"):
        if getattr(filters, name):
            where.append(f"c.{name} = ${name}")
            parameters[name] = getattr(filters, name)
    if filters.toxicity:
        where.append("own.value BETWEEN $lowest AND $highest")
        parameters["lowest"], parameters["highest"] = filters.toxicity
    if filters.change:
        where.append(CHANGES[filters.change])
    if filters.text:
        has, parameters["pattern"] = _search(filters.text)
        where.append(
            f"({has.format('c.completion')} OR (c.eval_lang, c.split, c.prompt_index) IN "
            f"(SELECT (eval_lang, split, prompt_index) FROM prompted WHERE {has.format('sentence')}))"
        )
    return " AND ".join(where), parameters


def _search(text: str) -> tuple[str, str | list[str]]:
    """The SQL that looks for a text in the column to be filled in, and its parameter.

    Where the text has letters with case, upper and lower case are one; elsewhere code points must be equal, which is
    several times as fast.
    """
    if text.lower() == text.upper():
        return "len(list_filter($pattern, lambda x: contains({}, x))) > 0", list(spellings(text))
    return "regexp_matches({}, $pattern)", "(?i)" + "|".join(map(re.escape, spellings(text)))


def _from_where(where: str, by: str = "") -> str:
    joins = [join for name, join in JOINS.items() if name in where + by]
    return f"FROM {FROM}{''.join(joins)} WHERE {where}"


def _full(connection: store.Connection, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters, and the revision of the scorer: as a join it would hide from DuckDB how little is wanted."""
    judge = [parameters["run_id"], parameters["scorer"]]
    row = connection.execute("SELECT revision FROM run_scorers WHERE run_id = ? AND scorer = ?", judge).fetchone()
    return {**parameters, "revision": row[0] if row else None}


def _page_rows(path: Path, page: str, parameters: dict[str, Any]) -> pd.DataFrame:
    """`COLUMNS` of the completions of a page, in its order.

    Step by step: joined with few rows that are there, a table of millions is looked into; otherwise it is read.
    """
    with store.reading(path) as connection:
        parameters = _full(connection, parameters)

        def step(sql: str, *names: str) -> pd.DataFrame:
            return connection.execute(sql, {name: parameters[name] for name in names}).df()

        rows = connection.execute(f"WITH {COMMON_TABLES} SELECT c.*, p.zero_shot {page}", parameters).df()
        connection.register("page", rows.reset_index(names="place"))
        connection.register("beside", step(ZERO_SHOT, "run_id"))
        connection.register("scores", step(SCORES, "scorer", "revision"))
        return step(f"WITH {COMMON_TABLES} {PAGE_ROWS}", "run_id", "scorer", "revision")
