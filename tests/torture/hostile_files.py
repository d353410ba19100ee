"""Load malicious and damaged save files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from client_session.cli import client_session
from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, dumps, loads
from event_ids import event_id
from hostile_bytes import HOSTILE, file
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.health_check import check_file_access, load_if_valid, open_session, track_event
from torture.worker_pool import environment

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 0.05
"""Of CPU time, so that other load does not matter."""
MAX_BYTES = 4 * 1024 * 1024

SAVED = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=41)
NEWEST = Snapshot(
    user_id=event_id(7), session_id=event_id(2), previous_session_id=event_id(1), session_index=42, event_index=3
)
LARGE = {
    "50 MB of NUL bytes": bytes(50_000_000),
    "50 MB of spaces in a valid file": file().replace(b"><Key>", b">" + b" " * 50_000_000 + b"<Key>"),
}


def _load_malicious(scale: Scale) -> Outcome:
    cases = HOSTILE | {name: (data, "more than the maximum of 65536") for name, data in LARGE.items()}
    names = list(cases)[:: 1 if scale is Scale.FULL else 3]
    losses: list[str] = []
    slowest, largest = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        open_session(XmlStore(Path(folder) / "warm.xml")).close()  # imports the modules that are loaded lazily
        for number, name in enumerate(names):
            store = XmlStore(Path(folder) / str(number) / "session.xml")
            store.path.parent.mkdir()
            data, reason = cases[name]
            store.path.write_bytes(data)
            store.backup_path.write_bytes(dumps(SAVED))
            seconds, peak = _measure_load(store, reason, losses, name)
            slowest, largest = max(slowest, seconds), max(largest, peak)
            _check_show(store, reason, losses, name)
            with check_file_access(store, losses, name), open_session(store) as session:
                losses += [f"{name}: {problem}" for problem in track_event(session)]
            if session.user_id != SAVED.user_id:
                losses.append(f"{name}: the backup's user was lost")
            after = load_if_valid(store)
            if session.save_error is not None or after is None or after.session_id != session.session_id:
                losses.append(f"{name}: not saved afterward: {session.save_error}")
            if not store.corrupt_path.exists() or store.corrupt_path.read_bytes() != data:
                losses.append(f"{name}: the corrupt file was not kept")
    return Outcome(len(names), tuple(losses), f"slowest {slowest * 1e3:.1f} ms, largest {largest / 2**20:.1f} MiB")


def _measure_load(store: XmlStore, reason: str, losses: list[str], name: str) -> tuple[float, int]:
    """Return the fastest of three load times and the peak memory of a fourth load (including expat's)."""
    fastest = float("inf")
    for _ in range(3):
        start = time.thread_time()
        error = _load(store)
        fastest = min(fastest, time.thread_time() - start)
        if not isinstance(error, CorruptSaveFileError) or reason not in str(error) or str(store.path) not in str(error):
            losses.append(f"{name}: raised {error!r}")
    tracemalloc.start()
    _load(store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if fastest > MAX_SECONDS or peak > MAX_BYTES:
        losses.append(f"{name}: took {fastest * 1e3:.0f} ms and {peak / 2**20:.1f} MiB")
    return fastest, peak


def _load(store: XmlStore) -> BaseException | None:
    try:
        store.load()
    except BaseException as error:  # noqa: BLE001  # the caller checks it
        return error
    return None


def _check_show(store: XmlStore, reason: str, losses: list[str], name: str) -> None:
    done = CliRunner().invoke(client_session, ["show", os.fspath(store.path)])
    lines = [line for line in done.stderr.splitlines() if os.fspath(store.path) in line]
    if done.exit_code != 1 or len(lines) != 1 or reason not in lines[0] or "Traceback" in done.stderr:
        losses.append(f"{name}: show exited with status {done.exit_code} and printed {done.stderr!r}")


_MEASURE_RESIDENT = """
import os, sys
from pathlib import Path
from hostile_bytes import HOSTILE
from client_session_persistence import CorruptSaveFileError, XmlStore

def read_kib(key):
    return int(Path("/proc/self/status").read_text().partition(key + ":")[2].split()[0])

def load(path):
    try:
        XmlStore(path).load()
    except CorruptSaveFileError:
        pass

path = Path(sys.argv[1], "session.xml")
path.write_bytes(HOSTILE["not XML"][0])
load(path)
for name, (data, _) in list(HOSTILE.items())[:: int(sys.argv[2])]:
    path.write_bytes(data)
    child = os.fork()
    if not child:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = read_kib("VmHWM")
        load(path)
        print(read_kib("VmHWM") - before, name, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def _measure_resident_memory(scale: Scale) -> Outcome:
    if not Path("/proc/self/clear_refs").exists():
        message = "needs Linux's /proc/self/clear_refs to measure a process's peak memory"
        raise CannotRunError(message)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-c", _MEASURE_RESIDENT, folder, "1" if scale is Scale.FULL else "7"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    growths = [(int(kib), name) for kib, _, name in (line.partition(" ") for line in done.stdout.splitlines())]
    losses = [f"{name}: grew by {kib} KiB" for kib, name in growths if kib * 1024 > MAX_BYTES]
    return Outcome(len(growths), tuple(losses), f"largest growth {max(growths)[0] / 1024:.1f} MiB")


def _load_malicious_backup(scale: Scale) -> Outcome:
    names = list(HOSTILE)[:: 1 if scale is Scale.FULL else 3]
    losses: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, other) in enumerate(zip(names, reversed(names), strict=True)):
            store = XmlStore(Path(folder) / str(number) / "session.xml")
            store.path.parent.mkdir()
            store.path.write_bytes(HOSTILE[name][0])
            store.backup_path.write_bytes(HOSTILE[other][0])
            case = f"{name}, backup {other}"
            start = time.thread_time()
            error = _load(store)
            slowest = max(slowest, time.thread_time() - start)
            if not isinstance(error, CorruptSaveFileError):
                losses.append(f"{case}: raised {error!r}")
            with check_file_access(store, losses, case), open_session(store) as session:
                losses += [f"{case}: {problem}" for problem in track_event(session)]
            if (after := load_if_valid(store)) is None or after.user_id != session.user_id:
                losses.append(f"{case}: not saved afterward")
    return Outcome(len(names), tuple(losses), f"slowest {slowest * 1e3:.1f} ms")


def _load_truncated(scale: Scale) -> Outcome:
    valid_bytes = dumps(NEWEST)
    lengths = range(0, len(valid_bytes), 1 if scale is Scale.FULL else 29)
    return _load_damaged([(f"truncated at {length}", valid_bytes[:length]) for length in lengths], must_be_refused=True)


def _load_flipped(scale: Scale) -> Outcome:
    valid_bytes = dumps(NEWEST)
    bits = range(0, len(valid_bytes) * 8, 1 if scale is Scale.FULL else 101)

    def flip(bit: int) -> bytes:
        damaged = bytearray(valid_bytes)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    return _load_damaged([(f"bit {bit} flipped", flip(bit)) for bit in bits], must_be_refused=False)


def _load_damaged(files: list[tuple[str, bytes]], *, must_be_refused: bool) -> Outcome:
    """Load each file next to a good backup, and open a session on every twentieth file."""
    losses: list[str] = []
    read_count = other_users = 0
    with tempfile.TemporaryDirectory() as folder:
        store = XmlStore(Path(folder) / "session.xml")
        for number, (name, data) in enumerate(files):
            store.path.write_bytes(data)
            store.backup_path.write_bytes(dumps(SAVED))
            user = SAVED.user_id
            try:
                snapshot = store.load()
            except CorruptSaveFileError as error:
                if error.recovered != SAVED:
                    losses.append(f"{name}: recovered {error.recovered}")
            else:
                assert snapshot is not None
                read_count += 1
                user = snapshot.user_id
                other_users += user != SAVED.user_id
                if must_be_refused or loads(dumps(snapshot)) != snapshot:
                    losses.append(f"{name}: returned {snapshot}")
            if number % 20 == 0:
                with open_session(store) as session:
                    losses += [f"{name}: {problem}" for problem in track_event(session)]
                if (after := load_if_valid(store)) is None or after.user_id != user:
                    losses.append(f"{name}: the user was lost")
    figures = (
        ""
        if must_be_refused
        else f"{read_count} well-formed files were read, {other_users} of them with a different user"
    )
    return Outcome(len(files), tuple(losses), figures)


def _fault(name: str, run: Callable[[Scale], Outcome]) -> Fault:
    loss = (
        "the file is not rejected with an error that names its path and the reason, loading takes more than 50 ms of "
        "CPU time or 4 MiB, another file or program is opened, or the session, the user or a save is lost"
    )
    return Fault(name, loss, run)


FAULTS: tuple[Fault, ...] = (
    _fault("hostile files: malicious bytes, with a good backup", _load_malicious),
    Fault(
        "hostile files: resident memory of a process that loads malicious bytes",
        "the process grows by more than 4 MiB",
        _measure_resident_memory,
    ),
    _fault("hostile files: malicious bytes in both the file and the backup", _load_malicious_backup),
    _fault("hostile files: a file truncated at each byte", _load_truncated),
    _fault("hostile files: each bit of a file flipped, one at a time", _load_flipped),
)
