"""The results file: connections, schema migration and locking.

DuckDB lets one process write or many read, so whoever finds the file held waits a little and tries again, and nobody
keeps it open. DuckDB itself takes 50 ms to start, and is started once; a file is attached to it, in 4 ms, while it is
used, and only then is it locked.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import pandas as pd
from tenacity import (
    RetryError,
    Retrying,
    retry_any,
    retry_if_exception_message,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from engine.data import published
from engine.errors import StoreError
from engine.store.migrations import MIGRATIONS
from engine.vocabulary import digest

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
        raise StoreError(f"{path}: no results file. Run `python run_sweep.py` to create one.")
    with _connect(path, read_only=True) as connection:
        done = _version(connection, path)
        if done < len(MIGRATIONS):
            raise StoreError(
                f"{path}: written by an older version. Run `python run_sweep.py --db {path}` to migrate it."
            )
        yield connection


@contextmanager
def writing(path: Path) -> Iterator[Connection]:
    """A short connection in one transaction: all of the block is stored, or nothing. Makes the file when absent."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be created ({error.strerror}). Give another --db.") from error
    with _connect(path, read_only=False) as connection:
        _migrate(connection, path)
        try:
            connection.begin()
            yield connection
            connection.commit()
        except (duckdb.IOException, duckdb.TransactionException) as error:  # a full disk; the transaction is undone
            raise StoreError(
                f"{path}: cannot be written ({_first_line(error)}). Free some disk space, and run the same command "
                "again."
            ) from error


@contextmanager
def _connect(path: Path, read_only: bool) -> Iterator[Connection]:
    try:
        with _attached(path, read_only) as name, _duckdb().cursor() as connection:
            connection.execute(f"USE {name}")
            connection.execute("SET enable_progress_bar = false")  # it would draw on the terminal of a sweep or the app
            yield connection
    except (RuntimeError, duckdb.InterruptException) as error:
        # What DuckDB makes of Ctrl-C, in whichever statement it comes: nobody may take it for a failure.
        if isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _attached(path: Path, read_only: bool) -> Iterator[str]:
    """The file under a name, as soon as nobody else holds it. Errors: LockedError, StoreError."""
    is_held = retry_any(
        retry_if_exception_type(LockedError),
        retry_if_exception_message(match=r"(?s).*(Could not set|Conflicting) lock.*"),
    )
    try:
        for attempt in Retrying(
            retry=is_held, stop=stop_after_delay(LOCK_PATIENCE), wait=wait_random_exponential(0.05, max=1.0)
        ):
            with attempt:
                name = _attach(path, read_only)
    except RetryError as error:
        raise LockedError(f"{path}: locked by another process; try again when it is done.") from error
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise StoreError(
            f"{path}: cannot be opened as a DuckDB file ({_first_line(error)}). Give another --db."
        ) from error
    try:
        yield name
    finally:
        _detach(name)


@cache
def _duckdb() -> Connection:
    return duckdb.connect(":memory:")


_users: dict[str, tuple[bool, int]] = {}
"""How every attached file is open (read-only or not), and how many threads use it: a process has one lock on a file."""
_attaching = Lock()


def _attach(path: Path, read_only: bool) -> str:
    """The name of the file in `_duckdb`. Errors: duckdb.Error, LockedError (this process has it open the other way)."""
    name = f"results_{digest(str(path.resolve()))}"
    with _attaching:
        is_read_only, users = _users.get(name, (read_only, 0))
        if is_read_only != read_only:
            raise LockedError(f"{path}: this process has it open.")
        if not users:
            quoted = str(path).replace("'", "''")
            _duckdb().execute(f"ATTACH '{quoted}' AS {name} {'(READ_ONLY)' if read_only else ''}")
        _users[name] = (read_only, users + 1)
    return name


def _detach(name: str) -> None:
    with _attaching:
        read_only, users = _users.pop(name)
        if users > 1:
            _users[name] = (read_only, users - 1)
            return
        try:
            _duckdb().execute(f"DETACH {name}")
        except (
            duckdb.FatalException
        ):  # DuckDB broke down with the file (a full disk), for all: the next one starts anew
            _duckdb.cache_clear()


def now() -> datetime:
    """Times are stored in UTC, without a zone: DuckDB's zoned ones need a package that it does not bring."""
    return datetime.now(UTC).replace(tzinfo=None)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _version(connection: Connection, path: Path) -> int:
    """How many migrations the file has seen; 0 for an empty one. Errors: StoreError (not ours, or newer)."""
    try:
        row = connection.execute("SELECT count(*) FROM migrations").fetchone()
    except duckdb.CatalogException as error:
        if connection.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = current_database()").fetchone():
            raise StoreError(f"{path}: a DuckDB file, but not a results file. Give another --db.") from error
        return 0
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
            insert(connection, "published_cells", published.cells())
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", [number, name, now()])
        connection.commit()


def insert(connection: Connection, table: str, rows: pd.DataFrame, conflict: str = "") -> None:
    """All rows of a frame whose columns are columns of the table."""
    if len(rows):
        columns = ", ".join(rows.columns)
        connection.execute(f"INSERT {conflict} INTO {table} ({columns}) SELECT {columns} FROM rows")


def frame(path: Path, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
    with reading(path) as connection:
        return connection.execute(sql, list(parameters)).df()
