"""The app really served on a seeded results file, and a page of a real Chromium."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.app import seed
from tests.browser.serving import SLOW, chromium, served


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the app runs, on a seeded results file and adapters folder."""
    path = tmp_path_factory.mktemp("browser") / "results.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.trained(path.parent / "adapters")
    with served(path, path.parent / "adapters") as address:
        yield address


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(SLOW)
        expect.set_options(timeout=SLOW)
        yield page
