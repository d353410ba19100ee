"""Tracker adapters: optional imports, and errors that name the missing extra."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import pytest

PACKAGES = {"snowplow": "snowplow_tracker", "opentelemetry": "opentelemetry"}


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program."""
    return subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


def test_library_does_not_import_tracker_packages() -> None:
    """Neither client_session nor the logging filter imports a package that only one tracker needs."""
    program = f"import sys, client_session.trackers.logging; print({set(PACKAGES.values())} & sys.modules.keys())"
    assert run(program).stdout == "set()\n"


@pytest.mark.parametrize("name", PACKAGES)
def test_missing_package_error_names_the_extra(name: str) -> None:
    """The ImportError names the extra to install, and the extra exists."""
    result = run(f"import sys; sys.modules['{PACKAGES[name]}'] = None; import client_session.trackers.{name}")
    last_line = result.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"ImportError: client_session\.trackers\.{name} needs .*: pip install 'client-session\[{name}\]'", last_line
    )
    assert name in importlib.metadata.metadata("client-session").get_all("Provides-Extra", [])
