"""The app's pages on results of the paper's size, and of ten times as many completions: what the server takes.

Streamlit's own test driver runs the app in this process, from the request of a page to the last element of it. A
browser's drawing, and the first import of the libraries, are not in it.
"""

import logging
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bench.filled import BenchFile
from bench.harness import Section, median_range, say, table
from engine.vocabulary import NINE

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

APP = Path(__file__).resolve().parent.parent / "app"
REPEATS = 5

FIRST, LATER, STORY, SEARCH = "a first visit", "a later visit", "a cell's story", "a search"
TARGETS = {
    1: {FIRST: 1.5, LATER: 0.3, STORY: 0.5, SEARCH: 0.5},
    10: {FIRST: 1.0, LATER: 1.0, STORY: 1.0, SEARCH: 2.0},
}
"""Samples a prompt → seconds that one of each may take."""

SOUGHT = ("der aufzug", "ЭТОТ СУП", "هذا", "好笑", "%_'")
"""One of every kind of search: in scripts with case and without, and what stands nowhere."""


@dataclass(frozen=True)
class Found:
    """Of one size: seconds of every repeat, by what was done (one of the four, '' for others) and where."""

    completions: int
    seconds: dict[tuple[str, str], list[float]]
    broken: list[str]


def bench() -> Section:
    section = Section(
        "pages",
        "The pages of the app",
        "One run of the paper's size: 504 settings, 252,000 completions, two scorers, 23,688 cells; and the same with "
        "ten samples a prompt. Seconds of the server for a page in a new session, without the browser: first visits "
        "with nothing cached, later ones with the cache of those before. Each story and each search is a new one. "
        "Each size in a process of its own; no baseline.",
    )
    found = []
    for samples, wanted in TARGETS.items():
        found.append(_alone(samples))
        size = f"{found[-1].completions:,}"
        section.gate(f"{size}: no page breaks", not found[-1].broken, ", ".join(found[-1].broken) or "none did")
        for what, limit in wanted.items():
            worst = max((s for (kind, _), s in found[-1].seconds.items() if kind == what), key=median)
            section.gate(f"{size}: {what} takes less than {limit} s", median(worst) < limit, f"{median_range(worst)} s")
    header = ("seconds", "", *(f"{f.completions:,} completions" for f in found))
    rows = [
        (where, what, *(median_range(f.seconds[what, where], 2) for f in found)) for what, where in found[0].seconds
    ]
    section.body.append(table(header, rows))
    return section


def _alone(samples: int) -> Found:
    with (
        tempfile.TemporaryDirectory() as place,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
    ):
        return process.submit(_measure, Path(place) / "results.duckdb", samples).result()


def _measure(path: Path, samples: int) -> Found:
    filled = BenchFile(path, 0, samples)
    filled.fill()
    filled.summarise()
    return measure(path, 252_000 * samples)


def measure(path: Path, completions: int) -> Found:
    """Times of the app on a filled file."""
    import streamlit as st
    from streamlit.components.v2 import manifest_scanner

    logging.disable(logging.WARNING)  # that a session has no browser
    # A server looks through the installed packages for widgets once, at its start; the test driver at every run.
    manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
    sys.argv = ["main.py", "--db", str(path)]
    found = Found(completions, {}, [])
    pages = sorted(file.name for file in (APP / "app_pages").glob("*.py") if file.name != "__init__.py")
    for page in pages:
        _open(page)  # imports
    for page in pages:
        for _ in range(REPEATS):
            st.cache_data.clear()
            st.cache_resource.clear()
            _time(found, FIRST, page, lambda page=page: _open(page))  # type: ignore[misc]
        for _ in range(REPEATS):
            _time(found, LATER, page, lambda page=page: _open(page))  # type: ignore[misc]
    heatmap = _open("heatmap.py")
    for _, (lang, train_lang) in zip(range(REPEATS), product(NINE, NINE), strict=False):
        heatmap.session_state["row"], heatmap.session_state["eval"] = f"x-ft-{train_lang}", lang.value
        _time(found, STORY, "heatmap.py", heatmap.run)
    reader = _open("completions.py")
    for text in SOUGHT:
        reader.text_input(key="text").set_value(text)
        _time(found, SEARCH, "completions.py", reader.run)
    reader.text_input(key="text").set_value("").run()
    for number in range(2, 2 + REPEATS):
        reader.pagination[0].set_value(number)
        _time(found, "the next page", "completions.py", reader.run)
    for order in ("improved", "most-toxic"):
        reader.selectbox(key="order").select(order)
        _time(found, f"all, {order} first", "completions.py", reader.run)
    say(f"pages: {completions:,} completions, {found}")
    return found


def _open(page: str) -> "AppTest":
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(APP / "main.py"), default_timeout=600)
    return app.switch_page(f"app_pages/{page}").run()


def _time(found: Found, what: str, where: str, run: Callable[[], "AppTest"]) -> None:
    began = perf_counter()
    app = run()
    found.seconds.setdefault((what, where.removesuffix(".py")), []).append(perf_counter() - began)
    if app.exception:
        found.broken.append(f"{where}: {app.exception[0].value}")
