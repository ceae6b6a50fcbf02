"""Pictures of every page: `python -m tests.browser.gallery`, or `make gallery`.

All of them (light and dark, 400, 1280 and 2560 pixels wide) go to .gallery, for whoever wants to look; those of 1280
pixels also to docs/gallery, small, with docs/gallery.md that shows them. Texts stay blurred.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from engine.config import ADAPTERS, RESULTS
from tests.browser import pages
from tests.browser.serving import ROOT, SLOW, chromium, served

ALL, CHOSEN = ROOT / ".gallery", ROOT / "docs" / "gallery"
WIDTHS = (400, 1280, 2560)
CHOSEN_WIDTH = 1280
TALLEST = 2400
"""Pixels of a page that a chosen picture shows."""
MOST_BYTES = 3_000_000
"""Of all chosen pictures together."""
VIEW = "row=x-ft-de&eval=en"
"""A cell of the matrix to read; pages that know of no cell pass over it."""
UNSETTLED = '[data-testid="stSkeleton"], [data-testid="stSpinner"], [data-stale="true"]'
SETTLED = """unsettled => !document.querySelector(unsettled)
    && [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].every(c => c.querySelector("svg, canvas"))
    && document.fonts.status === "loaded"
"""

Scheme = Literal["light", "dark"]


@dataclass(frozen=True)
class Options:
    """Pictures of every page of the app."""

    db: Path = ROOT / RESULTS
    """The results file that the pages show."""
    adapters: Path = ROOT / ADAPTERS
    """The adapters folder that they show."""


def main(options: Options) -> None:
    ALL.mkdir(exist_ok=True)
    CHOSEN.mkdir(parents=True, exist_ok=True)
    for old in CHOSEN.glob("*.webp"):
        old.unlink()
    with served(options.db.resolve(), options.adapters.resolve()) as address, chromium() as browser:
        for path in pages.paths():
            for scheme in ("light", "dark"):
                for width, page in opened(browser, f"{address}/{path}?{VIEW}", scheme):
                    take(page, path or "overview", width, scheme)
    names = [path or "overview" for path in pages.paths()]
    (ROOT / "docs" / "gallery.md").write_text(shown(names), encoding="utf-8")
    size = sum(picture.stat().st_size for picture in CHOSEN.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(
            f"{CHOSEN}: {size:,} bytes of pictures, more than {MOST_BYTES:,}. Lower TALLEST or the quality."
        )


def opened(browser: Browser, address: str, scheme: Scheme) -> Iterator[tuple[int, Page]]:
    """The page at every width, settled, its notice acknowledged, as tall as what it shows."""
    page = browser.new_page(color_scheme=scheme)
    page.set_default_timeout(3 * SLOW)
    expect.set_options(timeout=3 * SLOW)
    page.goto(address)
    settle(page)
    page.get_by_role("button", name="Understood").click()
    expect(page.get_by_role("button", name="Understood")).to_have_count(0)
    page.mouse.move(0, 0)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        height = page.get_by_test_id("stMain").evaluate("element => element.scrollHeight")
        page.set_viewport_size({"width": width, "height": max(900, int(height))})
        settle(page)
        yield width, page
    page.close()


def settle(page: Page) -> None:
    """Waits until the page's script has ended and its charts and fonts are there."""
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_function(SETTLED, arg=UNSETTLED)


def take(page: Page, name: str, width: int, scheme: Scheme) -> None:
    picture = ALL / f"{name}-{width}-{scheme}.png"
    page.screenshot(path=picture, animations="disabled")
    if width == CHOSEN_WIDTH:
        with Image.open(picture) as whole:
            part = whole.convert("RGB").crop((0, 0, whole.width, min(whole.height, TALLEST)))
            part.save(CHOSEN / f"{name}-{scheme}.webp", quality=80, method=6)


def shown(names: list[str]) -> str:
    """docs/gallery.md."""
    sections = [
        f"## {name.replace('_', ' ').capitalize()}\n\n![{name}, light](gallery/{name}-light.webp)\n\n"
        f"![{name}, dark](gallery/{name}-dark.webp)\n"
        for name in names
    ]
    return "# The pages\n\nMade by `make gallery`. Texts are blurred until asked for.\n\n" + "\n".join(sections)


if __name__ == "__main__":
    main(tyro.cli(Options))
