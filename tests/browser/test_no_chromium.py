"""What a machine without a Chromium says."""

import os
import subprocess
import sys
from pathlib import Path

from tests.browser.serving import ROOT


def test_without_a_chromium_one_failure_says_what_to_type(tmp_path: Path) -> None:
    without = {**os.environ, "PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/browser/test_pages.py",
        "tests/unit/test_vocabulary.py",
    ]
    ran = subprocess.run(command, env=without, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.startswith("F."), ran.stdout
    assert "apt-get install chromium" in ran.stdout and "playwright install" in ran.stdout
    assert "1 failed" in ran.stdout and "error" not in ran.stdout.splitlines()[-1]
