"""Calls to a session while the interpreter exits: no crash, no output, and what was saved survives."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import loads
from torture.exit_places import METHODS, PLACES, exit_program

if TYPE_CHECKING:
    from pathlib import Path

STORES = {"file": "XmlStore(sys.argv[1])", "background": "XmlStore(sys.argv[1], background=True)"}


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter."""
    return subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-X", "dev", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("place", PLACES)
def test_every_method_can_be_called_at_exit(place: str, store: str, save_path: Path) -> None:
    """The program exits normally and silently, and its sessions' numbers are in the file."""
    done = run(exit_program(place, [*METHODS.values()], STORES[store]), save_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert loads(save_path.read_bytes()).session_index >= 1


@pytest.mark.parametrize(
    "place", ["in __del__", "in __del__ of a cycle", "in an atexit handler", "in a signal handler"]
)
def test_close_at_exit_saves_every_event(place: str, save_path: Path) -> None:
    """A session that is closed at exit has all its events in the file."""
    statements = [METHODS["get_session_context"], METHODS["close"]]
    done = run(exit_program(place, statements, STORES["file"]), save_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert loads(save_path.read_bytes()).event_index == 2


@pytest.mark.parametrize("place", ["in an atexit handler", "in an atexit handler registered first"])
def test_background_store_that_is_first_used_at_exit_saves(place: str, save_path: Path) -> None:
    """The save that a background store queues while the interpreter exits is written before it has exited."""
    statements = [
        "store = XmlStore(sys.argv[1] + '.late', background=True)",
        "ClientSession(store=store).get_session_context(new_id())",
    ]
    done = run(exit_program(place, statements, "MemoryStore()"), save_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    saved = loads(save_path.with_name(save_path.name + ".late").read_bytes())
    assert (saved.session_index, saved.event_index) == (1, 1)
