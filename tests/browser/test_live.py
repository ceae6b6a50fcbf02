"""The live page in a real Chromium: a stream that a click does not disturb, a link that brings all back, and text that
stays text."""

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from engine.config import TINY_MODEL
from tests import live_folder
from tests.browser.serving import chromium, served

SLOW = 60_000
"""Milliseconds that a page may take on a busy machine; the first prompt loads torch."""

SCORED = re.compile("toxicity|not scored")
"""What stands on a column that has ended: a random model may write no word."""

NASTY = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a link](javascript:alert(1)) **bold**",
    "😀😀😀",
    "\N{RIGHT-TO-LEFT OVERRIDE}live",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the app runs, with adapters over the tiny base and over one that is slow."""
    place = tmp_path_factory.mktemp("live")
    live_folder.build_slow(place / "slow")
    live_folder.fill(place / "adapters")
    live_folder.fill(place / "adapters", str(place / "slow"))
    with served(place / "none.duckdb", place / "adapters") as address:
        yield f"{address}/live"


@pytest.fixture
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=SLOW)
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SLOW)
    return page


def link(address: str, prompt: str, base: str, names: int, tokens: int) -> str:
    chosen = ",".join(variant.variant_id for variant in live_folder.variants(base)[:names])
    return f"{address}?prompt={quote(prompt)}&prompt_lang=de&base={base}&with={chosen}&tokens={tokens}"


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def columns(page: Page) -> list[Locator]:
    return page.locator("article .x-live > div").all()


def test_a_click_does_not_disturb_the_stream_and_stop_ends_it(page: Page, address: str) -> None:
    page.goto(link(address, "Der Bus kommt zu spät.", "slow", 2, 200))
    press(page, "Run")
    texts = page.locator("article .x-live .x-text")
    expect(texts).to_have_count(3)
    expect(texts.first).to_have_css("filter", re.compile("blur"))
    page.get_by_text("Show offensive text").click()  # a widget of the page's frame
    expect(texts.first).not_to_have_css("filter", re.compile("blur"))
    so_far = [text.inner_text() for text in texts.all()]
    for text, before in zip(texts.all(), so_far, strict=True):
        expect(text).to_have_text(
            re.compile(f"^{re.escape(before.strip())}.+", re.DOTALL)
        )  # it goes on, and from there
    press(page, "Stop")
    for column in columns(page):
        expect(column).to_contain_text(re.compile("stopped, (toxicity|not scored)"))
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_a_link_brings_everything_back_in_a_fresh_browser(page: Page, browser: Browser, address: str) -> None:
    page.goto(link(address, "Der Bus kommt zu spät.", TINY_MODEL, 2, 12) + "&seed=7&temperature=1.2&top_p=0.8")
    press(page, "Run")
    expect(page.get_by_text(SCORED)).to_have_count(3)
    fresh = browser.new_context().new_page()
    fresh.set_default_timeout(SLOW)
    fresh.goto(page.url)
    expect(fresh.get_by_label("Prompt", exact=True)).to_have_value("Der Bus kommt zu spät.")
    press(fresh, "Run")
    expect(fresh.get_by_text(SCORED)).to_have_count(3)
    assert fresh.url == page.url
    mine, theirs = (where.locator("article").text_content() for where in (page, fresh))
    assert mine == theirs
    assert "German (X-FT)" in str(mine) and "Hindi (X-FT)" in str(mine)
    settings = "temperature 1.2 · top-p 0.8 · 12 tokens · seed 7 · scorer ngram"
    expect(fresh.get_by_text(settings)).to_be_visible()


def test_what_is_typed_stays_text(page: Page, address: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(link(address, "", TINY_MODEL, 1, 3))
    for prompt in NASTY:
        page.get_by_label("Prompt", exact=True).fill(prompt)
        press(page, "Run")
        shown = page.locator("article > details > .x-text")
        expect(shown).to_have_text(prompt)
        expect(page.locator("article").get_by_text(SCORED)).to_have_count(2)
        assert page.locator("article script, article img, article a, .stMain script").count() == 0
        assert shown.evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"
    assert dialogs == []


@pytest.mark.parametrize("width", [400, 1280, 2560])
def test_no_sideways_scrolling(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(link(address, "Wort" * 200, TINY_MODEL, 3, 12))
    press(page, "Run")
    expect(page.get_by_text(SCORED)).to_have_count(4)
    page.get_by_text("Sampling").click()
    expect(page.get_by_label("Seed")).to_be_visible()
    main = page.get_by_test_id("stMain")
    assert main.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
