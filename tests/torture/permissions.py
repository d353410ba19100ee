"""Modes, umasks and planted links."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_session_persistence import Snapshot, XmlStore, dumps
from event_ids import event_id
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.hostile_places import Victim
from torture.still_works import SUFFIXES, begin, saved, track

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

OLD = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=41)
NEW = Snapshot(user_id=event_id(7), session_id=event_id(2), session_index=42)
NOBODY = 65534


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def _umask(value: int) -> Generator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _watched(folder: Path, seen: set[tuple[str, int]]) -> Generator[None]:
    """Note the name and mode of every file in the folder at each open, each write and each sync."""
    opening, write, sync = os.open, os.write, os.fsync

    def look(*, opened: bool = False) -> None:
        modes = ((path.name, _mode(path)) for path in folder.iterdir())
        # Between a file's creation and what undoes the umask, there may be less of a mode, but never more.
        seen.update((name, mode) for name, mode in modes if not opened or mode & ~0o600)

    def watched_open(*arguments: Any) -> int:  # noqa: ANN401  # as os.open
        descriptor = opening(*arguments)
        look(opened=True)
        return descriptor

    def watched_write(descriptor: int, data: bytes) -> int:
        look()
        written = write(descriptor, data[: len(data) // 2 + 1])  # in several pieces: seen half-written too
        look()
        return written

    def watched_sync(descriptor: int) -> None:
        look()
        sync(descriptor)

    os.open, os.write, os.fsync = watched_open, watched_write, watched_sync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.open, os.write, os.fsync = opening, write, sync


@contextlib.contextmanager
def _without_hard_links(*, lack: bool) -> Generator[None]:
    link = os.link

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    if lack:
        os.link = refuse
    try:
        yield
    finally:
        os.link = link


def _umasks(scale: Scale) -> Outcome:
    """Save thrice, ruin the file, save again: save, backup, lock, corrupt and temporary file come to be."""
    umasks = (0o000, 0o022, 0o077, 0o777) if scale is Scale.FAST else range(0o1000)
    losses: list[str] = []
    cases = 0
    wanted = {"session.xml" + suffix for suffix in SUFFIXES}
    for umask in umasks:
        for lack in (False, True):
            with tempfile.TemporaryDirectory() as name:
                seen: set[tuple[str, int]] = set()
                store = XmlStore(Path(name) / "session.xml")
                with _umask(umask), _without_hard_links(lack=lack), _watched(Path(name), seen):
                    store.save(OLD)
                    store.save(NEW)
                    store.path.write_bytes(b"ruin")
                    store.save(NEW)
                    store.save(OLD)
                seen |= {(path.name, _mode(path)) for path in Path(name).iterdir()}
                cases += len(seen)
                losses += [f"umask {umask:04o}: {file} was {mode:04o}" for file, mode in sorted(seen) if mode != 0o600]
                if missing := wanted - {file for file, _ in seen}:
                    losses.append(f"umask {umask:04o}: {missing} not seen")
    return Outcome(cases, tuple(losses), "each file looked at after every open, during every write and sync")


def _kept_modes(scale: Scale) -> Outcome:
    modes = (0o600, 0o640, 0o644, 0o660, 0o400) if scale is Scale.FAST else range(0o400, 0o1000)
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as name, _umask(0o027):
        store = XmlStore(Path(name) / "session.xml")
        for mode in modes:
            store.path.write_bytes(dumps(OLD))
            store.path.chmod(mode)
            store.save(NEW)
            if (_mode(store.path), _mode(store.backup_path)) != (mode, mode):
                losses.append(f"{mode:04o} became {_mode(store.path):04o}, the backup {_mode(store.backup_path):04o}")
            store.path.unlink()
    return Outcome(len(modes), tuple(losses))


def _needs_root() -> None:
    if os.geteuid() != 0:
        need = "root, to become other users and to give files away"
        raise CannotRunError(need)


def _owners(_: Scale) -> Outcome:
    """Root rewrites a user's file, good or ruined."""
    _needs_root()
    losses: list[str] = []
    owners = ((1000, 1000), (NOBODY, NOBODY), (1000, 100), (0, 1000))
    cases = [(owner, ruin, lack) for owner in owners for ruin in (False, True) for lack in (False, True)]
    for (uid, gid), ruin, lack in cases:
        with tempfile.TemporaryDirectory() as name, _without_hard_links(lack=lack):
            store = XmlStore(Path(name) / "session.xml")
            store.path.write_bytes(dumps(OLD)[: -30 if ruin else None])
            os.chown(store.path, uid, gid)
            store.save(NEW)
            for path in (store.path, store.corrupt_path if ruin else store.backup_path):
                now = path.stat()
                if (now.st_uid, now.st_gid) != (uid, gid):
                    losses.append(f"{path.name} of {uid}:{gid} became {now.st_uid}:{now.st_gid}'s")
    return Outcome(len(cases), tuple(losses))


_SESSION = """
import os, sys
from client_session import ClientSession
from client_session_persistence import XmlStore
user = int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
for number in range(3):
    with ClientSession(sys.argv[1]) as session:
        session.get_session_context("00000000-0000-4000-8000-000000000001")
print("saved" if session.save_error is None else type(session.save_error).__name__)
"""


def _plans(scale: Scale) -> Iterator[tuple[str, str, int, int, bool]]:
    """Yield suffix, kind of link, mode of the folder, the user of the session, and whether the file is ruined."""
    names = [suffix for suffix in SUFFIXES if suffix]
    if scale is Scale.FAST:
        names = [".tmp", ".lock"]
    for suffix in names:
        for kind in ("symbolic", "dangling", "hard"):
            for folder_mode in (0o700, 0o777, 0o1777):
                for user in (0, 1000):
                    for ruined in (False, True):
                        if scale is Scale.WHOLE or (folder_mode == 0o1777 and not ruined):
                            yield suffix, kind, folder_mode, user, ruined


def _planted(scale: Scale) -> Outcome:
    """Another user plants links to a file of the session's user, in folders that are more and more open.

    In a sticky folder, what another user planted cannot be removed: then saving may be refused, as at the lock's name.
    """
    _needs_root()
    losses: list[str] = []
    cases = done_well = 0
    for suffix, kind, folder_mode, user, ruined in _plans(scale):
        case = f"a {kind} link at {suffix}, folder {folder_mode:04o}, user {user}{', ruined' if ruined else ''}"
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            victim = Victim.made_in(Path(name) / "victim")
            folder = Path(name) / "folder"
            folder.mkdir()
            folder.chmod(folder_mode)
            save = folder / "session.xml"
            save.write_bytes(dumps(OLD)[: -30 if ruined else None])
            sticky = folder_mode == 0o1777
            for path in (victim.path, victim.path.parent, save, *(() if sticky else (folder,))):
                os.chown(path, user, user)
            planted = folder / f"session.xml{suffix}"
            if kind == "hard":
                planted.hardlink_to(victim.path)
            else:
                planted.symlink_to(victim.path if kind == "symbolic" else victim.free)
                os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
            before = victim.path.lstat()
            done = subprocess.run(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-c", _SESSION, save, str(user)], capture_output=True, text=True, check=False
            )
            cases += 1
            done_well += done.stdout == "saved\n"
            stuck = sticky and user and (suffix == ".tmp" or (ruined and suffix == ".corrupt"))
            if done.stdout != "saved\n" and (kind == "hard" or not (suffix == ".lock" or stuck)):
                losses.append(f"{case}: {done.stdout}{done.stderr}")
            if harm := victim.harm(before):
                losses.append(f"{case}: {harm}")
            if save.is_symlink() or save.stat().st_uid != user or _mode(save) & 0o133:
                losses.append(f"{case}: the save file became {save.lstat()}")
    return Outcome(cases, tuple(losses), f"{done_well} saved all the same")


_RINGS = ("to itself", "in a ring")
_SORTS = ("to a file", "to a missing file", "to a link", "relative", "in a linked folder", *_RINGS)


def _linked(sort: str, folder: Path) -> tuple[Path, Path]:
    """Return a save path that is a link of that sort, and the file that it leads to."""
    target, path, between = folder / "real" / "target.xml", folder / "session.xml", folder / "between"
    target.parent.mkdir()
    if sort != "to a missing file":
        target.write_bytes(dumps(OLD))
    if sort == "in a linked folder":
        between.symlink_to("real")
        return between / "target.xml", target
    leads = {"to a link": "between", "relative": "real/target.xml", "to itself": "session.xml", "in a ring": "between"}
    path.symlink_to(leads.get(sort, os.fspath(target)))
    between.symlink_to("session.xml" if sort == "in a ring" else target)
    return path, target


def _links(_: Scale) -> Outcome:
    """The save path is itself a link, of each sort."""
    losses: list[str] = []
    for sort in _SORTS:
        with tempfile.TemporaryDirectory() as name:
            path, target = _linked(sort, Path(name))
            was_link = path.is_symlink()
            for _number in range(2):
                with begin(XmlStore(path)) as session:
                    losses += [f"{sort}: {problem}" for problem in track(session)]
            if path.is_symlink() != was_link:
                losses.append(f"{sort}: the link was replaced")
            after = saved(XmlStore(target))
            right = session.save_error is None and after is not None and after.session_id == session.session_id
            if right == (sort in _RINGS):
                losses.append(f"{sort}: holds {after}, error {session.save_error!r}")
    return Outcome(len(_SORTS), tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault("permissions: every umask", "a file that was ever more or less than 0600", _umasks),
    Fault("permissions: every mode of an existing file", "file or backup of another mode afterwards", _kept_modes),
    Fault("permissions: root writes the file of another user", "file, backup or ruin of another owner", _owners),
    Fault(
        "permissions: links planted at every name, in private, open and sticky folders",
        "content, mode, owner or time of a victim, a dangling link followed, an error raised",
        _planted,
    ),
    Fault("permissions: the save path is a link", "the link replaced, not saved, a ring not told", _links),
)
