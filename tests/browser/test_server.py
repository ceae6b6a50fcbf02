"""What the server listens on, whether every script has letters and no boxes, and the notice by keyboard."""

import io
import re
import tomllib
from urllib.parse import urlparse

import psutil
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page, expect

from engine.vocabulary import Language
from tests.app import seed
from tests.browser.serving import ROOT

UNASSIGNED = "\u0378"
"""No font has a letter for it: what is drawn is the box that stands for a missing one."""

STAGE = """([text, lang]) => {
    const stage = document.createElement("div");
    stage.innerHTML = '<span class="x-text" style="font-size: 32px; line-height: 1.5"></span>';
    stage.firstChild.textContent = text;
    stage.firstChild.lang = lang;
    stage.id = "stage";
    stage.style = "position: fixed; inset: 0 auto auto 0; width: 90px; height: 60px; z-index: 9999999";
    stage.style.background = "white";
    stage.style.color = "black";
    document.getElementById("stage")?.remove();
    document.body.append(stage);
}"""

ORDER = """element => {
    const node = document.createTreeWalker(element, NodeFilter.SHOW_TEXT).nextNode();
    const range = document.createRange();
    return [0, 5].map(at => {
        range.setStart(node, at);
        range.setEnd(node, at + 1);
        return range.getBoundingClientRect().x;
    });
}"""
"""Where the first and the sixth letter of an element stand."""


def drawn(page: Page, text: str, lang: Language) -> Image.Image:
    """A text in black on white, as the app writes texts of a language."""
    page.evaluate(STAGE, [text, lang.value])
    page.evaluate("document.fonts.ready")
    return Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("L")


def differ(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).point(lambda value: 255 * (value > 64)).getbbox() is not None


def test_every_script_has_letters_and_no_boxes(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    for lang, sentence in seed.SENTENCES.items():
        box, nothing = drawn(page, UNASSIGNED, lang), drawn(page, "", lang)
        assert differ(box, nothing)
        letters = [drawn(page, letter, lang) for letter in dict.fromkeys(re.findall(r"\w", sentence)[:4])]
        assert len(letters) > 1
        for letter in letters:
            assert differ(letter, nothing), lang
            assert differ(letter, box), lang
        assert all(differ(letters[0], letter) for letter in letters[1:]), lang


@pytest.mark.parametrize(("lang", "is_reversed"), [("ar", True), ("de", False)])
def test_arabic_runs_from_right_to_left(page: Page, address: str, lang: str, is_reversed: bool) -> None:
    page.goto(f"{address}/heatmap?row=x-ft-de&eval={lang}")
    veil = page.locator("article details").first
    veil.locator("summary").press("Enter")
    first, sixth = veil.locator("> .x-text").evaluate(ORDER)
    assert (first > sixth) is is_reversed


def test_the_notice_yields_to_the_keyboard_and_stays_away(page: Page, address: str) -> None:
    page.goto(f"{address}/heatmap?row=x-ft-de&eval=ar")
    notice = page.get_by_role("region", name="Content notice")
    expect(notice).to_be_visible()
    understood = page.get_by_role("button", name="Understood")
    expect(page.locator("article")).to_have_count(10)
    for _ in range(40):
        page.keyboard.press("Tab")
        if understood.evaluate("element => element === document.activeElement"):
            break
    expect(understood).to_be_focused()
    page.keyboard.press("Enter")
    expect(notice).to_have_count(0)
    page.locator("article summary").first.click()
    page.get_by_role("link", name="Sweep").click()
    expect(page.get_by_role("heading", name="Plan", exact=True)).to_be_visible()
    expect(notice).to_have_count(0)
    page.goto(f"{address}/sweep")
    expect(notice).to_be_visible()  # another visit, by a copied address


def test_only_this_machine_is_listened_to(address: str) -> None:
    port = urlparse(address).port
    heard = [
        c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr.port == port and c.status == psutil.CONN_LISTEN
    ]
    assert heard == ["127.0.0.1"]


def test_nothing_is_taken_in_and_nothing_told() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["maxUploadSize"] == 0
    assert config["browser"]["gatherUsageStats"] is False
