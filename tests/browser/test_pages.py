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

from engine import progress
from tests.app import seed
from tests.browser import pages
from tests.browser.serving import served


@pytest.mark.parametrize("path", pages.paths())
def test_no_page_scrolls_sideways(page: Page, address: str, path: str) -> None:
    page.goto(f"{address}/{path}?row=x-ft-de&eval=en")
    for width in (400, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        main = page.get_by_test_id("stMain")
        assert main.evaluate("element => element.scrollWidth <= element.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_sweep_is_watched_without_a_click(page: Page, tmp_path: Path) -> None:
    db = tmp_path / "results.duckdb"
    seed.planned(db, prompts=1)
    with served(db) as address, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as sweep:

        def tell(done: int) -> None:
            now = datetime.now(UTC).isoformat()
            news = progress.News("running", "training", done, 20, sweep.pid, now, now, "rows", platform.node())
            progress.progress_file(db).write_text(json.dumps(asdict(news)))

        tell(3)
        page.goto(f"{address}/sweep")
        expect(page.get_by_text("A sweep is training, 3 of 20 rows.")).to_be_visible()
        tell(7)
        expect(page.get_by_text("A sweep is training, 7 of 20 rows.")).to_be_visible()
        sweep.kill()
        sweep.wait()
        expect(
            page.get_by_text(f"Interrupted while training, 7 of 20 rows: process {sweep.pid} is no more")
        ).to_be_visible()
        expect(page.get_by_role("progressbar")).to_have_count(0)
