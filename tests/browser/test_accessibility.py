"""axe-core on every page, in light and in dark: nothing serious or critical, but for what Streamlit itself writes."""

from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser import pages
from tests.browser.serving import ROOT

AXE = ROOT / "tests" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
STREAMLITS_OWN: dict[tuple[str, str], str] = {}
"""(rule, CSS selector of the element): why it is not ours to mend."""

RUN = """async excused => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations.filter(rule => ["serious", "critical"].includes(rule.impact)).flatMap(rule =>
        rule.nodes.filter(node => !excused.some(
            ([name, selector]) => name === rule.id && document.querySelector(node.target[0])?.matches(selector)))
        .map(node => `${rule.id}: ${node.target.join(" ")}: ${node.failureSummary}: ${node.html.slice(0, 300)}`));
}"""


def violations(page: Page) -> Any:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return page.evaluate(RUN, list(STREAMLITS_OWN))


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
