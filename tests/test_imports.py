"""Imports: a program loads only the modules it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

import client_session_persistence

OPTIONAL_PACKAGES = {"click", "rich", "hypothesis"}
LOOP_MODULES = {"asyncio", "client_session_persistence.writer_thread"}
FILE_MODULES = {"filelock", "platformdirs", "xml.parsers.expat"}


def modules_after(program: str) -> set[str]:
    """Run a program in a new interpreter and return the names of the modules it loaded."""
    script = f"{program}\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  # our own interpreter
    return set(result.stdout.split())


def test_in_memory_session_does_not_load_file_modules() -> None:
    """Modules that handle files are loaded only when a file store is imported; optional packages are never loaded."""
    in_memory = modules_after(
        "from client_session import ClientSession; from client_session_persistence import MemoryStore, Snapshot"
    )
    assert "transitions" in in_memory
    assert not in_memory & (OPTIONAL_PACKAGES | FILE_MODULES | LOOP_MODULES)
    with_file_store = modules_after("from client_session_persistence import XmlStore")
    assert {"filelock", "xml.parsers.expat"} <= with_file_store
    assert not with_file_store & (OPTIONAL_PACKAGES | LOOP_MODULES | {"client_session"})


def test_state_stores_are_loaded_on_first_use() -> None:
    """Importing the package loads no state store, and each store loads only what it needs."""
    databases = {"sqlite3", "redis", "valkey", "psycopg", "asyncio"}
    package = "client_session_persistence"
    assert not modules_after(f"import {package}") & {*databases, f"{package}.states"}
    assert not modules_after(f"from {package} import MemoryStates, StateStore") & databases
    assert modules_after(f"from {package} import SqliteStates") & databases == {"sqlite3"}
    assert not modules_after(f"from {package} import RedisStates") & databases - {"asyncio"}


def test_missing_psycopg_is_named() -> None:
    """Without psycopg, importing PostgresStates says what to install."""
    program = """
import sys
sys.modules["psycopg"] = None
try:
    from client_session_persistence import PostgresStates
except ImportError as error:
    assert "pip install 'client-session[postgres]'" in str(error), error
else:
    raise AssertionError
"""
    assert "client_session_persistence" in modules_after(program)


def test_missing_polars_is_named() -> None:
    """Without Polars, importing its sessionize says what to install; the fold needs no Polars."""
    program = """
import sys
sys.modules["polars"] = None
from client_session.sessionize import fold
try:
    from client_session.sessionize.polars import sessionize
except ImportError as error:
    assert "pip install 'client-session[polars]'" in str(error), error
else:
    raise AssertionError
"""
    assert "client_session.sessionize" in modules_after(program)


def test_every_public_name_is_available() -> None:
    """Lazily imported names are available like any other name; an unknown name raises AttributeError."""
    pytest.importorskip("psycopg", reason="needs psycopg, and libpq", exc_type=ImportError)
    assert all(getattr(client_session_persistence, name) is not None for name in client_session_persistence.__all__)
    with pytest.raises(AttributeError, match="'client_session_persistence' has no attribute 'YamlStore'"):
        _ = client_session_persistence.YamlStore
