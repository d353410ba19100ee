"""The trackers' modules: nothing is imported unasked, and a missing package is named with its extra."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest

PACKAGES = {"snowplow": "snowplow_tracker", "opentelemetry": "opentelemetry"}


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Python."""
    return subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_library_imports_no_trackers_package() -> None:
    """Neither client_session nor client_session.trackers brings what only one of the trackers needs."""
    program = (
        f"import sys, client_session, client_session.trackers; print({set(PACKAGES.values())} & sys.modules.keys())"
    )
    assert run(program).stdout == "set()\n"


@pytest.mark.parametrize("name", PACKAGES)
def test_without_the_package_the_import_says_how_to_get_it(name: str) -> None:
    """An ImportError names the extra, and the extra exists."""
    done = run(f"import sys; sys.modules['{PACKAGES[name]}'] = None; import client_session.trackers.{name}")
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"ImportError: client_session\.trackers\.{name} needs .*: pip install 'client-session\[{name}\]'", last
    )
    assert name in importlib.metadata.metadata("client-session").get_all("Provides-Extra", [])
