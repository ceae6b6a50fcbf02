"""Starts the app on a results file, and a real Chromium to look at it."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SLOW = 20_000
"""Milliseconds that a page may take on a busy machine."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(path: Path, adapters: Path | None = None, options: Mapping[str, str | int] | None = None) -> Iterator[str]:
    """The address of the app on this results file (and this adapters folder), with these settings of Streamlit."""
    settings = {
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.port": free_port(),
        **(options or {}),
    }
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py"]
    command += [f"--{name}={setting}" for name, setting in settings.items()]
    command += ["--", "--db", str(path)] + (["--adapters", str(adapters)] if adapters else [])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "URL:" in line:
                break
        assert said and "URL:" in said[-1], "".join(said)
        try:
            yield f"http://127.0.0.1:{settings['server.port']}"
        finally:
            process.terminate()
            process.communicate()  # its last words need an open pipe


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium: the one on the PATH, else Playwright's own. Errors: playwright's, where there is none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@cache
def trouble() -> str | None:
    """Why no Chromium starts here, and what to type; None where one does."""
    try:
        with chromium():
            return None
    except Exception as error:  # noqa: BLE001  it raises no class of its own where its driver does not start
        return (
            "No Chromium for the browser tests. Type `sudo apt-get install chromium libatomic1 fonts-noto-core "
            "fonts-noto-cjk` (Debian), or `.venv/bin/playwright install --with-deps chromium` (elsewhere), and run "
            "them again.\n" + str(error).strip().splitlines()[0]
        )
