"""The power fails at the moment after a save, and at every step of one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING
from unittest import mock

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, loads
from event_ids import event_id
from torture.disk import a_disk
from torture.fault import Fault, Outcome, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torture.disk import Disk

_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "commit=600"),  # the journal commits when it is told to, not because five seconds have passed
    ((), "commit=600,noauto_da_alloc"),
    ((), "commit=600,nodelalloc"),
    (("-O", "^has_journal"), "noauto_da_alloc"),
)
"""Ways to make and to mount an ext4: arguments of mkfs.ext4, options of mount. The last has no journal, as ext2."""

_PLACES = ("session.xml", "new/session.xml", "a/new/one/session.xml")


def _snapshot(number: int) -> Snapshot:
    return Snapshot(user_id=event_id(7), session_id=event_id(number), session_index=number)


def _held(path: Path) -> Snapshot | None:
    """Return what a file holds, or ``None`` if it is not there, cannot be read, or is no save file."""
    with contextlib.suppress(OSError, CorruptSaveFileError):
        return loads(path.read_bytes())
    return None


def _in_brief(snapshot: Snapshot | None) -> str:
    return f"session {snapshot.session_index}, event {snapshot.event_index}" if snapshot else "no save file"


def _backup(path: Path) -> Path:
    return path.with_name(path.name + ".bak")


def _saves(disk: Disk, place: str, rounds: int) -> Iterator[str]:
    """Let the power fail after each acknowledged save of some sessions in a row; yield what is lost."""
    before: Snapshot | None = None
    for number in range(1, rounds + 1):
        session = ClientSession(disk.folder / place, scheduler=ManualScheduler())
        context = session.get_session_context(event_id(1))
        if session.save_error is not None:
            yield f"{place}, session {number}: {session.save_error}"
        for events in (1, 2):
            with disk.after_power_cut() as after:
                held, backup = _held(after / place), _held(_backup(after / place))
                if held is None or (held.session_id, held.event_index) != (context.session_id, events):
                    yield f"{place}, session {number}, event {events}: the disk has {_in_brief(held)}"
                elif before is not None and events == 1 and backup != before:
                    yield f"{place}, session {number}: the backup has {_in_brief(backup)}"
            if events == 1:
                session.get_session_context(event_id(2))
                session.save()
        before = _held(disk.folder / place)


def _without_fsync(disk: Disk) -> Iterator[str]:
    """Yield a sentence if nothing is lost though nothing is synced: then this machine shows nothing."""
    with mock.patch.object(os, "fsync", return_value=None):
        lost = list(_saves(disk, "session.xml", 1))
    if not lost:
        yield "without fsync nothing is lost either, so this proves nothing"


def after_a_save(scale: Scale) -> Outcome:
    """Cut the power after saves: first ones, later ones, in folders that the save made, and without fsync."""
    fast = scale is Scale.FAST
    losses: list[str] = []
    cuts = 0
    for make, options in _KINDS[1:2] if fast else _KINDS:
        with a_disk(make, options) as disk:
            for place in _PLACES:
                losses += [f"{options}: {loss}" for loss in _saves(disk, place, 2 if fast else 12)]
            cuts += disk.cuts
        with a_disk(make, options) as disk:
            losses += [f"{options}: {loss}" for loss in _without_fsync(disk)]
    return Outcome(cuts, tuple(losses), "without fsync, each disk does lose the session")


_STEPS = ("open", "link", "write", "fsync", "replace", "unlink")
"""The functions of `os` that a save calls."""


@contextlib.contextmanager
def _after_every_step(act: Callable[[str], None]) -> Iterator[None]:
    """Call a function after each system call that is made in the block, but not after its own."""
    acting = False

    def stepping(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal acting
            result = real(*arguments, **options)
            if not acting:
                acting = True
                act(name)
                acting = False
            return result

        return step

    with contextlib.ExitStack() as stack:
        for name in _STEPS:
            stack.enter_context(mock.patch.object(os, name, stepping(name, getattr(os, name))))
        yield


_SAVES_BEFORE_A_BACKUP = 2


def _steps(disk: Disk, saves: int) -> Iterator[str]:
    """Let the power fail after each system call of some saves in a row; yield what is lost."""
    store = XmlStore(disk.folder / "session.xml")
    lost: list[str] = []
    for number in range(1, saves + 1):
        steps: list[str] = []
        old, new = (_snapshot(number - 1) if number > 1 else None), _snapshot(number)

        def cut(step: str, steps: list[str] = steps, old: Snapshot | None = old, new: Snapshot = new) -> None:
            steps.append(step)
            with disk.after_power_cut() as after:
                file = after / "session.xml"
                held, backup = _held(file), _held(_backup(file))
                begin = f"save {new.session_index}, after {', '.join(steps)}: the disk has"
                if (os.path.lexists(file) or old is not None) and held not in (old, new):
                    lost.append(f"{begin} {_in_brief(held)}")
                elif new.session_index > _SAVES_BEFORE_A_BACKUP and backup is None:
                    lost.append(f"{begin} no good backup")

        with _after_every_step(cut):
            store.save(new)
    yield from lost


def after_every_step(scale: Scale) -> Outcome:
    """Cut the power after every system call of saves: the old session or the new one is there, and a good backup."""
    fast = scale is Scale.FAST
    losses: list[str] = []
    cuts = 0
    for make, options in _KINDS[1:2] if fast else _KINDS:
        with a_disk(make, options) as disk:
            losses += [f"{options}: {loss}" for loss in _steps(disk, 3 if fast else 20)]
            cuts += disk.cuts
    return Outcome(cuts, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "power cut right after a save returned, on ext4 (also noauto_da_alloc, nodelalloc, no journal)",
        "the new session or the backup is not on the disk",
        after_a_save,
    ),
    Fault(
        "power cut after every system call of a save",
        "neither the old session nor the new one is on the disk",
        after_every_step,
    ),
)
