"""A reader's way through the app in a real Chromium: from the overview to a matrix, a cell, its completions, a revealed
text, and back to all of it after a reload."""

import re

from playwright.sync_api import Locator, Page, expect

from engine.vocabulary import Language
from tests.app import seed


def cell(page: Page, name: str) -> Locator:
    """A cell of the matrix, by what a screen reader says."""
    return page.locator(f'[aria-label^="{name}: "]').first


FRAMED = """name => {
    const box = element => element.getBoundingClientRect();
    const cell = document.querySelector(`[aria-label^="${name}: "]`);
    return cell && [...document.querySelectorAll('path[stroke-width="2.2"]')].some(
        frame => Math.abs(box(frame).x - box(cell).x) < 4 && Math.abs(box(frame).y - box(cell).y) < 4);
}"""
"""Whether the matrix on the page is the one that was drawn with this cell chosen."""


def click(page: Page, name: str) -> None:
    """A click on a cell, and its frame: the matrix is drawn anew then, and one drawn before would miss a click."""
    cell(page, name).click(position={"x": 8, "y": 8})  # beside its number, which lies on top
    page.wait_for_function(FRAMED, arg=name)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def test_from_the_matrix_to_what_was_written(page: Page, address: str) -> None:
    page.goto(f"{address}/heatmap")
    expect(cell(page, "German (X-FT) in Arabic")).to_be_visible()
    expect(cell(page, "30 % of each language (P-FT) in German")).to_have_attribute("aria-label", re.compile("missing"))

    story = page.locator(".x-lead")
    for name in ("Arabic (X-FT) in English", "German (X-FT) in Arabic", "Arabic (X-FT) in English"):
        click(page, name)
        expect(story).to_contain_text(name.replace(" in ", ", evaluated in "))
    click(page, "German (X-FT) in Arabic")
    expect(story).to_contain_text("German (X-FT), evaluated in Arabic")

    articles = page.locator("article")
    expect(articles).to_have_count(10)
    left, right = articles.first.locator(".x-pair > div").all()
    expect(left).to_contain_text("Zero-shot (ZS)")
    expect(right).to_contain_text("German (X-FT)")
    boxes = [side.bounding_box() for side in (left, right)]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]

    words = right.locator("details > .x-text")
    expect(words).to_be_hidden()
    expect(right.locator(".x-blur")).to_have_css("filter", re.compile("blur"))
    right.locator("summary").click()
    expect(words).to_be_visible()
    expect(words).to_have_attribute("dir", "rtl")
    expect(words).to_have_css("direction", "rtl")
    expect(words).to_contain_text(seed.SENTENCES[Language.AR])
    expect(left.locator("details > .x-text")).to_be_hidden()

    expect(page).to_have_url(re.compile(r"row=x-ft-de&eval=ar"))
    page.reload()
    expect(story).to_contain_text("German (X-FT), evaluated in Arabic")
    expect(page.locator("article")).to_have_count(10)


def test_from_the_overview_to_a_reload_that_keeps_everything(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name="Open its matrix").click()
    expect(page).to_have_url(re.compile(r"/heatmap\?.*order=mean"))
    expect(cell(page, "German (X-FT) in Arabic")).to_be_visible()
    choose(page, "Split", "neutral-test")
    choose(page, "Show", "Score")
    click(page, "German (X-FT) in Arabic")
    page.get_by_text("Largest increase").click()
    expect(page).to_have_url(re.compile("first=worsened"))
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    seen = page.locator("article").all_inner_texts()
    assert len(seen) == 10

    page.reload()
    expect(page.locator("article")).to_have_count(10)
    expect(page.get_by_role("heading", name="Heatmap", exact=True)).to_be_visible()
    expect(page.locator(".x-lead")).to_contain_text("German (X-FT), evaluated in Arabic on neutral-test.")
    for label, value in (("Split", "neutral-test"), ("Show", "Score"), ("Order", "By mean, best first")):
        expect(page.get_by_role("combobox", name=label)).to_have_value(value)
    assert page.locator("article").all_inner_texts() == seen


def test_a_click_on_one_of_several_matrices_opens_it(page: Page, address: str) -> None:
    page.goto(f"{address}/heatmap?matrices=splits")
    expect(page.locator('[aria-label^="German (X-FT) in Arabic: "]')).to_have_count(3)
    page.locator('[aria-label^="German (X-FT) in Arabic: "]').nth(2).click(position={"x": 4, "y": 4})
    expect(page.locator(".x-lead")).to_contain_text("German (X-FT), evaluated in Arabic on neutral-test.")
    expect(page.locator('[aria-label^="German (X-FT) in Arabic: "]')).to_have_count(1)


def choose(page: Page, label: str, option: str) -> None:
    """An option of a select box, and the page that is drawn with it."""
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()
    expect(page.get_by_role("combobox", name=label)).to_have_value(option)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def test_what_is_shown_can_be_taken_along(page: Page, address: str) -> None:
    page.goto(f"{address}/strategies")
    menus = page.get_by_role("button", name="Export")
    expect(menus).to_have_count(6)
    files = (
        (0, "PNG", b"\x89PNG"),
        (0, "SVG", b"<svg"),
        (1, "CSV", b"# Toxicity"),
        (1, "LaTeX", b"%"),
        (1, "Markdown", b"|"),
    )
    for menu, label, beginning in files:
        menus.nth(menu).click()
        with page.expect_download() as download:
            page.get_by_role("button", name=label, exact=True).click()
        assert download.value.path().read_bytes().startswith(beginning)
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name=label, exact=True)).to_have_count(0)


def test_a_link_of_the_index_and_the_way_back(page: Page, address: str) -> None:
    page.goto(f"{address}/paper?beside=bloom-7b1")
    page.get_by_role("link", name="Table 21:").click()
    # By its text: the page that is left has captions too, two of them.
    expect(page.get_by_text("mt5-large on toxic-test. Published: table 21")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Cell-by-cell comparison")).to_be_visible()
    expect(page).to_have_url(re.compile(r"beside=bloom-7b1"))
