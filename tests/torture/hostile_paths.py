"""Create folders, FIFOs, devices, sockets and links where the store expects its files."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session_persistence import Snapshot, XmlStore, dumps, loads
from event_ids import event_id
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.health_check import SUFFIXES, check_file_access, load_if_valid, open_session, track_event
from torture.worker_pool import environment

if TYPE_CHECKING:
    from collections.abc import Callable

SAVED = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=41)
OTHER_USER = Snapshot(user_id=event_id(8), session_id=event_id(3), session_index=7)
MAX_SECONDS = 0.05
"""Of CPU time, so that other load does not matter. A load that blocked would not end at all."""


@attrs.frozen
class Victim:
    """A file that must not change, and a path where nothing may be created."""

    path: Path
    unused: Path

    @classmethod
    def create_in(cls, folder: Path) -> Victim:
        """Create the file: a valid save file with a different user."""
        folder.mkdir()
        victim = cls(folder / "victim", folder / "unused")
        victim.path.write_bytes(dumps(OTHER_USER))
        victim.path.chmod(0o644)
        return victim

    def describe_harm(self, before: os.stat_result) -> str | None:
        """Describe what changed, or return ``None`` if nothing did."""
        now = self.path.lstat()
        fields = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns")
        changed = [name for name in fields if getattr(now, name) != getattr(before, name)]
        if changed or loads(self.path.read_bytes()) != OTHER_USER:
            return f"the victim's {', '.join(changed) or 'content'} changed"
        return "a dangling link was followed" if self.unused.exists() else None


def _create_folder(path: Path, _: Victim) -> None:
    (path / "inside").mkdir(parents=True)


def _create_fifo(path: Path, _: Victim) -> None:
    os.mkfifo(path)


def _create_device(path: Path, _: Victim) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/zero").st_rdev)  # noqa: PTH116  # matches os.mknod


def _create_socket(path: Path, _: Victim) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))


def _create_large_file(path: Path, _: Victim) -> None:
    with path.open("wb") as file:
        file.truncate(50_000_000)


KINDS: dict[str, Callable[[Path, Victim], None]] = {
    "a folder": _create_folder,
    "a FIFO": _create_fifo,
    "a device": _create_device,
    "a socket": _create_socket,
    "50 MB": _create_large_file,
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to /dev/zero": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to a victim": lambda path, victim: path.symlink_to(victim.path),
    "a dangling link": lambda path, victim: path.symlink_to(victim.unused),
    "a hard link to a victim": lambda path, victim: path.hardlink_to(victim.path),
    "a file with mode 0": lambda path, _: path.touch(0),
}
_KINDS_IN_PLACE_OF_THE_FILE = ("a folder", "a FIFO", "a device", "a socket", "a link to itself")

# With any of these at the lock file's path, locking fails. The store must report an error and not delete the file.
_KINDS_THAT_PREVENT_LOCKING = {
    "a folder",
    "a socket",
    "a dangling link",
    *(kind for kind in KINDS if kind.startswith("a link")),
}


def _save_may_fail(suffix: str, kind: str, *, corrupt: bool) -> bool:
    if suffix == ".lock":
        return kind in _KINDS_THAT_PREVENT_LOCKING
    return kind == "a folder" and (suffix == ".tmp" or (corrupt and suffix == ".corrupt"))


def _creatable_kinds() -> dict[str, Callable[[Path, Victim], None]]:
    """Return the kinds of files that the current user can create: only root can create devices."""
    return {kind: create for kind, create in KINDS.items() if kind != "a device" or os.geteuid() == 0}


def _time_refusal(store: XmlStore, kind: str, losses: list[str]) -> float:
    """Time a load, which must raise an `OSError` that names the file; return its duration in seconds."""
    start = time.thread_time()
    try:
        losses.append(f"{kind}: was read as {store.load()}")
    except OSError as error:
        if not error.strerror or error.filename != os.fspath(store.path):
            losses.append(f"{kind}: raised {error!r}")
    return time.thread_time() - start


def _load_special_files(_: Scale) -> Outcome:
    losses: list[str] = []
    slowest = 0.0
    kinds = [kind for kind in _creatable_kinds() if kind in _KINDS_IN_PLACE_OF_THE_FILE]
    with tempfile.TemporaryDirectory() as name:
        victim = Victim.create_in(Path(name) / "victim")
        for number, kind in enumerate([*kinds, "a link to a FIFO"]):
            path = Path(name) / str(number) / "session.xml"
            path.parent.mkdir()
            if kind == "a link to a FIFO":
                os.mkfifo(path.with_name("fifo"))
                path.symlink_to("fifo")
            else:
                KINDS[kind](path, victim)
            store = XmlStore(path)
            store.backup_path.write_bytes(dumps(SAVED))
            before = path.lstat()
            slowest = max(slowest, min(_time_refusal(store, kind, losses) for _ in range(3)))
            with check_file_access(store, losses, kind), open_session(store) as session:
                losses += [f"{kind}: {problem}" for problem in track_event(session)]
            if session.user_id != SAVED.user_id or not isinstance(session.save_error, OSError):
                losses.append(f"{kind}: user {session.user_id}, error {session.save_error!r}")
            if (path.lstat().st_ino, path.lstat().st_mode) != (before.st_ino, before.st_mode):
                losses.append(f"{kind}: was replaced")
    if slowest > MAX_SECONDS:
        losses.append(f"the slowest load took {slowest * 1e3:.0f} ms")
    return Outcome(len(kinds) + 1, tuple(losses), f"slowest {slowest * 1e3:.1f} ms")


_PROGRAM_AS_NOBODY = """
import os, sys
from client_session import ClientSession
from client_session_persistence import XmlStore  # imported now, while the modules are readable
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with ClientSession(sys.argv[1]) as session:
    session.get_session_context("00000000-0000-4000-8000-000000000001")
print(session.user_id, type(session.save_error).__name__)
"""


def _load_unreadable_file(_: Scale) -> Outcome:
    if os.geteuid() != 0:
        message = "needs root to switch users"
        raise CannotRunError(message)
    losses: list[str] = []
    modes = (0o000, 0o200, 0o600)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # so that only the file's mode prevents reading
        store = XmlStore(Path(folder) / "session.xml")
        store.backup_path.write_bytes(dumps(SAVED))
        for mode in modes:
            store.path.write_bytes(dumps(SAVED))
            store.path.chmod(mode)
            before = store.path.stat()
            done = subprocess.run(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-c", _PROGRAM_AS_NOBODY, store.path],
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.stdout != f"{SAVED.user_id} PermissionError\n":
                losses.append(f"mode {mode:o}: {done.stdout}{done.stderr}")
            if store.path.stat() != before:
                losses.append(f"mode {mode:o}: the file was replaced")
    return Outcome(len(modes), tuple(losses))


def _plant_files(scale: Scale) -> Outcome:
    losses: list[str] = []
    slowest = 0.0
    cases = [
        (suffix, kind, corrupt)
        for suffix in SUFFIXES
        if suffix
        for kind in _creatable_kinds()
        for corrupt in (False, True)
    ]
    cases = cases[:: 1 if scale is Scale.FULL else 5]
    with tempfile.TemporaryDirectory() as name:
        for number, (suffix, kind, corrupt) in enumerate(cases):
            case = f"{kind} at {suffix}{', corrupt file' if corrupt else ''}"
            victim = Victim.create_in(Path(name) / f"victim-{number}")
            store = XmlStore(Path(name) / str(number) / "session.xml")
            store.path.parent.mkdir()
            store.path.write_bytes(dumps(SAVED)[: -30 if corrupt else None])
            if suffix != ".bak":
                store.backup_path.write_bytes(dumps(SAVED))
            planted_path = store.path.with_name(store.path.name + suffix)
            KINDS[kind](planted_path, victim)
            before, file = victim.path.lstat(), store.path.read_bytes()
            start = time.thread_time()
            with check_file_access(store, losses, case), open_session(store) as session:
                losses += [f"{case}: {problem}" for problem in track_event(session)]
            slowest = max(slowest, time.thread_time() - start)
            # The store accepts a hard link as a backup: an attacker who can plant one could also write a backup.
            reads_victim = corrupt and (suffix, kind) == (".bak", "a hard link to a victim")
            if session.user_id != (OTHER_USER if reads_victim else SAVED).user_id:
                losses.append(f"{case}: the user was lost")
            if harm := victim.describe_harm(before):
                losses.append(f"{case}: {harm}")
            if session.save_error is None:
                after = load_if_valid(store)
                as_expected = after is not None and after.session_id == session.session_id
            else:
                as_expected = _save_may_fail(suffix, kind, corrupt=corrupt) and store.path.read_bytes() == file
            if not as_expected:
                losses.append(f"{case}: not saved: {session.save_error}")
            if kind == "a folder" and not (planted_path / "inside").is_dir():
                losses.append(f"{case}: a folder was removed")
    return Outcome(len(cases), tuple(losses), f"slowest session {slowest * 1e3:.0f} ms")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "hostile paths: a folder, FIFO, device, socket or link loop in place of the file",
        "the path is read or replaced, loading does not raise OSError within 50 ms of CPU time, an event does not get "
        "an entity, or the backup's user is lost",
        _load_special_files,
    ),
    Fault(
        "hostile paths: a file that the current user is not allowed to read",
        "the file is replaced, PermissionError is not reported, or the backup's user is lost",
        _load_unreadable_file,
    ),
    Fault(
        "hostile paths: folders, links, devices and more, planted in place of the backup, corrupt, lock and temporary "
        "files",
        "a victim file changes, the user is lost, or saving fails even though nothing prevents it",
        _plant_files,
    ),
)
