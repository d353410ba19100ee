"""Check file modes and owners under every umask, and save to folders that contain planted links."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

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


@attrs.frozen
class _Planted:
    """A link that another user has planted at one of a store's paths, or in place of the save file's folder."""

    suffix: str
    kind: str
    folder_mode: int
    user: int
    """The session's user."""
    corrupt: bool = False

    @property
    def must_be_refused(self) -> bool:
        return not self.suffix and self.kind != "hard"

    @property
    def may_prevent_saving(self) -> bool:
        """Whether saving may fail: the lock file may not be a link, and nobody else's link leaves a sticky folder."""
        is_irremovable = self.folder_mode == 0o1777 and self.user != 0
        needs_removal = self.suffix == ".tmp" or (self.corrupt and self.suffix == ".corrupt")
        return self.kind != "hard" and (self.suffix == ".lock" or (is_irremovable and needs_removal))

    def plant(self, folder: Path, victim: Victim) -> Path:
        """Create the save file, if the link does not replace it, and the link; return the save path."""
        save = folder / "session.xml"
        folder.mkdir()
        folder.chmod(self.folder_mode)
        owned = [victim.path, victim.path.parent, *([] if self.folder_mode == 0o1777 else [folder])]
        if self.suffix:
            save.write_bytes(dumps(OLD)[: -30 if self.corrupt else None])
            owned.append(save)
        for path in owned:
            os.chown(path, self.user, self.user)
        planted = folder / f"session.xml{self.suffix}"
        if self.kind == "hard":
            planted.hardlink_to(victim.path)
        else:
            targets = {"symbolic": victim.path, "dangling": victim.unused, "folder": victim.path.parent}
            planted.symlink_to(targets[self.kind])
            os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
        return planted / victim.path.name if self.kind == "folder" else save

    def find_loss(self, save: Path, printed: str) -> str | None:
        """Describe what is wrong with what the session's program printed and with the save file, if anything."""
        if self.must_be_refused:
            return None if printed == "PermissionError\n" else "the link was not refused"
        if printed != "saved\n" and not self.may_prevent_saving:
            return "the session was not saved"
        if save.is_symlink() or save.stat().st_uid != self.user or _mode(save) & 0o133:
            return f"the save file changed to {save.lstat()}"
        return None


def _planted_cases(scale: Scale) -> Iterator[_Planted]:
    modes, users = (0o700, 0o777, 0o1777), (0, 1000)
    suffixes = [suffix for suffix in SUFFIXES if suffix] if scale is Scale.FULL else [".tmp", ".lock"]
    combinations = itertools.product(suffixes, ("symbolic", "dangling", "hard"), modes, users, (False, True))
    cases = [_Planted(*combination) for combination in combinations]
    # A link at the save path of a private folder is followed: nobody else can have planted it.
    combinations_at_path = itertools.product(("",), ("symbolic", "dangling", "hard", "folder"), modes[1:], users)
    cases += [_Planted(*combination) for combination in combinations_at_path]
    yield from (case for case in cases if scale is Scale.FULL or (case.folder_mode == 0o1777 and not case.corrupt))


def _save_next_to_planted_links(scale: Scale) -> Outcome:
    """As another user, plant links to the session user's file in private, world-writable and sticky folders."""
    _require_root()
    losses: list[str] = []
    cases = saved = 0
    for case in _planted_cases(scale):
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            victim = Victim.create_in(Path(name) / "victim")
            save = case.plant(Path(name) / "folder", victim)
            before = victim.path.lstat()
            done = subprocess.run(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-c", _SESSION_PROGRAM, save, str(case.user)],
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            cases += 1
            saved += done.stdout == "saved\n"
            if loss := case.find_loss(save, done.stdout):
                losses.append(f"{case}: {loss} ({done.stdout}{done.stderr})")
            if harm := victim.describe_harm(before):
                losses.append(f"{case}: {harm}")
            if list(victim.path.parent.iterdir()) != [victim.path]:
                losses.append(f"{case}: a file was created next to the victim")
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
        "permissions: links planted at every name, and in place of the file or its folder, in private, world-writable "
        "and sticky folders",
        "a victim's content, mode, owner or time changes, a dangling link is followed, a file is created next to a "
        "victim, or an error is raised",
        _save_next_to_planted_links,
    ),
    Fault(
        "permissions: the save path is a link",
        "the link is replaced, the session is not saved, or a link loop is not reported",
        _save_through_links,
    ),
)
