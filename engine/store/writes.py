"""What sweeps and searches write: one transaction per unit, idempotent by key."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from engine.analysis.geometry import Geometry
from engine.store.file import COMPLETION_KEY, Connection, insert, now, writing
from engine.vocabulary import Language, Score, Status, Variant


def put_plan(
    path: Path,
    run: dict[str, Any],
    variants: Sequence[Variant],
    eval_langs: Sequence[Language],
    sentences: pd.DataFrame,
) -> None:
    """A run with all its settings as `planned`; what is known of them already stays.

    `run`: the columns of `runs` but created_at. `sentences`: eval_lang, split, prompt_index, sentence.
    """
    with writing(path) as connection:
        row = pd.DataFrame([{**run, "created_at": now()}])
        insert(connection, "runs", row, "OR IGNORE")
        spec = pd.DataFrame(
            {
                "variant_id": v.variant_id,
                "model": v.model,
                "strategy": v.strategy.value,
                "train_lang": v.train_lang,
                "train_fraction": v.train_fraction,
                "spec": json.dumps(asdict(v)),
            }
            for v in variants
        )
        insert(connection, "variants", spec, "OR IGNORE")
        settings = pd.DataFrame(
            {
                "run_id": run["run_id"],
                "variant_id": v.variant_id,
                "eval_lang": lang.value,
                "status": Status.PLANNED.value,
            }
            for v in variants
            for lang in eval_langs
        )
        insert(connection, "run_settings", settings, "OR IGNORE")
        insert(connection, "prompts", sentences.assign(run_id=run["run_id"]), "OR IGNORE")


def set_status(
    path: Path,
    run_id: str,
    status: Status,
    variant_ids: Sequence[str],
    eval_lang: Language | None = None,
    error: str | None = None,
) -> None:
    """Settings of these variants (in one language, or in all) that are not done → `status`, with the time."""
    times = "started_at = ?, finished_at = NULL" if status is Status.RUNNING else "finished_at = ?"
    with writing(path) as connection:
        connection.execute(
            f"UPDATE run_settings SET status = ?, error = ?, {times} "
            "WHERE run_id = ? AND list_contains(?, variant_id) AND status <> 'done' AND (? IS NULL OR eval_lang = ?)",
            [status.value, error, now(), run_id, list(variant_ids), eval_lang, eval_lang],
        )


def put_unit(path: Path, run_id: str, unit_id: str, rows: pd.DataFrame) -> None:
    """A unit of completions, whole: `COMPLETION_KEY`, completion, n_tokens, nll_self and nll_base (nats, summed),
    and on neutral-test nll_neutral and n_tokens_neutral of the prompt's sentence."""
    with writing(path) as connection:
        _drop_replaced(connection, run_id, rows)
        insert(connection, "completions", rows.assign(run_id=run_id, unit_id=unit_id), "OR REPLACE")
        _put_unit(connection, run_id, unit_id)


def copy_unit(path: Path, run_id: str, unit_id: str) -> bool:
    """Takes a unit over from another run that has made the very same one; False when there is none."""
    with writing(path) as connection:
        other_run = connection.execute("SELECT run_id FROM units WHERE unit_id = ? LIMIT 1", [unit_id]).fetchone()
        if not other_run:
            return False
        copied = "SELECT * REPLACE (? AS run_id) FROM completions WHERE run_id = ? AND unit_id = ?"
        rows = connection.execute(copied, [run_id, other_run[0], unit_id]).df()
        _drop_replaced(connection, run_id, rows)
        insert(connection, "completions", rows, "OR REPLACE")
        _put_unit(connection, run_id, unit_id)
    return True


def _drop_replaced(connection: Connection, run_id: str, rows: pd.DataFrame) -> None:
    """Units of which these rows take the place are whole no more."""
    connection.execute(
        "DELETE FROM units WHERE run_id = ? AND unit_id IN (SELECT unit_id FROM completions "
        f"WHERE run_id = ? AND ({', '.join(COMPLETION_KEY)}) IN (SELECT ({', '.join(COMPLETION_KEY)}) FROM rows))",
        [run_id, run_id],
    )


def _put_unit(connection: Connection, run_id: str, unit_id: str) -> None:
    connection.execute("INSERT OR REPLACE INTO units VALUES (?, ?, ?)", [run_id, unit_id, now()])


def put_scores(
    path: Path, scorer: str, revision: str, eval_lang: Language, texts: Sequence[str], scores: Sequence[Score]
) -> None:
    """Scores of texts into the cache."""
    rows = pd.DataFrame(
        {
            "scorer": scorer,
            "revision": revision,
            "eval_lang": eval_lang.value,
            "text": list(texts),
            "value": [s.value for s in scores],
            "reason": [s.reason for s in scores],
        }
    )
    with writing(path) as connection:
        insert(connection, "score_cache", rows.astype({"value": "float64"}), "OR REPLACE")


def put_scorer(path: Path, run_id: str, scorer: str, revision: str, gap: dict[str, float]) -> None:
    """A scorer, or another revision of one, judges a run from now on: its cells and averages are to be made again, and
    until then its settings are not done. `gap`: neutral_train, neutral_test (means × 100), n_train, n_test."""
    row = pd.DataFrame([{"run_id": run_id, "scorer": scorer, "revision": revision, **gap}])
    with writing(path) as connection:
        insert(connection, "run_scorers", row, "OR REPLACE")
        connection.execute(
            "UPDATE run_settings SET status = 'running', finished_at = NULL WHERE run_id = ? AND status = 'done'",
            [run_id],
        )
        connection.execute("DELETE FROM run_averages WHERE run_id = ?", [run_id])


def put_cells(path: Path, run_id: str, eval_lang: Language, cells: pd.DataFrame) -> None:
    """The cells of these variants in a language, in place of those before; their settings are done."""
    variant_ids = cells["variant_id"].unique().tolist()
    with writing(path) as connection:
        connection.execute(
            "DELETE FROM run_cells WHERE run_id = ? AND eval_lang = ? AND list_contains(?, variant_id)",
            [run_id, eval_lang, variant_ids],
        )
        insert(connection, "run_cells", cells.assign(run_id=run_id, eval_lang=eval_lang.value))
        connection.execute(
            "UPDATE run_settings SET status = 'done', error = NULL, finished_at = ? "
            "WHERE run_id = ? AND eval_lang = ? AND list_contains(?, variant_id) AND status <> 'done'",
            [now(), run_id, eval_lang, variant_ids],
        )
        count_unscored(connection, run_id, eval_lang)


def count_unscored(connection: Connection, run_id: str, eval_lang: Language) -> None:
    """Stores how many completions in a language each scorer was given and could not score, by reason."""
    connection.execute("DELETE FROM run_unscored WHERE run_id = ? AND eval_lang = ?", [run_id, eval_lang])
    connection.execute(
        "INSERT INTO run_unscored SELECT c.run_id, c.eval_lang, x.scorer, k.reason, count(*) FROM completions c "
        "JOIN run_scorers x USING (run_id) JOIN score_cache k ON k.scorer = x.scorer AND k.revision = x.revision "
        "AND k.eval_lang = c.eval_lang AND k.text = c.completion "
        "WHERE c.run_id = ? AND c.eval_lang = ? AND k.value IS NULL GROUP BY ALL",
        [run_id, eval_lang],
    )


def put_averages(path: Path, run_id: str, model: str, eval_lang: str, averages: pd.DataFrame) -> None:
    """Mean Δ of a base in a language (`mean`: over languages), in place of those before.

    Columns: strategy, train_lang (`mean`: over X-FT), train_fraction, and `metrics.AVERAGES`.
    """
    rows = averages.assign(run_id=run_id, model=model, eval_lang=eval_lang)
    with writing(path) as connection:
        connection.execute(
            "DELETE FROM run_averages WHERE run_id = ? AND model = ? AND eval_lang = ?", [run_id, model, eval_lang]
        )
        insert(connection, "run_averages", rows)


def put_search(path: Path, facts: Mapping[str, object]) -> None:
    """A hyperparameter search that begins, or goes on: the columns of `searches`, but times and base_nll."""
    with writing(path) as connection:
        insert(connection, "searches", pd.DataFrame([{**facts, "created_at": now()}]), "OR IGNORE")


def put_points(path: Path, search_id: str, points: pd.DataFrame) -> None:
    """Points of a search, in place of what was known of them: the columns of `search_points`."""
    with writing(path) as connection:
        insert(connection, "search_points", points.assign(search_id=search_id), "OR REPLACE")


def finish_search(path: Path, search_id: str, base_nll: float) -> None:
    """All points of a search are stored; `base_nll` is what the bare base has, in nats per token."""
    with writing(path) as connection:
        connection.execute(
            "UPDATE searches SET finished_at = ?, base_nll = ? WHERE search_id = ?", [now(), base_nll, search_id]
        )


def put_agreement(path: Path, run_id: str, agreement: pd.DataFrame) -> None:
    """How far the scorers of a run agree, in place of what was said before: see `analysis.agreement`."""
    with writing(path) as connection:
        connection.execute("DELETE FROM run_agreement WHERE run_id = ?", [run_id])
        insert(connection, "run_agreement", agreement.assign(run_id=run_id))


def put_q_values(path: Path, run_id: str, cells: pd.DataFrame) -> None:
    """The q_value of cells of a run: variant_id, eval_lang, split, metric, scorer, q_value."""
    cells = cells[["variant_id", "eval_lang", "split", "metric", "scorer", "q_value"]]
    with writing(path) as connection:
        connection.register("fresh", cells)
        connection.execute(
            "UPDATE run_cells c SET q_value = f.q_value FROM fresh f "
            "WHERE c.run_id = ? AND c.variant_id = f.variant_id "
            "AND c.eval_lang = f.eval_lang AND c.split = f.split AND c.metric = f.metric "
            "AND c.scorer IS NOT DISTINCT FROM f.scorer",
            [run_id],
        )


def put_geometry(path: Path, run_id: str, variant_id: str, geometry: Geometry) -> None:
    """What is known of a variant's sentence embeddings, whole, in place of what was."""
    key = {"run_id": run_id, "variant_id": variant_id}
    summary = pd.DataFrame([{"n_sentences": geometry.n_sentences, "map_share": geometry.map_share, "made_at": now()}])
    tables = {
        "run_representations": summary,
        "run_similarities": geometry.similarities,
        "run_silhouettes": geometry.silhouettes,
        "run_distances": geometry.distances,
        "run_points": geometry.points,
    }
    with writing(path) as connection:
        for table, rows in tables.items():
            connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND variant_id = ?", list(key.values()))
            insert(connection, table, rows.assign(**key))
