"""What is imported, and when: a program pays for what it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

import client_session_persistence

OPTIONAL = {"click", "rich", "hypothesis"}
FOR_LOOPS = {"asyncio", "client_session_persistence.writer_thread"}
FOR_FILES = {"filelock", "platformdirs", "xml.parsers.expat"}


def modules_after(program: str) -> set[str]:
    """Return what a fresh interpreter has imported at the end of a program."""
    printing = f"{program}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", printing], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  # our own interpreter
    return set(done.stdout.split())


def test_a_session_in_memory_needs_no_files() -> None:
    """What reads, writes and locks files is imported with the first of them, optional packages never."""
    in_memory = modules_after(
        "from client_session import ClientSession; from client_session_persistence import MemoryStore, Snapshot"
    )
    assert "transitions" in in_memory
    assert not in_memory & (OPTIONAL | FOR_FILES | FOR_LOOPS)
    in_a_file = modules_after("from client_session_persistence import XmlStore")
    assert {"filelock", "xml.parsers.expat"} <= in_a_file
    assert not in_a_file & (OPTIONAL | FOR_LOOPS | {"client_session"})


def test_every_public_name_is_there() -> None:
    """What is imported late is there like the rest; what is not there is an AttributeError."""
    assert all(getattr(client_session_persistence, name) is not None for name in client_session_persistence.__all__)
    with pytest.raises(AttributeError, match="'client_session_persistence' has no attribute 'YamlStore'"):
        _ = client_session_persistence.YamlStore
