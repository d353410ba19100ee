"""Cut the power right after a save, and after each system call of a save."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, loads
from client_session_persistence.writer_thread import WRITER
from event_ids import event_id
from torture.disk import mounted_disk
from torture.fault import Fault, Outcome, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torture.disk import Disk

FILE_SYSTEMS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "commit=600"),  # the journal commits on fsync rather than every five seconds
    ((), "commit=600,noauto_da_alloc"),
    ((), "commit=600,nodelalloc"),
    (("-O", "^has_journal"), "noauto_da_alloc"),
)
"""The arguments of mkfs.ext4 and the mount options. The last file system has no journal, like ext2."""

PATHS = ("session.xml", "new/session.xml", "a/new/one/session.xml")


def _snapshot(number: int) -> Snapshot:
    return Snapshot(user_id=event_id(7), session_id=event_id(number), session_index=number)


def _load_if_valid(path: Path) -> Snapshot | None:
    """Return the snapshot in a file, or ``None`` if the file is missing, unreadable or not a save file."""
    with contextlib.suppress(OSError, CorruptSaveFileError):
        return loads(path.read_bytes())
    return None


def _summary(snapshot: Snapshot | None) -> str:
    return f"session {snapshot.session_index}, event {snapshot.event_index}" if snapshot else "no save file"


def _backup(path: Path) -> Path:
    return path.with_name(path.name + ".bak")


def wait_for_locks() -> None:
    """Wait until the writer thread has closed all lock files, since a disk with open files cannot be unmounted.

    `XmlStore.flush` returns as soon as the save is durable, right before the thread releases the lock.
    """
    while WRITER.retained:
        has_run = threading.Event()
        WRITER.run(has_run.set)
        has_run.wait()


def _cut_after_saves(disk: Disk, path: str, rounds: int, *, is_background: bool = False) -> Iterator[str]:
    """Save consecutive sessions, cut the power after each acknowledged save, and yield the losses."""
    before: Snapshot | None = None
    for number in range(1, rounds + 1):
        store = XmlStore(disk.folder / path, background=is_background)
        session = ClientSession(store=store, scheduler=ManualScheduler())
        context = session.get_session_context(event_id(1))
        store.flush()
        if session.save_error is not None:
            yield f"{path}, session {number}: {session.save_error}"
        for events in (1, 2):
            with disk.after_power_cut() as after:
                saved, backup = _load_if_valid(after / path), _load_if_valid(_backup(after / path))
                if saved is None or (saved.session_id, saved.event_index) != (context.session_id, events):
                    yield f"{path}, session {number}, event {events}: the disk has {_summary(saved)}"
                elif before is not None and events == 1 and backup != before:
                    yield f"{path}, session {number}: the backup has {_summary(backup)}"
            if events == 1:
                session.get_session_context(event_id(2))
                session.save()
        before = _load_if_valid(disk.folder / path)
    wait_for_locks()


def _cut_without_fsync(disk: Disk) -> Iterator[str]:
    """Yield a loss if the session survives without fsync, since the other power cuts would then prove nothing."""
    with mock.patch.object(os, "fsync", return_value=None):
        lost = list(_cut_after_saves(disk, "session.xml", 1))
    if not lost:
        yield "the session survives even without fsync, so this test proves nothing"


def cut_after_a_save(scale: Scale, *, is_background: bool = False) -> Outcome:
    """Cut the power after first and later saves, after saves that create folders, and without fsync."""
    sample = scale is Scale.SAMPLE
    losses: list[str] = []
    cuts = 0
    for mkfs_arguments, options in FILE_SYSTEMS[1:2] if sample else FILE_SYSTEMS:
        with mounted_disk(mkfs_arguments, options) as disk:
            for path in PATHS:
                lost = _cut_after_saves(disk, path, 2 if sample else 12, is_background=is_background)
                losses += [f"{options}: {loss}" for loss in lost]
            cuts += disk.cuts
        with mounted_disk(mkfs_arguments, options) as disk:
            losses += [f"{options}: {loss}" for loss in _cut_without_fsync(disk)]
    return Outcome(cuts, tuple(losses), "without fsync, every disk loses the session")


_STEPS = ("open", "link", "write", "fsync", "replace", "unlink")
"""The `os` functions that a save calls."""


@contextlib.contextmanager
def after_every_step(callback: Callable[[str], None]) -> Iterator[None]:
    """Call ``callback`` after each system call in the block, except for calls that ``callback`` makes itself."""
    is_calling = False

    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal is_calling
            result = real(*arguments, **options)
            if not is_calling:
                is_calling = True
                callback(name)
                is_calling = False
            return result

        return step

    with contextlib.ExitStack() as stack:
        for name in _STEPS:
            stack.enter_context(mock.patch.object(os, name, wrap(name, getattr(os, name))))
        yield


_SAVES_BEFORE_A_BACKUP = 2


def _cut_after_steps(disk: Disk, saves: int, *, is_background: bool) -> Iterator[str]:
    """Save repeatedly, cut the power after each system call, and yield the losses."""
    store = XmlStore(disk.folder / "session.xml", background=is_background)
    lost: list[str] = []
    for number in range(1, saves + 1):
        steps: list[str] = []
        old, new = (_snapshot(number - 1) if number > 1 else None), _snapshot(number)

        def cut(step: str, steps: list[str] = steps, old: Snapshot | None = old, new: Snapshot = new) -> None:
            steps.append(step)
            with disk.after_power_cut() as after:
                file = after / "session.xml"
                saved, backup = _load_if_valid(file), _load_if_valid(_backup(file))
                prefix = f"save {new.session_index}, after {', '.join(steps)}: the disk has"
                if (os.path.lexists(file) or old is not None) and saved not in (old, new):
                    lost.append(f"{prefix} {_summary(saved)}")
                elif new.session_index > _SAVES_BEFORE_A_BACKUP and backup is None:
                    lost.append(f"{prefix} no good backup")

        with after_every_step(cut):
            store.save(new)
            store.flush()
    wait_for_locks()
    yield from lost


def cutafter_every_step(scale: Scale, *, is_background: bool = False) -> Outcome:
    """Cut the power after every system call of a save; the disk must have the old or new session and a good backup."""
    sample = scale is Scale.SAMPLE
    losses: list[str] = []
    cuts = 0
    for mkfs_arguments, options in FILE_SYSTEMS[1:2] if sample else FILE_SYSTEMS:
        with mounted_disk(mkfs_arguments, options) as disk:
            lost = _cut_after_steps(disk, 3 if sample else 20, is_background=is_background)
            losses += [f"{options}: {loss}" for loss in lost]
            cuts += disk.cuts
    return Outcome(cuts, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "power cut right after a save returns, on ext4 (including with noauto_da_alloc, nodelalloc or no journal)",
        "the new session or the backup is not on the disk",
        cut_after_a_save,
    ),
    Fault(
        "power cut after every system call of a save",
        "the disk has neither the old session nor the new one",
        cutafter_every_step,
    ),
    Fault(
        "power cut right after a background save is durable",
        "the new session or the backup is not on the disk",
        partial(cut_after_a_save, is_background=True),
    ),
    Fault(
        "power cut after every system call of a background save",
        "the disk has neither the old session nor the new one",
        partial(cutafter_every_step, is_background=True),
    ),
)
