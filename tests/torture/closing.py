"""Closing a session while the checker's thread ticks it, and that tick is held up."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

from client_session import ClientSession
from client_session.testing import ManualClock
from client_session_persistence import XmlStore
from torture.fault import Scale

if TYPE_CHECKING:
    from pathlib import Path

    from client_session_persistence import Snapshot

PATIENCE = 20.0


def _checkers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "client-session-checker"]


class _Gate:
    """What the checker's thread comes to, and is held up at."""

    def __init__(self) -> None:
        self.reached, self.left = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        """Wait, if this is the checker's thread."""
        if threading.current_thread() in _checkers():
            self.reached.set()
            self.left.wait(PATIENCE)


class _Slow(XmlStore):
    """Holds up what ticks save."""

    __slots__ = ("gate",)

    gate: _Gate

    def save(self, snapshot: Snapshot) -> None:
        """Wait at the gate."""
        self.gate.pass_through()
        super().save(snapshot)


class _Counted(ClientSession):
    """Counts its ticks."""

    __slots__ = ("ticks",)

    def tick(self) -> None:
        """Count."""
        self.ticks = getattr(self, "ticks", 0) + 1
        super().tick()


def _close_beside_a_tick(folder: Path, number: int, *, in_store: bool) -> str:
    gate, clock = _Gate(), ManualClock()
    store = _Slow(folder / f"{number}.xml") if in_store else XmlStore(folder / f"{number}.xml")
    if isinstance(store, _Slow):
        store.gate = gate
    session = _Counted(
        store=store,
        clock=clock,
        check_interval=0.001,
        continue_on_restart=in_store,
        on_session_end=None if in_store else lambda _: gate.pass_through(),
    )
    session.get_session_context(uuid.uuid4())
    session.get_session_context(uuid.uuid4())
    clock.advance(600)
    if not gate.reached.wait(PATIENCE):
        return "no tick came"
    closing = threading.Thread(target=session.close)
    closing.start()
    if in_store:
        gate.left.set()  # a store that is at work is waited for; a callback is not
    closing.join(PATIENCE)
    hung = closing.is_alive()
    ticks = session.ticks
    gate.left.set()
    for thread in _checkers():
        thread.join(PATIENCE)
    if hung:
        return "close() waited for the tick"
    if _checkers():
        return "the checker's thread ticks on"
    return f"{session.ticks - ticks} ticks after close()" if session.ticks > ticks + in_store else ""


def beside_a_tick(folder: Path, scale: Scale) -> list[str]:
    """Close while a tick is held up in the store, and in a callback."""
    times = 100 if scale is Scale.WHOLE else 5
    return [
        _close_beside_a_tick(folder, 2 * number + in_store, in_store=in_store)
        for number in range(times)
        for in_store in (False, True)
    ]
