"""Subinterpreters, which do not allow daemon threads: sessions work without our threads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import loads

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
run = getattr(interpreters, "exec", interpreters.run_string)
assert run(interpreters.create(), sys.argv[1]) is None
"""


@pytest.mark.parametrize("background", [False, True])
def test_session_in_a_subinterpreter_saves(save_path: Path, *, background: bool) -> None:
    """A session has entities and saves, with ``background=True`` as well, and its file does not stay locked."""
    program = f"""
import uuid
from client_session import ClientSession, XmlStore
store = XmlStore({str(save_path)!r}, background={background})
with ClientSession(store=store) as session:
    session.get_session_context(uuid.uuid4())
    session.save()
with ClientSession({str(save_path)!r}) as session:
    assert session.get_session_context(uuid.uuid4()).session_index == 2
    assert session.save_error is None
"""
    if sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12's XML parser cannot be imported in a subinterpreter")
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", RUN, program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (2, 1)
