"""The app while a real sweep writes its results file: pages open, nobody is in the other's way."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from engine.sweep import progress
from tests.app.conftest import MAIN, Open
from tests.app.reading import page_html

COMMAND = [sys.executable, str(MAIN.parents[1] / "run_sweep.py"), "smoke", "--eval-langs", "ar", "de", "en"]


@pytest.mark.full
def test_pages_open_while_a_sweep_writes(open_app: Open, tmp_path: Path) -> None:
    db, adapters = tmp_path / "results.duckdb", tmp_path / "adapters"
    places = ["--db", str(db), "--adapters", str(adapters)]
    seen: dict[tuple[str, int], str] = {}
    with subprocess.Popen([*COMMAND, *places], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        while is_running(sweep):
            news = progress.read(db)
            if news is None or (news.stage, news.done) in seen:
                continue
            for page in ("", "sweep"):
                app = open_app(db, page, adapters)
                assert not app.exception
                assert not app.error
                assert not app.warning  # the file is never held for as long as a reader waits
                assert app.title
            seen[news.stage, news.done] = page_html(app)
        assert sweep.stdout is not None
        assert sweep.returncode == 0, sweep.stdout.read()
    assert {stage for stage, _ in seen} >= {"training", "generating"}
    assert any("A sweep is " in said for said in seen.values())

    app = open_app(db, "sweep", adapters)
    assert "The last sweep finished" in page_html(app)
    assert "<td>14</td><td>42</td><td>0</td><td>0</td><td>42</td><td>0</td>" in page_html(app)
    assert set(app.dataframe[0].value["State"]) == {"finished"}


def is_running(sweep: subprocess.Popen[str]) -> bool:
    """Whether it still is, after a moment in which it may get on."""
    with suppress(subprocess.TimeoutExpired):
        sweep.wait(0.2)
    return sweep.poll() is None
