"""Killed at every system call of a save."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import Snapshot, XmlStore, dumps, loads
from event_ids import event_id
from torture.fault import Fault, Outcome, Scale
from torture.strace import Call, run_traced
from torture.warm import share_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))
SAMPLE = 12
"""Of so many system calls, one is taken for the suite."""


def live(folder: Path) -> None:
    """Start, record the first two events of a session, and close: three saves on a first run, two on an old file."""
    with ClientSession(folder / "session.xml", scheduler=ManualScheduler()) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))


def child(folder: Path) -> Callable[[AbstractContextManager[None]], list[str]]:
    """Return what a traced child does."""

    def work(traced: AbstractContextManager[None]) -> list[str]:
        with traced:
            live(folder)
        return []

    return work


def saves_made(calls: tuple[Call, ...]) -> int:
    """Return how often the save file was replaced."""
    return sum(call.name.startswith("rename") and '/session.xml"' in call.rest.partition(" = ")[0] for call in calls)


def saves_found(folder: Path, old: Snapshot | None) -> int | str:
    """Return how many saves since ``old`` a save file shows, or what is wrong with it."""
    path = folder / "session.xml"
    data = path.read_bytes() if path.exists() else None
    try:
        found = None if data is None else loads(data)
    except ValueError as error:
        return str(error)
    if found is not None and dumps(found) != data:
        return "other bytes than were written"
    starts = (old,) if old else (None, found and Snapshot(user_id=found.user_id))
    if found in starts:
        return starts.index(found)
    if found is None:
        return "no file"
    follows = (old.user_id, old.session_index + 1, old.session_id) if old else (found.user_id, 1, None)
    if (found.user_id, found.session_index, found.previous_session_id) != follows or found.first_event_id != event_id(
        1
    ):
        return f"neither old nor new: {found}"
    return len(starts) - 1 + (found.event_index or 0)


def start_again(folder: Path) -> list[str]:
    """Start a session where the last one was killed, and return what it lost."""
    path = folder / "session.xml"
    before = loads(path.read_bytes()) if path.exists() else None
    losses: list[str] = []
    session = ClientSession(path, scheduler=ManualScheduler())
    if session.save_error is not None:
        losses.append(f"the next start fails: {session.save_error}")
    if before is not None and session.user_id != before.user_id:
        losses.append("the next start has another user")
    losses.extend(f"{left.name} is left" for left in sorted(folder.glob("*.tmp")))
    index = session.get_session_context(event_id(3)).session_index
    if index != (before.session_index if before else 0) + 1:
        losses.append(f"the next session has the index {index}")
    session.close()
    return losses


def begin(folder: Path, old: Snapshot | None) -> None:
    """Let there be nothing, or an old save file with a backup."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    if old is not None:
        XmlStore(folder / "session.xml").save(attrs.evolve(old, session_index=1))
        XmlStore(folder / "session.xml").save(old)


def kill_at_each(name: str, old: Snapshot | None, share: int, step: int) -> tuple[int, list[str]]:
    """Kill a child at every ``step``-th of its system calls; return how many it has, and what was lost."""
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as place:
        folder, trace = Path(place) / "made" / "session", Path(place) / "trace"
        begin(folder, old)
        live(folder)  # warms up, so that every child makes the same calls
        begin(folder, old)
        calls = run_traced(child(folder), trace).calls
        for position in range(share, len(calls), step):
            call = calls[position]
            begin(folder, old)
            ending = run_traced(child(folder), trace, f"inject={call.name}:signal=SIGKILL:when={call.number}")
            found, made = saves_found(folder, old), saves_made(calls[:position])
            if ending.status != -signal.SIGKILL:
                lost = [f"not killed, but ended with {ending.status}"]
            elif found != made:
                lost = [f"{found} where {made} saves were made"]
            else:
                lost = start_again(folder)
            losses.extend(f"{name}, killed at call {position}, {call.name} {call.number}: {loss}" for loss in lost)
    return len(calls), losses


def kill_share(share: int, shares: int, scale: Scale) -> Outcome:
    """Kill at one share of the system calls."""
    step = shares * (SAMPLE if scale is Scale.FAST else 1)
    first, first_losses = kill_at_each("first saves", None, share, step)
    later, later_losses = kill_at_each("overwrites", OLD, share, step)
    return Outcome(
        len(range(share, first, step)) + len(range(share, later, step)),
        (*first_losses, *later_losses),
        f"{first} system calls of a first run, {later} of a later one",
    )


def kill(scale: Scale) -> Outcome:
    """Kill at every system call."""
    return share_out(kill_share, scale)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "killed at each system call of a first run's saves and of overwrites, then started again",
        "a file neither old nor new, a user id, an index, a temporary file after the next start",
        kill,
    ),
)
