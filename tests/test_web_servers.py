"""Web servers that fork without Python's hooks (uWSGI), or patch the standard library after a fork (gunicorn)."""

from __future__ import annotations

import collections
import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

WAIT_SECONDS = 20.0
"""How long a server may take to start, and to answer a request; a call waits for locks for at most 10 s."""

APP = """
import json, os, threading, time, uuid
from client_session import ClientSession, XmlStore
AT_IMPORT

def application(environ, start_response):
    IN_A_REQUEST
    time.sleep(0.02)  # so that all workers get requests
    entity = session.get_session_context(uuid.uuid4())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), entity.session_id, entity.session_index, entity.event_index]).encode()]
"""
OPEN = "store = XmlStore({path!r}, background={background}); session = ClientSession(store=store)"
TRACK = "\nsession.get_session_context(uuid.uuid4())"
QUIET = """
store.flush()  # or else the paused thread would keep the file locked
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence.writer_thread import WRITER
for thread in (SHARED_CHECKER, WRITER):  # CPython itself hangs in uWSGI's workers if a thread is waiting for the GIL
    thread.pause(time.monotonic() + 60)
    thread._threads[thread.name] = threading.Thread()  # as if it were running
"""
SESSIONS = {
    "opened in a request": ("session = None", f"global session\n    if session is None: {OPEN}"),
    "opened at the import": (OPEN + QUIET, ""),
    "with an event at the import": (OPEN + TRACK + QUIET, ""),
}
SERVERS = {
    "uwsgi": [
        *("uwsgi", "--http-socket", "127.0.0.1:0", "--master", "--processes", "2", "--enable-threads"),
        *("--need-app", "--die-on-term", "--module", "app"),
    ],
    "gunicorn with gevent": [
        *("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--worker-class", "gevent", "app:application"),
    ],
}
SERVERS["gunicorn with gevent and --preload"] = [*SERVERS["gunicorn with gevent"], "--preload"]
NEEDED = {"uwsgi": ("pyuwsgi",), "gunicorn": ("gunicorn", "gevent")}


@contextlib.contextmanager
def serve(command: list[str], folder: Path) -> Generator[int]:
    """Run a server in a folder, and yield its port."""
    modules = NEEDED[command[0]]
    program = shutil.which(command[0], path=os.fspath(Path(sys.executable).parent)) or "missing"
    if command[0] == "gunicorn":
        program = sys.executable
        command = [program, "-m", *command]
    if program == "missing" or not all(map(importlib.util.find_spec, modules)):
        pytest.skip(f"needs {' and '.join(modules)} (dependency group examples)")
    with (
        subprocess.Popen(  # noqa: S603  # the servers of the environment
            [program, *command[1:]],
            cwd=folder,
            env={**os.environ, "HOME": os.fspath(folder), "PYTHONPATH": os.pathsep.join(["", *filter(None, sys.path)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process
    ):
        watchdog = threading.Timer(2 * WAIT_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        assert process.stdout is not None
        output = ""
        try:
            port = None
            for line in process.stdout:
                output += line
                if match := re.search(r"(?:address|http://)\s*127\.0\.0\.1:(\d+)", line):
                    port = int(match[1])
                    break
            assert port, output
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            yield port
        finally:
            watchdog.cancel()
            os.killpg(process.pid, signal.SIGKILL)  # a frozen worker does not end by itself
            with contextlib.suppress(NameError):
                drain.join()


def get(port: int) -> Any:  # noqa: ANN401  # any JSON value
    """Make a request and return the parsed response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def run_app(server: str, at_import: str, in_a_request: str, folder: Path) -> list[tuple[int, str, int, int]]:
    """Make requests until both workers of a server have answered, and return the answers."""
    program = APP.replace("AT_IMPORT", at_import).replace("IN_A_REQUEST", in_a_request)
    (folder / "app.py").write_text(program, encoding="utf-8")
    answers: list[tuple[int, str, int, int]] = []
    with serve(SERVERS[server], folder) as port, ThreadPoolExecutor(8) as pool:
        while len({process for process, *_ in answers}) < 2:
            answers += map(tuple, pool.map(get, [port] * 16))
    return answers


@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("server", SERVERS)
def test_each_worker_has_its_own_session(server: str, session: str, *, background: bool, tmp_path: Path) -> None:
    """Workers answer all requests, have sessions of their own, and never use the same event number twice."""
    options = {"path": os.fspath(tmp_path / "session.xml"), "background": background}
    at_import, in_a_request = (code.format(**options) for code in SESSIONS[session])
    answers = run_app(server, at_import, in_a_request, tmp_path)
    sessions = collections.defaultdict[int, set[tuple[str, int]]](set)
    for process, session_id, index, _ in answers:
        sessions[process].add((session_id, index))
    assert [len(own) for own in sessions.values()] == [1, 1]
    if not background:  # such a store does not wait for the lock
        assert len({index for own in sessions.values() for _, index in own}) == 2
    events = collections.Counter((session_id, event) for _, session_id, _, event in answers)
    assert max(events.values()) == 1


def test_green_threads_that_wait_for_a_hung_process_do_not_hang(tmp_path: Path) -> None:
    """Green threads that share a lock, because gevent patched the worker late, do not repeat one another's tries."""
    path = os.fspath(tmp_path / "session.xml")
    opened = OPEN.format(path=path, background=False) + TRACK + QUIET
    hold = f"import fcntl; held = open({path + '.lock'!r}, 'r+b'); fcntl.flock(held, fcntl.LOCK_EX)"
    answers = run_app("gunicorn with gevent and --preload", f"{opened}\n{hold}", "", tmp_path)
    events = collections.Counter((session_id, event) for _, session_id, _, event in answers)
    assert max(events.values()) == 1
