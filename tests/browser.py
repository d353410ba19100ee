"""Headless Chromium, for tests of pages."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_WAIT_SECONDS = 600.0
"""Seconds to wait for a page before a test fails. Generous, because the machine may be busy."""

needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)")


def dump_dom(page: str, folder: Path, *options: str) -> str:
    """Return a page's document after the browser has loaded it and run its scripts; its profile is in the folder."""
    return subprocess.run(  # noqa: S603  # the browser, on our own page
        [
            str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--no-first-run", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", page,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=_WAIT_SECONDS,
    ).stdout  # fmt: skip
