"""The interpreter's exit, and sessions that are dropped."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from client_session import ClientSession
from client_session_persistence import MemoryStore, XmlStore
from torture.fault import Fault, Outcome, Scale

_BEGIN = """
import atexit, os, sys, threading, uuid
from client_session import ClientSession
"""
_USE = """
session = ClientSession(sys.argv[1], check_interval=0.001)
session.get_session_context(uuid.uuid4())
"""
_LATE = """
def late(make=ClientSession, path=sys.argv[1] + ".other", new_id=uuid.uuid4):
    other = make(path, check_interval=0.001)
    other.get_session_context(new_id())
"""

# What a program ends with, its exit status, and what stderr ends with.
WAYS: dict[str, tuple[str, int, str]] = {
    "at the end of its file": (_USE, 0, ""),
    "by sys.exit": (f"{_USE}sys.exit(3)", 3, ""),
    "by an exception": (f"{_USE}raise SystemError('the program itself')", 1, "SystemError: the program itself\n"),
    "by os._exit": (f"{_USE}os._exit(4)", 4, ""),
    "by sys.exit in a thread": (f"{_USE}t = threading.Thread(target=sys.exit, args=(5,)); t.start(); t.join()", 0, ""),
    "by os._exit in a thread": (f"{_USE}t = threading.Thread(target=os._exit, args=(6,)); t.start(); t.join()", 6, ""),
    "with a session made atexit": (f"{_USE}{_LATE}atexit.register(late)", 0, ""),
    "with a session made by a finalizer at shutdown": (
        f"{_USE}{_LATE}class Last:\n    def __del__(self, late=late): late()\nlast = Last()\nlast.itself = last",
        0,
        "",
    ),
    "with the session used and closed atexit": (
        f"{_USE}atexit.register(session.close)\natexit.register(session.get_session_context, uuid.uuid4())",
        0,
        "",
    ),
}


def _program(source: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-X", "dev", "-c", _BEGIN + source, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _ways(scale: Scale) -> Outcome:
    times = 20 if scale is Scale.WHOLE else 1
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def leave(number: int, way: str) -> None:
            source, status, stderr = WAYS[way]
            try:
                done = _program(source, Path(folder) / f"{way} {number}.xml")
            except subprocess.TimeoutExpired:
                losses.append(f"a program that ends {way} hangs")
                return
            if done.returncode != status or (done.stderr if not stderr else done.stderr[-len(stderr) :]) != stderr:
                losses.append(f"a program that ends {way}: status {done.returncode}, {done.stderr[-300:]!r}")

        list(pool.map(leave, *zip(*itertools.product(range(times), WAYS), strict=True)))
    return Outcome(times * len(WAYS), tuple(losses))


def _at_once(scale: Scale) -> Outcome:
    """Compare the fastest of paired runs, from the program's last statement to its end."""
    pairs = 20 if scale is Scale.WHOLE else 3
    told = "\nimport time; print(time.monotonic(), flush=True)"
    with_session: list[float] = []
    without: list[float] = []
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            for source, seconds in ((_USE, with_session), ("", without)):
                done = _program(source + told, Path(folder) / f"{number}.xml")
                seconds.append(time.monotonic() - float(done.stdout))
                if done.stderr:
                    losses.append(done.stderr[-300:])
    more = min(with_session) - min(without)
    if more > 0.1:
        losses.append(f"{more * 1000:.0f} ms more than without a session")
    return Outcome(pairs, tuple(losses), f"{more * 1000:.1f} ms more than without a session")


def _descriptors() -> int:
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


def _dropped(scale: Scale) -> Outcome:
    sessions = 10_000 if scale is Scale.WHOLE else 150
    gc.collect()
    before = _descriptors()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(sessions):
            for store in (XmlStore(Path(folder) / f"{number % 50}.xml"), MemoryStore()):
                session = ClientSession(store=store, check_interval=0.01)
                if number % 10 == 0:
                    session.get_session_context("00000000-0000-4000-8000-000000000001")
                del session
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == "client-session-checker":
                thread.join(timeout=10)
        left = [thread.name for thread in threading.enumerate() if thread.name == "client-session-checker"]
        losses = [f"{thread} still runs" for thread in left]
        if (more := _descriptors() - before) > 0:
            losses.append(f"{more} descriptors are still open")
    return Outcome(2 * sessions, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault("a program that never closes its session leaves", "it takes 100 ms more, or says something", _at_once),
    Fault("a program leaves in each way there is", "it hangs, says something, or has another exit status", _ways),
    Fault(
        "sessions are dropped without close(), half of them with a save file, half in memory",
        "a thread or a descriptor is left",
        _dropped,
    ),
)
