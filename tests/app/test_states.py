"""The app in every state of its results file: it says what is the matter, and nothing breaks."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from engine import store
from tests.app.conftest import MAIN, Open
from tests.app.reading import marks, page_html


def test_without_a_file_the_published_figures_are_shown(open_app: Open, tmp_path: Path) -> None:
    app = open_app(tmp_path / "none.duckdb")
    assert not app.exception
    assert app.selectbox(key="source").options == ["The paper's published figures"]
    assert "No runs yet" in page_html(app)
    assert len(marks(app)) == 9 + 81 + 9 + 9 + 1  # ZS, X-FT, and the means of rows, columns and all
    assert not (tmp_path / "none.duckdb").exists()


def test_an_empty_file_is_like_none(open_app: Open, empty: Path) -> None:
    app = open_app(empty)
    assert not app.exception
    assert app.session_state["source"] == "published"
    assert "No runs yet" in page_html(app)


def test_a_run_that_has_nothing_yet_says_so(open_app: Open, planned: Path) -> None:
    app = open_app(planned)
    assert not app.exception
    assert "0 of 24 settings are finished" in page_html(app)
    assert [info.value[:29] for info in app.info] == ["Nothing of this run is finish"]
    assert not app.get("vega_lite_chart")


def test_a_partly_done_run_counts_what_is_missing(open_app: Open, full: Path) -> None:
    app = open_app(full)
    assert not app.exception
    assert "23 of 24 settings are finished, 1 failed." in page_html(app)


def test_a_locked_file_can_be_tried_again(open_app: Open, held: Path) -> None:
    address = {"source": f"run:{'0' * 16}", "row": "zs"}
    app = open_app(held, **address)
    assert not app.exception
    assert "another process holds it" in app.warning[0].value
    assert [button.label for button in app.button] == ["Try again"]
    assert app.query_params == address  # so that trying again shows what was asked for


def test_trying_again_shows_the_results(open_app: Open, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as locked:
        locked.setattr(store, "sources", _raise_locked)
        app = open_app(full, split="toxic-train")
    app.button[0].click().run()
    assert not app.warning
    assert app.selectbox(key="split").value == "toxic-train"


def _raise_locked(path: Path) -> None:
    raise store.LockedError(f"{path}: another process holds it")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("CREATE TABLE other (i INTEGER)", "not one of ours"),
        ("CREATE TABLE migrations AS SELECT i FROM range(99) t(i)", "newer version"),
        ("CREATE TABLE migrations AS SELECT i FROM range(1) t(i)", "older version"),
    ],
)
def test_a_file_of_another_make_is_named(open_app: Open, tmp_path: Path, sql: str, says: str) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)
    app = open_app(path)
    assert not app.exception
    assert says in app.error[0].value


def test_a_file_that_is_no_database_is_named(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "text.duckdb"
    path.write_text("no database")
    app = open_app(path)
    assert not app.exception
    assert "cannot be opened" in app.error[0].value


def test_opening_the_app_imports_nothing_heavy(full: Path) -> None:
    heavy = {"torch", "transformers", "peft", "vllm", "sklearn", "ray"}
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['main.py', '--db', {str(full)!r}]\n"
        f"app = AppTest.from_file({str(MAIN)!r}, default_timeout=20).run()\n"
        "assert app.get('vega_lite_chart') and not app.exception\n"
        f"print({heavy!r} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr[-2000:]
