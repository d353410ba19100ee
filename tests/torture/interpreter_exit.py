"""Exit the interpreter without closing sessions, and drop sessions without closing them."""

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
from client_session_persistence import CorruptSaveFileError, MemoryStore, XmlStore, loads
from torture.exit_places import METHODS, PLACES, exit_program
from torture.fault import Fault, Outcome, Scale
from torture.worker_pool import environment

_IMPORTS = """
import atexit, os, sys, threading, uuid
from client_session import ClientSession
"""
_USE = """
session = ClientSession(sys.argv[1], check_interval=0.001)
session.get_session_context(uuid.uuid4())
"""
_LATE_SESSION = """
def open_late_session(session_class=ClientSession, path=sys.argv[1] + ".other", new_id=uuid.uuid4):
    other = session_class(path, check_interval=0.001)
    other.get_session_context(new_id())
"""

# Maps each way to exit to a program, its exit status, and the end of its stderr.
EXITS: dict[str, tuple[str, int, str]] = {
    "at the end of its file": (_USE, 0, ""),
    "with sys.exit": (f"{_USE}sys.exit(3)", 3, ""),
    "with an exception": (f"{_USE}raise SystemError('the program itself')", 1, "SystemError: the program itself\n"),
    "with os._exit": (f"{_USE}os._exit(4)", 4, ""),
    "with sys.exit in a thread": (
        f"{_USE}t = threading.Thread(target=sys.exit, args=(5,)); t.start(); t.join()",
        0,
        "",
    ),
    "with os._exit in a thread": (
        f"{_USE}t = threading.Thread(target=os._exit, args=(6,)); t.start(); t.join()",
        6,
        "",
    ),
    "with a session opened in an atexit handler": (f"{_USE}{_LATE_SESSION}atexit.register(open_late_session)", 0, ""),
    "with a session opened in a finalizer at shutdown": (
        (
            f"{_USE}{_LATE_SESSION}class Last:\n    def __del__(self, call=open_late_session): call()\n"
            "last = Last()\nlast.cycle = last"
        ),
        0,
        "",
    ),
    "with the session used and closed in atexit handlers": (
        f"{_USE}atexit.register(session.close)\natexit.register(session.get_session_context, uuid.uuid4())",
        0,
        "",
    ),
}


def _run_program(source: str, path: Path, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own interpreter and program
        [python, "-X", "dev", "-c", _IMPORTS + source, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _exit_each_way(scale: Scale) -> Outcome:
    repetitions = 20 if scale is Scale.FULL else 1
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(number: int, way: str) -> None:
            source, status, stderr = EXITS[way]
            try:
                done = _run_program(source, Path(folder) / f"{way} {number}.xml")
            except subprocess.TimeoutExpired:
                losses.append(f"a program that exits {way} hangs")
                return
            if done.returncode != status or (done.stderr if not stderr else done.stderr[-len(stderr) :]) != stderr:
                losses.append(f"a program that exits {way}: status {done.returncode}, {done.stderr[-300:]!r}")

        list(pool.map(run, *zip(*itertools.product(range(repetitions), EXITS), strict=True)))
    return Outcome(repetitions * len(EXITS), tuple(losses))


def _interpreters() -> list[Path]:
    """Return this interpreter and those for which `make matrix` has set up an environment."""
    others = (Path(__file__).parents[2] / "build" / "matrix").glob("3.*/bin/python")
    this = f"3.{sys.version_info.minor}"
    return [Path(sys.executable), *sorted(python for python in others if python.parents[1].name != this)]


def _call_at_exit(scale: Scale) -> Outcome:
    stores = ("XmlStore(sys.argv[1])", "XmlStore(sys.argv[1], background=True)", "MemoryStore()")
    interpreters = _interpreters() if scale is Scale.FULL else [Path(sys.executable)]
    cases = list(itertools.product(interpreters, stores, PLACES, [list(METHODS)]))
    if scale is Scale.FULL:
        cases += itertools.product(interpreters, stores[:1], PLACES, [[name] for name in METHODS])
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(number: int) -> None:
            python, store, place, names = cases[number]
            path = Path(folder) / f"{number}.xml"
            what = f"{', '.join(names)} {place} with {store} on {python}"
            try:
                done = _run_program(exit_program(place, [METHODS[name] for name in names], store), path, python)
            except subprocess.TimeoutExpired:
                losses.append(f"{what} hangs")
                return
            if done.returncode or done.stderr:
                losses.append(f"{what}: status {done.returncode}, {done.stderr[-300:]!r}")
            try:
                if not store.startswith("Memory"):
                    loads(path.read_bytes())
            except (OSError, CorruptSaveFileError) as error:
                losses.append(f"{what}: {error}")

        list(pool.map(run, range(len(cases))))
    return Outcome(len(cases), tuple(losses), f"{len(interpreters)} versions of Python")


def _exit_quickly(scale: Scale) -> Outcome:
    """Compare the fastest exits with and without a session, timed from the program's last statement to its exit."""
    pairs = 20 if scale is Scale.FULL else 3
    print_time = "\nimport time; print(time.monotonic(), flush=True)"
    with_session: list[float] = []
    without_session: list[float] = []
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            for source, seconds in ((_USE, with_session), ("", without_session)):
                done = _run_program(source + print_time, Path(folder) / f"{number}.xml")
                seconds.append(time.monotonic() - float(done.stdout))
                if done.stderr:
                    losses.append(done.stderr[-300:])
    extra = min(with_session) - min(without_session)
    if extra > 0.1:
        losses.append(f"{extra * 1000:.0f} ms longer than without a session")
    return Outcome(pairs, tuple(losses), f"{extra * 1000:.1f} ms longer than without a session")


def _open_descriptors() -> int:
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


def _drop_sessions(scale: Scale) -> Outcome:
    sessions = 10_000 if scale is Scale.FULL else 150
    gc.collect()
    before = _open_descriptors()
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
        remaining = [thread.name for thread in threading.enumerate() if thread.name == "client-session-checker"]
        losses = [f"{thread} is still running" for thread in remaining]
        if (extra := _open_descriptors() - before) > 0:
            losses.append(f"{extra} descriptors are still open")
    return Outcome(2 * sessions, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a program exits without closing its session",
        "exiting takes more than 100 ms longer than without a session, or prints output",
        _exit_quickly,
    ),
    Fault(
        "a program exits in each of nine ways, such as sys.exit, os._exit or an exception",
        "the program hangs, prints unexpected output, or has the wrong exit status",
        _exit_each_way,
    ),
    Fault(
        "each method is called at exit: in finalizers, atexit and signal handlers, and a daemon thread",
        "the program crashes, hangs or prints output, or the file is missing or not valid",
        _call_at_exit,
    ),
    Fault(
        "sessions are dropped without calling close(), half with a save file and half in memory",
        "a thread or a descriptor is leaked",
        _drop_sessions,
    ),
)
