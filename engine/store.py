"""The results file. The only module that imports duckdb.

One transaction a unit, idempotent by key, and short connections: DuckDB lets one process write or many read, so
whoever finds the file held waits a little and tries again, and nobody keeps a connection.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from tenacity import RetryError, Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from engine import published
from engine.errors import StoreError
from engine.geometry import Geometry
from engine.migrations import MIGRATIONS
from engine.vocabulary import Language, Score, Status, Variant, digest

LOCK_PATIENCE = 20.0
"""Seconds to wait for a results file that another process holds."""

Connection = duckdb.DuckDBPyConnection

PUBLISHED = "published"
COMPLETION_KEY = ("variant_id", "eval_lang", "split", "prompt_index", "sample_index")


class LockedError(StoreError):
    """Another process holds the file, and went on holding it."""


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """A short read-only connection. Errors: StoreError (absent, not ours, from a newer or older version, locked)."""
    if not path.exists():
        raise StoreError(f"{path}: no results file. Run `python run_sweep.py` to make one.")
    with _connected(path, read_only=True) as connection:
        done = _version(connection, path)
        if done < len(MIGRATIONS):
            raise StoreError(
                f"{path}: written by an older version. Run `python run_sweep.py --db {path}` to bring it up."
            )
        yield connection


@contextmanager
def writing(path: Path) -> Iterator[Connection]:
    """A short connection in one transaction: all of the block is stored, or nothing. Makes the file when absent."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be made ({error.strerror}). Give another --db.") from error
    with _connected(path, read_only=False) as connection:
        _migrate(connection, path)
        try:
            connection.begin()
            yield connection
            connection.commit()
        except duckdb.IOException as error:  # a full disk; the transaction ends with the connection
            raise StoreError(f"{path}: cannot be written ({_first_line(error)}). Make room, then go on.") from error


@contextmanager
def _connected(path: Path, read_only: bool) -> Iterator[Connection]:
    held = retry_if_exception_message(match=r"(?s).*(Could not set lock|Conflicting lock|different configuration).*")
    try:
        for attempt in Retrying(
            retry=held, stop=stop_after_delay(LOCK_PATIENCE), wait=wait_random_exponential(0.05, max=1.0)
        ):
            with attempt:
                connection = duckdb.connect(str(path), read_only=read_only)
    except RetryError as error:
        raise LockedError(f"{path}: another process holds it; try again when that is done.") from error
    except duckdb.Error as error:
        raise StoreError(
            f"{path}: cannot be opened as a DuckDB file ({_first_line(error)}). Give another --db."
        ) from error
    try:
        connection.execute("SET enable_progress_bar = false")  # it would draw on the terminal of a sweep or the app
        yield connection
    finally:
        connection.close()


def _now() -> datetime:
    """Times are stored in UTC, without a zone: DuckDB's zoned ones need a package that it does not bring."""
    return datetime.now(UTC).replace(tzinfo=None)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _version(connection: Connection, path: Path) -> int:
    """How many migrations the file has seen; 0 for an empty one. Errors: StoreError (not ours, or newer)."""
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "migrations" not in tables:
        if tables:
            raise StoreError(f"{path}: a DuckDB file, but not one of ours. Give another --db.")
        return 0
    row = connection.execute("SELECT count(*) FROM migrations").fetchone()
    done = row[0] if row else 0
    if done > len(MIGRATIONS):
        raise StoreError(
            f"{path}: made by a newer version (schema {done}, this one knows {len(MIGRATIONS)}). "
            f"Update the project, or give another --db."
        )
    return int(done)


def _migrate(connection: Connection, path: Path) -> None:
    done = _version(connection, path)
    for number, (name, sql) in enumerate(MIGRATIONS[done:], start=done + 1):
        connection.begin()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name VARCHAR, applied_at TIMESTAMP)"
        )
        connection.execute(sql)
        if number == len(MIGRATIONS):
            connection.execute("DELETE FROM published_cells")
            _insert(connection, "published_cells", published.cells())
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", [number, name, _now()])
        connection.commit()


def _insert(connection: Connection, table: str, rows: pd.DataFrame, conflict: str = "") -> None:
    """All rows of a frame whose columns are columns of the table."""
    if len(rows):
        columns = ", ".join(rows.columns)
        connection.execute(f"INSERT {conflict} INTO {table} ({columns}) SELECT {columns} FROM rows")


# --- what a sweep writes ------------------------------------------------------------------------------------------


def put_plan(
    path: Path, run: dict[str, Any], variants: Sequence[Variant], eval_langs: Sequence[Language], prompts: pd.DataFrame
) -> None:
    """A run with all its settings as `planned`; what is known of them already stays.

    `run`: the columns of `runs` but created_at. `prompts`: eval_lang, split, prompt_index, prompt.
    """
    with writing(path) as connection:
        row = pd.DataFrame([{**run, "created_at": _now()}])
        _insert(connection, "runs", row, "OR IGNORE")
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
        _insert(connection, "variants", spec, "OR IGNORE")
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
        _insert(connection, "run_settings", settings, "OR IGNORE")
        _insert(connection, "prompts", prompts.assign(run_id=run["run_id"]), "OR IGNORE")


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
            [status.value, error, _now(), run_id, list(variant_ids), eval_lang, eval_lang],
        )


def put_unit(path: Path, run_id: str, unit_id: str, rows: pd.DataFrame) -> None:
    """A unit of completions, whole: `COMPLETION_KEY`, completion, n_tokens, nll_self and nll_base (nats, summed),
    and on neutral-test nll_neutral and n_tokens_neutral of the prompt's sentence."""
    with writing(path) as connection:
        _drop_replaced(connection, run_id, rows)
        _insert(connection, "completions", rows.assign(run_id=run_id, unit_id=unit_id), "OR REPLACE")
        _put_unit(connection, run_id, unit_id)


def copy_unit(path: Path, run_id: str, unit_id: str) -> bool:
    """Takes a unit over from another run that has made the very same one; False when there is none."""
    with writing(path) as connection:
        found = connection.execute("SELECT run_id FROM units WHERE unit_id = ? LIMIT 1", [unit_id]).fetchone()
        if not found:
            return False
        copied = "SELECT * REPLACE (? AS run_id) FROM completions WHERE run_id = ? AND unit_id = ?"
        rows = connection.execute(copied, [run_id, found[0], unit_id]).df()
        _drop_replaced(connection, run_id, rows)
        _insert(connection, "completions", rows, "OR REPLACE")
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
    connection.execute("INSERT OR REPLACE INTO units VALUES (?, ?, ?)", [run_id, unit_id, _now()])


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
        _insert(connection, "score_cache", rows.astype({"value": "float64"}), "OR REPLACE")


def put_scorer(path: Path, run_id: str, scorer: str, revision: str, gap: dict[str, float]) -> None:
    """A scorer, or another revision of one, judges a run from now on: its cells are to be made again, and until
    then its settings are not done. `gap`: neutral_train, neutral_test (means × 100), n_train, n_test."""
    row = pd.DataFrame([{"run_id": run_id, "scorer": scorer, "revision": revision, **gap}])
    with writing(path) as connection:
        _insert(connection, "run_scorers", row, "OR REPLACE")
        connection.execute(
            "UPDATE run_settings SET status = 'running', finished_at = NULL WHERE run_id = ? AND status = 'done'",
            [run_id],
        )


def put_cells(path: Path, run_id: str, eval_lang: Language, cells: pd.DataFrame) -> None:
    """The cells of these variants in a language, in place of those before; their settings are done."""
    variant_ids = cells["variant_id"].unique().tolist()
    with writing(path) as connection:
        connection.execute(
            "DELETE FROM run_cells WHERE run_id = ? AND eval_lang = ? AND list_contains(?, variant_id)",
            [run_id, eval_lang, variant_ids],
        )
        _insert(connection, "run_cells", cells.assign(run_id=run_id, eval_lang=eval_lang.value))
        connection.execute(
            "UPDATE run_settings SET status = 'done', error = NULL, finished_at = ? "
            "WHERE run_id = ? AND eval_lang = ? AND list_contains(?, variant_id) AND status <> 'done'",
            [_now(), run_id, eval_lang, variant_ids],
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
        _insert(connection, "run_averages", rows)


def put_search(path: Path, facts: Mapping[str, object]) -> None:
    """A hyper-parameter search that begins, or goes on: the columns of `searches`, but times and base_nll."""
    with writing(path) as connection:
        _insert(connection, "searches", pd.DataFrame([{**facts, "created_at": _now()}]), "OR IGNORE")


def put_points(path: Path, search_id: str, points: pd.DataFrame) -> None:
    """Points of a search, in place of what was known of them: the columns of `search_points`."""
    with writing(path) as connection:
        _insert(connection, "search_points", points.assign(search_id=search_id), "OR REPLACE")


def finish_search(path: Path, search_id: str, base_nll: float) -> None:
    """All points of a search are stored; `base_nll` is what the bare base has, in nats a token."""
    with writing(path) as connection:
        connection.execute(
            "UPDATE searches SET finished_at = ?, base_nll = ? WHERE search_id = ?", [_now(), base_nll, search_id]
        )


def put_agreement(path: Path, run_id: str, agreement: pd.DataFrame) -> None:
    """How far the scorers of a run agree, in place of what was said before: see `analysis.agreement`."""
    with writing(path) as connection:
        connection.execute("DELETE FROM run_agreement WHERE run_id = ?", [run_id])
        _insert(connection, "run_agreement", agreement.assign(run_id=run_id))


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


def put_geometry(path: Path, run_id: str, variant_id: str, found: Geometry) -> None:
    """What is known of a variant's sentence embeddings, whole, in place of what was."""
    key = {"run_id": run_id, "variant_id": variant_id}
    made = pd.DataFrame([{"n_sentences": found.n_sentences, "map_share": found.map_share, "made_at": _now()}])
    tables = {
        "run_representations": made,
        "run_similarities": found.similarities,
        "run_silhouettes": found.silhouettes,
        "run_distances": found.distances,
        "run_points": found.points,
    }
    with writing(path) as connection:
        for table, rows in tables.items():
            connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND variant_id = ?", list(key.values()))
            _insert(connection, table, rows.assign(**key))


# --- what a sweep reads to go on ------------------------------------------------------------------------------------


def finished_units(path: Path, run_id: str) -> set[str]:
    """The ids of all units that a run has stored."""
    with reading(path) as connection:
        return {
            unit for (unit,) in connection.execute("SELECT unit_id FROM units WHERE run_id = ?", [run_id]).fetchall()
        }


def statuses(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, eval_lang, status and error of every setting of a run."""
    return _frame(path, "SELECT variant_id, eval_lang, status, error FROM run_settings WHERE run_id = ?", [run_id])


def completions(path: Path, run_id: str, eval_lang: Language) -> pd.DataFrame:
    """The completions of a language: variant_id, split, prompt_index, sample_index, prompt, completion, likelihoods."""
    return _frame(
        path,
        "SELECT * EXCLUDE (run_id, eval_lang, unit_id) FROM completions JOIN prompts "
        "USING (run_id, eval_lang, split, prompt_index) WHERE run_id = ? AND eval_lang = ? "
        "ORDER BY variant_id, split, prompt_index, sample_index",
        [run_id, eval_lang],
    )


def cached_scores(path: Path, scorer: str, revision: str, eval_lang: Language) -> pd.DataFrame:
    """text, value, reason of everything this revision of a scorer has judged in a language."""
    return _frame(
        path,
        "SELECT text, value, reason FROM score_cache WHERE scorer = ? AND revision = ? AND eval_lang = ?",
        [scorer, revision, eval_lang],
    )


# --- what the app and the summary read ------------------------------------------------------------------------------


def sources(path: Path) -> pd.DataFrame:
    """The runs, newest first: run_id, source, sweep, dataset, seed, created_at, settings, done, failed."""
    return _frame(
        path,
        "SELECT r.run_id, 'run:' || r.run_id AS source, r.sweep, r.dataset, r.seed, r.created_at, "
        "count(*) AS settings, count(*) FILTER (s.status = 'done') AS done, "
        "count(*) FILTER (s.status = 'failed') AS failed "
        "FROM runs r JOIN run_settings s USING (run_id) GROUP BY ALL ORDER BY r.created_at DESC",
    )


def run(path: Path, run_id: str) -> pd.DataFrame:
    """One row: run_id, sweep, dataset, dataset_hash, seed, plan (JSON: a `config.Sweep`), created_at."""
    return _frame(path, "SELECT * FROM runs WHERE run_id = ?", [run_id])


def bases(path: Path, run_id: str) -> pd.DataFrame:
    """model, revision, dtype and targets (a JSON list, NULL where nothing is trained) of the bases of a run."""
    return _frame(
        path,
        "SELECT model, any_value(spec->>'$.revision') AS revision, any_value(spec->>'$.dtype') AS dtype, "
        "any_value(spec->>'$.hyperparameters.targets') AS targets FROM variants "
        "WHERE variant_id IN (SELECT variant_id FROM run_settings WHERE run_id = ?) GROUP BY model ORDER BY model",
        [run_id],
    )


def cells(path: Path, source: str) -> pd.DataFrame:
    """The rows of the view `cells` of one source (`published` or `run:<run_id>`)."""
    return _frame(path, "SELECT * FROM cells WHERE source = ?", [source])


def cells_of(path: Path, variant_id: str) -> pd.DataFrame:
    """The rows of the view `cells` of one variant, in all runs, the newest run first."""
    return _frame(
        path,
        "SELECT c.* FROM cells c JOIN runs r USING (run_id) WHERE variant_id = ? ORDER BY r.created_at DESC, eval_lang",
        [variant_id],
    )


def averages(path: Path, source: str) -> pd.DataFrame:
    """The rows of the view `averages` of one source: mean Δ over languages, over X-FT variants, and over both."""
    return _frame(path, "SELECT * FROM averages WHERE source = ?", [source])


def settings(path: Path, run_id: str) -> pd.DataFrame:
    """The rows of the view `settings` of one run."""
    return _frame(path, "SELECT * FROM settings WHERE run_id = ?", [run_id])


def samples(path: Path, run_id: str, eval_lang: str, split: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """The rows of the view `samples` of some variants in one language and split, in the order of the prompts."""
    return _frame(
        path,
        "SELECT * FROM samples WHERE run_id = ? AND eval_lang = ? AND split = ? AND list_contains(?, variant_id) "
        "ORDER BY prompt_index, sample_index, scorer",
        [run_id, eval_lang, split, list(variant_ids)],
    )


def scores(path: Path, run_id: str) -> pd.DataFrame:
    """eval_lang, text, scorer, value of every different text of a run and every scorer that judged it."""
    return _frame(
        path,
        "SELECT DISTINCT c.eval_lang, c.completion AS text, x.scorer, k.value FROM completions c "
        "JOIN run_scorers x USING (run_id) JOIN score_cache k ON k.scorer = x.scorer AND k.revision = x.revision "
        "AND k.eval_lang = c.eval_lang AND k.text = c.completion WHERE c.run_id = ?",
        [run_id],
    )


def searches(path: Path) -> pd.DataFrame:
    """The hyper-parameter searches, newest first: the columns of the table; finished_at NULL where one goes on."""
    return _frame(path, "SELECT * FROM searches ORDER BY created_at DESC")


def search_points(path: Path, search_id: str) -> pd.DataFrame:
    """The points of a search that were judged, the best first: rank, alpha, learning_rate, batch_size, rung (how often
    it was judged before), epochs (trained until then), final_loss and nll (of validation text; NULL: failed) in nats a
    token, failure."""
    return _frame(
        path,
        "SELECT * EXCLUDE (search_id) FROM search_points WHERE search_id = ? ORDER BY rung DESC, nll NULLS LAST",
        [search_id],
    )


def agreement(path: Path, run_id: str) -> pd.DataFrame:
    """What `put_agreement` stored, without the run."""
    return _frame(path, "SELECT * EXCLUDE (run_id) FROM run_agreement WHERE run_id = ?", [run_id])


def unscored(path: Path, run_id: str) -> pd.DataFrame:
    """eval_lang, scorer, reason, n: the completions that a scorer was given and could not score."""
    return _frame(path, "SELECT * EXCLUDE (run_id) FROM run_unscored WHERE run_id = ?", [run_id])


def scorers(path: Path, run_id: str) -> pd.DataFrame:
    """scorer, revision, neutral_train, neutral_test (means × 100), n_train, n_test of one run."""
    return _frame(path, "SELECT * EXCLUDE (run_id) FROM run_scorers WHERE run_id = ?", [run_id])


def training(path: Path) -> pd.DataFrame:
    """variant_id, dataset_hash, limit_train, epochs and batch_size of every trained variant."""
    return _frame(
        path,
        "SELECT variant_id, spec->>'$.dataset_hash' AS dataset_hash, (spec->>'$.limit_train')::INTEGER AS limit_train, "
        "(spec->>'$.hyperparameters.epochs')::INTEGER AS epochs, "
        "(spec->>'$.hyperparameters.batch_size')::INTEGER AS batch_size FROM variants WHERE strategy <> 'ZS'",
    )


def shapes(path: Path) -> dict[str, str]:
    """run_id → what the run is but for its seed, as a hash: runs of one shape are several seeds of one plan."""
    runs = _frame(
        path,
        "SELECT run_id, r.plan, r.dataset_hash, list(DISTINCT v.spec::VARCHAR ORDER BY v.spec::VARCHAR) AS specs "
        "FROM runs r JOIN run_settings USING (run_id) JOIN variants v USING (variant_id) GROUP BY ALL",
    )
    found = {}
    for run_id, plan, content, specs in runs.itertuples(index=False):
        kept = {key: value for key, value in json.loads(plan).items() if key not in BESIDE_SHAPE}
        variants = sorted(digest({**json.loads(spec), "seed": None}) for spec in specs)
        found[run_id] = digest([kept, content, variants])
    return found


BESIDE_SHAPE = frozenset({"name", "about", "seed", "scorers", "db", "adapters", "represent"})
"""Parts of a plan that do not shape what is measured, or are the seed itself."""


def represented(path: Path, run_id: str) -> pd.DataFrame:
    """The variants of a run whose embeddings are measured: variant_id, model, strategy, train_lang, train_fraction,
    n_sentences, map_share."""
    return _frame(
        path,
        "SELECT variant_id, model, strategy, train_lang, train_fraction, n_sentences, map_share "
        "FROM run_representations JOIN variants USING (variant_id) WHERE run_id = ?",
        [run_id],
    )


def similarities(path: Path, run_id: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """variant_id, group_a, group_b, n_pairs, similarity (see `geometry.similarities`) of some variants of a run."""
    return _geometry(path, "run_similarities", run_id, variant_ids)


def silhouettes(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, clusters, part, eval_lang, n, silhouette (see `geometry.silhouettes`) of all variants of a run."""
    return _geometry(path, "run_silhouettes", run_id)


def distances(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, part, eval_lang, n_pairs, pair_distance, mean_distance (see `geometry.distances`) of a run."""
    return _geometry(path, "run_distances", run_id)


def points(path: Path, run_id: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """variant_id, eval_lang, part, side, sentence_index, x, y: where sentences lie on the map, under some variants."""
    return _geometry(path, "run_points", run_id, variant_ids)


def _geometry(path: Path, table: str, run_id: str, variant_ids: Sequence[str] | None = None) -> pd.DataFrame:
    chosen = None if variant_ids is None else list(variant_ids)
    return _frame(
        path,
        f"SELECT * EXCLUDE (run_id) FROM {table} WHERE run_id = ? AND (? IS NULL OR list_contains(?, variant_id))",
        [run_id, chosen, chosen],
    )


def _frame(path: Path, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
    with reading(path) as connection:
        return connection.execute(sql, list(parameters)).df()
