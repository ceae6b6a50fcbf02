"""The app in every state of its results file: it says what is the matter, and nothing breaks."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from engine import store
from tests.app.conftest import MAIN, Open
from tests.app.reading import marks, page_html

PAGES = ["overview", "heatmap"]


def test_without_a_file_the_published_figures_are_shown(open_heatmap: Open, tmp_path: Path) -> None:
    app = open_heatmap(tmp_path / "none.duckdb")
    assert not app.exception
    assert app.selectbox(key="source").options == ["The paper's published results"]
    assert "No runs yet" in page_html(app)
    assert len(marks(app)) == 10 * 9 + 10 + 9 + 1  # ZS and X-FT, and the means of rows, columns and all
    assert not (tmp_path / "none.duckdb").exists()


@pytest.mark.parametrize("page", PAGES)
def test_without_a_file_every_page_shows_the_published_figures(open_app: Open, tmp_path: Path, page: str) -> None:
    app = open_app(tmp_path / "none.duckdb", page)
    assert not app.exception
    assert "prints no intervals" in page_html(app)


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_file_is_like_none(open_app: Open, empty: Path, page: str) -> None:
    app = open_app(empty, page)
    assert not app.exception
    assert app.get("vega_lite_chart")
    assert app.session_state["source"] == "published"
    assert "No runs yet" in page_html(app)


@pytest.mark.parametrize("page", PAGES)
def test_a_run_that_has_nothing_yet_says_so(open_app: Open, planned: Path, page: str) -> None:
    app = open_app(planned, page)
    assert not app.exception
    assert "0 of 24 settings finished" in page_html(app)
    assert [info.value[:29] for info in app.info] == ["This run has no finished sett"]
    assert not app.get("vega_lite_chart")


@pytest.mark.parametrize("page", PAGES)
def test_a_partly_done_run_counts_what_is_missing(open_app: Open, full: Path, page: str) -> None:
    app = open_app(full, page)
    assert not app.exception
    assert "23 of 24 settings finished, 1 failed." in page_html(app)


@pytest.mark.parametrize("page", PAGES)
def test_a_locked_file_can_be_tried_again(open_app: Open, held: Path, page: str) -> None:
    address = {"source": f"run:{'0' * 16}", "row": "zs"}
    app = open_app(held, page, **address)
    assert not app.exception
    assert "locked by another process" in app.warning[0].value
    assert [button.label for button in app.button] == ["Try again"]
    assert app.query_params == address  # so that trying again shows what was asked for


def test_trying_again_shows_the_results(open_heatmap: Open, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as locked:
        locked.setattr(store, "sources", _raise_locked)
        app = open_heatmap(full, split="toxic-train")
    app.button[0].click().run()
    assert not app.warning
    assert app.selectbox(key="split").value == "toxic-train"


def _raise_locked(path: Path) -> None:
    raise store.LockedError(f"{path}: locked by another process")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("CREATE TABLE other (i INTEGER)", "not a results file"),
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


def test_a_notice_stands_above_every_page_until_it_is_acknowledged(open_app: Open, full: Path) -> None:
    app = open_app(full, "heatmap", row="x-ft-de", eval="ar")
    assert "This app shows offensive text" in page_html(app)
    app.toggle(key="reveal").set_value(True).run()
    assert "This app shows offensive text" in page_html(app)
    app.button(key="understood").click().run()
    assert "This app shows offensive text" not in page_html(app)
    app.selectbox(key="eval").select("de").run()
    assert "This app shows offensive text" not in page_html(app)
    app.switch_page("app_pages/sweep.py").run()
    assert "This app shows offensive text" not in page_html(app)


def test_who_need_not_sign_in_reads_nothing_of_it(open_app: Open, full: Path) -> None:
    app = open_app(full)
    assert not {"Sign in", "Sign out"} & {button.label for button in app.button}


def test_who_must_sign_in_sees_nothing_before(open_app: Open, full: Path) -> None:
    app = open_app(full, user={"is_logged_in": False}, row="x-ft-de", eval="ar")
    assert not app.exception
    assert [button.label for button in app.button] == ["Sign in"]
    assert not app.selectbox and not app.get("vega_lite_chart")
    assert "<article" not in page_html(app)
    assert app.query_params == {"row": "x-ft-de", "eval": "ar"}


def test_who_has_signed_in_is_named_and_can_sign_out(open_app: Open, full: Path) -> None:
    app = open_app(full, "heatmap", user={"is_logged_in": True, "name": "<b>A</b> *B*"})
    assert "Signed in as &lt;b&gt;A&lt;/b&gt; *B*" in page_html(app)
    assert len(marks(app)) > 1
    (out,) = [button for button in app.sidebar.button if button.label == "Sign out"]
    out.click().run()
    assert app.user == {"is_logged_in": False}


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
