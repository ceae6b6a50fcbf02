"""Results files in every state, and the app opened on one of them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from engine import store
from tests.app import seed

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
Open = Callable[..., AppTest]
HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in three languages, finished but for one setting that failed."""
    path = tmp_path_factory.mktemp("full") / "results.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.failed(path)
    return path


@pytest.fixture(scope="session")
def degenerate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose X-FT on German, the best by its numbers, copies its prompts in English."""
    path = tmp_path_factory.mktemp("degenerate") / "results.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.degenerate(path)
    return path


@pytest.fixture(scope="session")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its averages, judged by two scorers."""
    path = tmp_path_factory.mktemp("averaged") / "results.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.judged_twice(path)
    seed.averaged(path)
    return path


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A run of which nothing is done yet."""
    path = tmp_path / "planned.duckdb"
    seed.planned(path, prompts=2)
    return path


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A results file without a run."""
    path = tmp_path / "empty.duckdb"
    with store.writing(path):
        pass
    return path


@pytest.fixture(scope="session", autouse=True)
def packages_read_once() -> Iterator[None]:
    """Streamlit reads the metadata of every installed package at each run of an AppTest, a third of the test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Runs the app once on a results file (and a page of it, and an adapters folder, as a user that has signed in),
    with these words in its address and nothing in its cache."""
    st.cache_data.clear()

    def opened(
        path: Path,
        page: str = "",
        adapters: Path = Path("none"),
        /,
        user: dict[str, Any] | None = None,
        **address: str,
    ) -> AppTest:
        monkeypatch.setattr("sys.argv", ["main.py", "--db", str(path), "--adapters", str(adapters)])
        app = AppTest.from_file(str(MAIN), default_timeout=20)
        app.query_params.update(address)
        app.user = user or app.user
        return app.switch_page(f"app_pages/{page}.py").run() if page else app.run()

    return opened


@pytest.fixture
def open_heatmap(open_app: Open) -> Open:
    """The same, on the heatmap."""

    return lambda path, **address: open_app(path, "heatmap", **address)


@pytest.fixture
def held(full: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A results file that another process holds, longer than we wait for it."""
    monkeypatch.setattr(store.file, "LOCK_PATIENCE", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(full)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield full
        process.communicate()
