"""What is no file in the place of a file, and what is planted beside it."""

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
from torture.still_works import SUFFIXES, begin, only_its_own, saved, track

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=41)
STRANGER = Snapshot(user_id=event_id(8), session_id=event_id(3), session_index=7)
MOST_SECONDS = 0.05


@attrs.frozen
class Victim:
    """A file that must stay as it is, and a name that must stay free."""

    path: Path
    free: Path

    @classmethod
    def made_in(cls, folder: Path) -> Victim:
        """Write it: a good save file of another user."""
        folder.mkdir()
        victim = cls(folder / "victim", folder / "free")
        victim.path.write_bytes(dumps(STRANGER))
        victim.path.chmod(0o644)
        return victim

    def harm(self, before: os.stat_result) -> str | None:
        """Say what was done to it."""
        now = self.path.lstat()
        kept = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns")
        changed = [name for name in kept if getattr(now, name) != getattr(before, name)]
        if changed or loads(self.path.read_bytes()) != STRANGER:
            return f"the victim's {', '.join(changed) or 'content'} changed"
        return "a dangling link was followed" if self.free.exists() else None


def _folder(path: Path, _: Victim) -> None:
    (path / "inside").mkdir(parents=True)


def _fifo(path: Path, _: Victim) -> None:
    os.mkfifo(path)


def _device(path: Path, _: Victim) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/zero").st_rdev)  # noqa: PTH116  # beside os.mknod


def _socket(path: Path, _: Victim) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))


def _large(path: Path, _: Victim) -> None:
    with path.open("wb") as file:
        file.truncate(50_000_000)


KINDS: dict[str, Callable[[Path, Victim], None]] = {
    "a folder": _folder,
    "a FIFO": _fifo,
    "a device": _device,
    "a socket": _socket,
    "50 MB": _large,
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to /dev/zero": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to a victim": lambda path, victim: path.symlink_to(victim.path),
    "a link to nowhere": lambda path, victim: path.symlink_to(victim.free),
    "a hard link to a victim": lambda path, victim: path.hardlink_to(victim.path),
    "a file of mode 0": lambda path, _: path.touch(0),
}
_IN_PLACE = ("a folder", "a FIFO", "a device", "a socket", "a link to itself")

# What stands in the way of the lock or of the writing itself, and is not ours to remove, is an error to be told.
_NO_LOCK = {"a folder", "a socket", *(kind for kind in KINDS if kind.startswith("a link"))}


def _may_be_refused(suffix: str, kind: str, *, ruined: bool) -> bool:
    if suffix == ".lock":
        return kind in _NO_LOCK
    return kind == "a folder" and (suffix == ".tmp" or (ruined and suffix == ".corrupt"))


def _kinds() -> dict[str, Callable[[Path, Victim], None]]:
    """Return what can be made here: devices are root's."""
    return {kind: make for kind, make in KINDS.items() if kind != "a device" or os.geteuid() == 0}


def _refusal(store: XmlStore, kind: str, losses: list[str]) -> float:
    """Load it, which must end in an error of the system's that names the file; return the seconds."""
    start = time.perf_counter()
    try:
        losses.append(f"{kind}: was read as {store.load()}")
    except OSError as error:
        if not error.strerror or error.filename != os.fspath(store.path):
            losses.append(f"{kind}: gave {error!r}")
    return time.perf_counter() - start


def _in_place(_: Scale) -> Outcome:
    losses: list[str] = []
    slowest = 0.0
    kinds = [kind for kind in _kinds() if kind in _IN_PLACE]
    with tempfile.TemporaryDirectory() as name:
        victim = Victim.made_in(Path(name) / "victim")
        for number, kind in enumerate([*kinds, "a link to a FIFO"]):
            path = Path(name) / str(number) / "session.xml"
            path.parent.mkdir()
            if kind == "a link to a FIFO":
                os.mkfifo(path.with_name("fifo"))
                path.symlink_to("fifo")
            else:
                KINDS[kind](path, victim)
            store = XmlStore(path)
            store.backup_path.write_bytes(dumps(KEPT))
            before = path.lstat()
            slowest = max(slowest, min(_refusal(store, kind, losses) for _ in range(3)))
            with only_its_own(store, losses, kind), begin(store) as session:
                losses += [f"{kind}: {problem}" for problem in track(session)]
            if session.user_id != KEPT.user_id or not isinstance(session.save_error, OSError):
                losses.append(f"{kind}: user {session.user_id}, error {session.save_error!r}")
            if (path.lstat().st_ino, path.lstat().st_mode) != (before.st_ino, before.st_mode):
                losses.append(f"{kind}: was replaced")
    if slowest > MOST_SECONDS:
        losses.append(f"the slowest took {slowest * 1e3:.0f} ms")
    return Outcome(len(kinds) + 1, tuple(losses), f"slowest {slowest * 1e3:.1f} ms")


_AS_NOBODY = """
import os, sys
from client_session import ClientSession
from client_session_persistence import XmlStore  # what is imported when first needed, nobody may not read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with ClientSession(sys.argv[1]) as session:
    session.get_session_context("00000000-0000-4000-8000-000000000001")
print(session.user_id, type(session.save_error).__name__)
"""


def _not_to_be_read(_: Scale) -> Outcome:
    if os.geteuid() != 0:
        need = "root, to become another user"
        raise CannotRunError(need)
    losses: list[str] = []
    modes = (0o000, 0o200, 0o600)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # so that only the file is in the way
        store = XmlStore(Path(folder) / "session.xml")
        store.backup_path.write_bytes(dumps(KEPT))
        for mode in modes:
            store.path.write_bytes(dumps(KEPT))
            store.path.chmod(mode)
            before = store.path.stat()
            done = subprocess.run(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-c", _AS_NOBODY, store.path], capture_output=True, text=True, check=False
            )
            if done.stdout != f"{KEPT.user_id} PermissionError\n":
                losses.append(f"mode {mode:o}: {done.stdout}{done.stderr}")
            if store.path.stat() != before:
                losses.append(f"mode {mode:o}: it was replaced")
    return Outcome(len(modes), tuple(losses))


def _beside(scale: Scale) -> Outcome:
    losses: list[str] = []
    slowest = 0.0
    plans = [(suffix, kind, ruined) for suffix in SUFFIXES if suffix for kind in _kinds() for ruined in (False, True)]
    plans = plans[:: 1 if scale is Scale.WHOLE else 5]
    with tempfile.TemporaryDirectory() as name:
        for number, (suffix, kind, ruined) in enumerate(plans):
            case = f"{kind} at {suffix}{', the file ruined' if ruined else ''}"
            victim = Victim.made_in(Path(name) / f"victim-{number}")
            store = XmlStore(Path(name) / str(number) / "session.xml")
            store.path.parent.mkdir()
            store.path.write_bytes(dumps(KEPT)[: -30 if ruined else None])
            if suffix != ".bak":
                store.backup_path.write_bytes(dumps(KEPT))
            planted = store.path.with_name(store.path.name + suffix)
            KINDS[kind](planted, victim)
            before, file = victim.path.lstat(), store.path.read_bytes()
            start = time.perf_counter()
            with only_its_own(store, losses, case), begin(store) as session:
                losses += [f"{case}: {problem}" for problem in track(session)]
            slowest = max(slowest, time.perf_counter() - start)
            # A hard link cannot be told from a backup: whoever can plant one can as well write one.
            linked = ruined and (suffix, kind) == (".bak", "a hard link to a victim")
            if session.user_id != (STRANGER if linked else KEPT).user_id:
                losses.append(f"{case}: the user was lost")
            if harm := victim.harm(before):
                losses.append(f"{case}: {harm}")
            if session.save_error is None:
                after = saved(store)
                right = after is not None and after.session_id == session.session_id
            else:
                right = _may_be_refused(suffix, kind, ruined=ruined) and store.path.read_bytes() == file
            if not right:
                losses.append(f"{case}: not saved: {session.save_error}")
            if kind == "a folder" and not (planted / "inside").is_dir():
                losses.append(f"{case}: a folder was removed")
    return Outcome(len(plans), tuple(losses), f"slowest session {slowest * 1e3:.0f} ms")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "hostile places: a folder, FIFO, device, socket or loop instead of the file",
        "read or replaced, no OSError within 50 ms, no entity, another user than the backup's",
        _in_place,
    ),
    Fault(
        "hostile places: a file that another user may not read",
        "replaced, no PermissionError, another user than the backup's",
        _not_to_be_read,
    ),
    Fault(
        "hostile places: things planted as backup, corrupt, lock and temporary files",
        "a victim changed, the user lost, not saved where nothing is in the way of it",
        _beside,
    ),
)
