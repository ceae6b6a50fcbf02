"""The app really served on a seeded results file, and a page of a real Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app import seed
from tests.browser.serving import SLOW, chromium, served, trouble

HERE = Path(__file__).parent


class NoChromium(pytest.Item):
    """Stands for all browser tests where no Chromium starts."""

    def runtest(self) -> None:
        pytest.fail(str(trouble()), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return HERE, None, "a Chromium for the browser tests"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a Chromium the browser tests are one failure, the first of all, that says what to type."""
    ours = [item for item in items if HERE in item.path.parents]
    if ours and trouble():
        config.hook.pytest_deselected(items=ours)
        others = [item for item in items if item not in ours]
        items[:] = [NoChromium.from_parent(ours[0].session, name="tests/browser, all of them"), *others]


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
