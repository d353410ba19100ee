"""Imports: a program loads only the modules it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

import client_session_persistence

OPTIONAL = {"click", "rich", "hypothesis"}
FOR_LOOPS = {"asyncio", "client_session_persistence.writer_thread"}
FOR_FILES = {"filelock", "platformdirs", "xml.parsers.expat"}


def modules_after(program: str) -> set[str]:
    """Run a program in a new interpreter and return the names of the modules it loaded."""
    script = f"{program}\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  # our own interpreter
    return set(result.stdout.split())


def test_in_memory_session_loads_no_file_modules() -> None:
    """Modules that handle files are loaded on first use of a file store; optional packages are never loaded."""
    in_memory = modules_after(
        "from client_session import ClientSession; from client_session_persistence import MemoryStore, Snapshot"
    )
    assert "transitions" in in_memory
    assert not in_memory & (OPTIONAL | FOR_FILES | FOR_LOOPS)
    in_a_file = modules_after("from client_session_persistence import XmlStore")
    assert {"filelock", "xml.parsers.expat"} <= in_a_file
    assert not in_a_file & (OPTIONAL | FOR_LOOPS | {"client_session"})


def test_every_public_name_is_available() -> None:
    """Lazily imported names are available like all others; an unknown name raises AttributeError."""
    assert all(getattr(client_session_persistence, name) is not None for name in client_session_persistence.__all__)
    with pytest.raises(AttributeError, match="'client_session_persistence' has no attribute 'YamlStore'"):
        _ = client_session_persistence.YamlStore
