"""Check file modes and owners under every umask, and save to folders that contain planted links."""

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
from torture.health_check import SUFFIXES, load_if_valid, open_session, track_event
from torture.hostile_paths import Victim
from torture.worker_pool import environment

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
def _modes_recorded(folder: Path, seen: set[tuple[str, int]]) -> Generator[None]:
    """Record the name and mode of every file in the folder at each open, write and fsync."""
    real_open, real_write, real_fsync = os.open, os.write, os.fsync

    def record_modes(*, opened: bool = False) -> None:
        modes = ((path.name, _mode(path)) for path in folder.iterdir())
        # Right after its creation, a file may have fewer permissions than 0600 because of the umask, but never more.
        seen.update((name, mode) for name, mode in modes if not opened or mode & ~0o600)

    def recording_open(*arguments: Any) -> int:  # noqa: ANN401  # same as os.open
        descriptor = real_open(*arguments)
        record_modes(opened=True)
        return descriptor

    def recording_write(descriptor: int, data: bytes) -> int:
        record_modes()
        written = real_write(
            descriptor, data[: len(data) // 2 + 1]
        )  # write partially, so that a half-written file is checked
        record_modes()
        return written

    def recording_sync(descriptor: int) -> None:
        record_modes()
        real_fsync(descriptor)

    os.open, os.write, os.fsync = recording_open, recording_write, recording_sync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.open, os.write, os.fsync = real_open, real_write, real_fsync


@contextlib.contextmanager
def _hard_links(*, allowed: bool) -> Generator[None]:
    real_link = os.link

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    if not allowed:
        os.link = refuse
    try:
        yield
    finally:
        os.link = real_link


def _save_under_umasks(scale: Scale) -> Outcome:
    """Save, corrupt the file and save again; this creates the save, backup, lock, corrupt and temporary files."""
    umasks = (0o000, 0o022, 0o077, 0o777) if scale is Scale.SAMPLE else range(0o1000)
    losses: list[str] = []
    cases = 0
    expected = {"session.xml" + suffix for suffix in SUFFIXES}
    for umask in umasks:
        for allowed in (True, False):
            with tempfile.TemporaryDirectory() as name:
                seen: set[tuple[str, int]] = set()
                store = XmlStore(Path(name) / "session.xml")
                with _umask(umask), _hard_links(allowed=allowed), _modes_recorded(Path(name), seen):
                    store.save(OLD)
                    store.save(NEW)
                    store.path.write_bytes(b"corrupt")
                    store.save(NEW)
                    store.save(OLD)
                seen |= {(path.name, _mode(path)) for path in Path(name).iterdir()}
                cases += len(seen)
                losses += [
                    f"umask {umask:04o}: {file} had mode {mode:04o}" for file, mode in sorted(seen) if mode != 0o600
                ]
                if missing := expected - {file for file, _ in seen}:
                    losses.append(f"umask {umask:04o}: {missing} were not seen")
    return Outcome(cases, tuple(losses), "each file checked after every open and during every write and fsync")


def _save_with_existing_modes(scale: Scale) -> Outcome:
    modes = (0o600, 0o640, 0o644, 0o660, 0o400) if scale is Scale.SAMPLE else range(0o400, 0o1000)
    losses: list[str] = []
    with tempfile.TemporaryDirectory() as name, _umask(0o027):
        store = XmlStore(Path(name) / "session.xml")
        for mode in modes:
            store.path.write_bytes(dumps(OLD))
            store.path.chmod(mode)
            store.save(NEW)
            if (_mode(store.path), _mode(store.backup_path)) != (mode, mode):
                losses.append(
                    f"{mode:04o} became {_mode(store.path):04o}, and in the backup {_mode(store.backup_path):04o}"
                )
            store.path.unlink()
    return Outcome(len(modes), tuple(losses))


def _require_root() -> None:
    if os.geteuid() != 0:
        message = "needs root to switch users and change owners"
        raise CannotRunError(message)


def _save_as_root(_: Scale) -> Outcome:
    """As root, overwrite a valid or corrupt file that belongs to another user."""
    _require_root()
    losses: list[str] = []
    owners = ((1000, 1000), (NOBODY, NOBODY), (1000, 100), (0, 1000))
    cases = [(owner, corrupt, allowed) for owner in owners for corrupt in (False, True) for allowed in (True, False)]
    for (uid, gid), corrupt, allowed in cases:
        with tempfile.TemporaryDirectory() as name, _hard_links(allowed=allowed):
            store = XmlStore(Path(name) / "session.xml")
            store.path.write_bytes(dumps(OLD)[: -30 if corrupt else None])
            os.chown(store.path, uid, gid)
            store.save(NEW)
            for path in (store.path, store.corrupt_path if corrupt else store.backup_path):
                now = path.stat()
                if (now.st_uid, now.st_gid) != (uid, gid):
                    losses.append(f"{path.name} changed owner from {uid}:{gid} to {now.st_uid}:{now.st_gid}")
    return Outcome(len(cases), tuple(losses))


_SESSION_PROGRAM = """
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


def _planted_cases(scale: Scale) -> Iterator[tuple[str, str, int, int, bool]]:
    """Yield the suffix, the kind of link, the folder's mode, the session's user, and whether the file is corrupt."""
    names = [suffix for suffix in SUFFIXES if suffix]
    if scale is Scale.SAMPLE:
        names = [".tmp", ".lock"]
    for suffix in names:
        for kind in ("symbolic", "dangling", "hard"):
            for folder_mode in (0o700, 0o777, 0o1777):
                for user in (0, 1000):
                    for corrupt in (False, True):
                        if scale is Scale.FULL or (folder_mode == 0o1777 and not corrupt):
                            yield suffix, kind, folder_mode, user, corrupt


def _save_next_to_planted_links(scale: Scale) -> Outcome:
    """As another user, plant links to the session user's file in private, world-writable and sticky folders.

    In a sticky folder the session's user cannot remove a planted link, so saving may fail. Saving may also fail if
    the link replaces the lock file.
    """
    _require_root()
    losses: list[str] = []
    cases = saved = 0
    for suffix, kind, folder_mode, user, corrupt in _planted_cases(scale):
        case = f"a {kind} link at {suffix}, folder {folder_mode:04o}, user {user}{', corrupt' if corrupt else ''}"
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            victim = Victim.create_in(Path(name) / "victim")
            folder = Path(name) / "folder"
            folder.mkdir()
            folder.chmod(folder_mode)
            save = folder / "session.xml"
            save.write_bytes(dumps(OLD)[: -30 if corrupt else None])
            sticky = folder_mode == 0o1777
            for path in (victim.path, victim.path.parent, save, *(() if sticky else (folder,))):
                os.chown(path, user, user)
            planted = folder / f"session.xml{suffix}"
            if kind == "hard":
                planted.hardlink_to(victim.path)
            else:
                planted.symlink_to(victim.path if kind == "symbolic" else victim.unused)
                os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
            before = victim.path.lstat()
            done = subprocess.run(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-c", _SESSION_PROGRAM, save, str(user)],
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            cases += 1
            saved += done.stdout == "saved\n"
            is_irremovable = sticky and user and (suffix == ".tmp" or (corrupt and suffix == ".corrupt"))
            if done.stdout != "saved\n" and (kind == "hard" or not (suffix == ".lock" or is_irremovable)):
                losses.append(f"{case}: {done.stdout}{done.stderr}")
            if harm := victim.describe_harm(before):
                losses.append(f"{case}: {harm}")
            if save.is_symlink() or save.stat().st_uid != user or _mode(save) & 0o133:
                losses.append(f"{case}: the save file changed to {save.lstat()}")
    return Outcome(cases, tuple(losses), f"{saved} saved anyway")


_LOOPS = ("to itself", "in a loop")
_LINKS = ("to a file", "to a missing file", "to a link", "relative", "in a linked folder", *_LOOPS)


def _create_link(kind: str, folder: Path) -> tuple[Path, Path]:
    """Create a link of this kind for use as the save path; return the link and its target."""
    target, path, middle_link = folder / "real" / "target.xml", folder / "session.xml", folder / "middle"
    target.parent.mkdir()
    if kind != "to a missing file":
        target.write_bytes(dumps(OLD))
    if kind == "in a linked folder":
        middle_link.symlink_to("real")
        return middle_link / "target.xml", target
    targets = {
        "to a link": "middle",
        "relative": "real/target.xml",
        "to itself": "session.xml",
        "in a loop": "middle",
    }
    path.symlink_to(targets.get(kind, os.fspath(target)))
    middle_link.symlink_to("session.xml" if kind == "in a loop" else target)
    return path, target


def _save_through_links(_: Scale) -> Outcome:
    """Save to a path that is itself a link, for each kind of link."""
    losses: list[str] = []
    for kind in _LINKS:
        with tempfile.TemporaryDirectory() as name:
            path, target = _create_link(kind, Path(name))
            was_link = path.is_symlink()
            for _number in range(2):
                with open_session(XmlStore(path)) as session:
                    losses += [f"{kind}: {problem}" for problem in track_event(session)]
            if path.is_symlink() != was_link:
                losses.append(f"{kind}: the link was replaced")
            after = load_if_valid(XmlStore(target))
            is_saved = session.save_error is None and after is not None and after.session_id == session.session_id
            if is_saved == (kind in _LOOPS):
                losses.append(f"{kind}: the file has {after}, error {session.save_error!r}")
    return Outcome(len(_LINKS), tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault("permissions: every umask", "a file ever has a mode other than 0600", _save_under_umasks),
    Fault(
        "permissions: every mode of an existing file",
        "the mode of the file or its backup changes",
        _save_with_existing_modes,
    ),
    Fault(
        "permissions: root writes another user's file",
        "the owner of the file, backup or corrupt copy changes",
        _save_as_root,
    ),
    Fault(
        "permissions: links planted at every name, in private, world-writable and sticky folders",
        "a victim's content, mode, owner or time changes, a dangling link is followed, or an error is raised",
        _save_next_to_planted_links,
    ),
    Fault(
        "permissions: the save path is a link",
        "the link is replaced, the session is not saved, or a link loop is not reported",
        _save_through_links,
    ),
)
