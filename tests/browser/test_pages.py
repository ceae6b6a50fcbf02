"""Every page at every width, and a sweep that is watched while it goes on and after it was killed."""

import json
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from engine.sweep import progress
from tests.app import seed
from tests.browser import pages
from tests.browser.serving import served

EVERY_DAY = {"heatmap", "completions", "live"}
"""The pages with the widest content; the others are looked at in full tests."""

VIEWS = [
    pytest.param(view, marks=[] if view.partition("?")[0] in EVERY_DAY else [pytest.mark.full])
    for view in (
        *(f"{path}?row=x-ft-de&eval=en" for path in pages.paths()),
        "?source=published",
        "heatmap?matrices=splits",
    )
]

FITS = """() => {
    const main = document.querySelector('[data-testid="stMain"]');
    return main.scrollWidth <= main.clientWidth && document.documentElement.scrollWidth <= window.innerWidth;
}"""
"""Whether nothing reaches beyond the page; charts are drawn anew after it has changed its width."""


@pytest.mark.parametrize("view", VIEWS)
def test_no_page_scrolls_sideways(page: Page, address: str, view: str) -> None:
    page.goto(f"{address}/{view}")
    for width in (400, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        page.wait_for_function(FITS)


def test_a_sweep_is_watched_without_a_click(page: Page, tmp_path: Path) -> None:
    db = tmp_path / "results.duckdb"
    seed.planned(db, prompts=1)
    with served(db) as address, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as sweep:

        def tell(done: int) -> None:
            now = datetime.now(UTC).isoformat()
            news = progress.SweepStatus("running", "training", done, 20, sweep.pid, now, now, "rows", platform.node())
            progress.progress_file(db).write_text(json.dumps(asdict(news)))

        tell(3)
        page.goto(f"{address}/sweep")
        expect(page.get_by_text("A sweep is training, 3 of 20 rows.")).to_be_visible()
        tell(7)
        expect(page.get_by_text("A sweep is training, 7 of 20 rows.")).to_be_visible()
        sweep.kill()
        sweep.wait()
        expect(
            page.get_by_text(f"Interrupted while training, 7 of 20 rows: process {sweep.pid} is gone")
        ).to_be_visible()
        expect(page.get_by_role("progressbar")).to_have_count(0)
