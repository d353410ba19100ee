"""gevent and eventlet: a session works whether the program patches the standard library early or late."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = {
    "gevent": ("import gevent.monkey; gevent.monkey.patch_all()", "from gevent import sleep, spawn"),
    "eventlet": ("import eventlet; eventlet.monkey_patch()", "from eventlet import sleep, spawn"),
}
IMPORTS = """
import os, sys, threading, uuid
from client_session import ClientSession, XmlStore

def use(number):
    ended = threading.Event()
    session = ClientSession(
        store=XmlStore(f"{sys.argv[1]}/{number}.xml", background=number % 2 == 1),
        check_interval=0.02,
        foreground_timeout=0.1,
        on_session_end=lambda _: ended.set(),
    )
    session.get_session_context(uuid.uuid4())
    session.save()
    assert ended.wait(30), "no check has run"
    session.close()
"""
OPEN = """
other = ClientSession(f"{sys.argv[1]}/other.xml", check_interval=0.02)
other.get_session_context(uuid.uuid4())
"""
FORK = """
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
BEAT = """
beats = 0
def beat():
    global beats
    while True:
        sleep(0.01)
        beats += 1
spawn(beat)
"""
PATCH = "PATCH"
PROGRAMS = {
    "before the import": (PATCH, IMPORTS, "use(0); use(1)"),
    "after the import": (IMPORTS, "import client_session_persistence.writer_thread", PATCH, "use(0); use(1)"),
    "after the first sessions": (IMPORTS, "use(0); use(1)", PATCH, "use(2); use(3)"),
    "while a session is open": (IMPORTS, OPEN, PATCH, "use(0); use(1); other.get_session_context(uuid.uuid4())"),
    "in a forked child": (IMPORTS, "use(0); use(1)", FORK, PATCH, "use(2); use(3)"),
}


@pytest.mark.parametrize("patched", PROGRAMS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_checks_and_saves_do_not_block_green_threads(library: str, patched: str, tmp_path: Path) -> None:
    """Whenever the program patches the standard library, sessions expire and are saved while green threads run."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library} (dependency group examples)")
    if library == "eventlet" and patched in ("after the first sessions", "while a session is open"):
        pytest.skip("eventlet does not support native threads that were started before it patched the library")
    patch, names = LIBRARIES[library]
    program = "\n".join((*PROGRAMS[patched], "assert beats > 0")).replace(PATCH, f"{patch}\n{names}{BEAT}")
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-W", "ignore", "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
