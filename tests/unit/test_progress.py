"""The small file by which a sweep is watched: what is written is what is read, at every stage and end."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from engine.sweep import progress


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "results.duckdb"


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_news_come_with_every_step(db: Path) -> None:
    assert progress.read(db) is None
    with progress.Reporter(db, quiet()) as reporter:
        first = progress.read(db)
        assert first is not None
        assert (first.state, first.stage, first.pid, first.is_gone) == ("running", "", os.getpid(), False)
        with reporter.counting("training", 20, "rows") as counter:
            counter.advance(5)
            counter.skip(2)
            news = progress.read(db)
            assert news is not None
            assert (news.stage, news.done, news.total, news.unit) == ("training", 7, 20, "rows")


@pytest.mark.parametrize(
    ("error", "state"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ValueError(), "failed")]
)
def test_the_end_is_told_and_how_far_it_had_come(db: Path, error: BaseException | None, state: str) -> None:
    try:
        with progress.Reporter(db, quiet()) as reporter, reporter.counting("generating", 9, "completions") as counter:
            counter.advance(4)
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    news = progress.read(db)
    assert news is not None
    assert (news.state, news.stage, news.done, news.total) == (state, "generating", 4, 9)
    assert not news.is_gone


@pytest.mark.parametrize("written", ["", "{", "[]", '{"state": "running"}', '{"unheard": 1}'])
def test_what_cannot_be_read_is_no_news(db: Path, written: str) -> None:
    progress.progress_file(db).write_text(written)
    assert progress.read(db) is None


def test_news_of_an_older_version_have_no_unit_and_no_host(db: Path) -> None:
    progress.progress_file(db).write_text(
        '{"state": "running", "stage": "training", "done": 1, "total": 2, "pid": 1, '
        '"started_at": "2026-11-25T11:00:00+00:00", "updated_at": "2026-11-25T11:00:00+00:00"}'
    )
    news = progress.read(db)
    assert news is not None
    assert (news.unit, news.host, news.is_gone) == ("", "", False)
