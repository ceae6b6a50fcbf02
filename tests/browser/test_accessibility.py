"""axe-core on every page, in light and in dark: nothing serious or critical."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser import pages


def violations(page: Page) -> list[str]:
    rules = [rule for rule in Axe().run(page).response["violations"] if rule["impact"] in ("serious", "critical")]
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary']}: {node['html'][:300]}"
        for rule in rules
        for node in rule["nodes"]
    ]


@pytest.mark.full
@pytest.mark.parametrize("path", pages.paths())
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious(page: Page, address: str, path: str, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/{path}?row=x-ft-de&eval=ar")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    assert violations(page) == []


@pytest.mark.full
def test_what_is_serious_is_found(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    page.evaluate("document.querySelector('h1').append(document.createElement('button'))")
    assert [found.split(":")[0] for found in violations(page)] == ["button-name"]
