"""Close a session while the checker thread is blocked in one of the session's ticks."""

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

HANG_SECONDS = 20.0


def _checker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "client-session-checker"]


class _Gate:
    """A gate that blocks the checker thread until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Block if called on the checker thread."""
        if threading.current_thread() in _checker_threads():
            self.reached.set()
            self.opened.wait(HANG_SECONDS)


class _BlockingStore(XmlStore):
    """A store that blocks when a tick saves."""

    __slots__ = ("gate",)

    gate: _Gate

    def save(self, snapshot: Snapshot) -> None:
        """Wait at the gate, then save."""
        self.gate.wait()
        super().save(snapshot)


class _TickCounter(ClientSession):
    """A session that counts its ticks."""

    __slots__ = ("ticks",)

    def tick(self) -> None:
        """Count the tick, then run it."""
        self.ticks = getattr(self, "ticks", 0) + 1
        super().tick()


def _close_during_tick(folder: Path, number: int, *, in_store: bool) -> str:
    gate, clock = _Gate(), ManualClock()
    store = _BlockingStore(folder / f"{number}.xml") if in_store else XmlStore(folder / f"{number}.xml")
    if isinstance(store, _BlockingStore):
        store.gate = gate
    session = _TickCounter(
        store=store,
        clock=clock,
        check_interval=0.001,
        continue_on_restart=in_store,
        on_session_end=None if in_store else lambda _: gate.wait(),
    )
    session.get_session_context(uuid.uuid4())
    session.get_session_context(uuid.uuid4())
    clock.advance(600)
    if not gate.reached.wait(HANG_SECONDS):
        return "no tick ran"
    closer = threading.Thread(target=session.close)
    closer.start()
    if in_store:
        gate.opened.set()  # close() waits for a busy store, but not for a callback
    closer.join(HANG_SECONDS)
    is_hung = closer.is_alive()
    ticks = session.ticks
    gate.opened.set()
    for thread in _checker_threads():
        thread.join(HANG_SECONDS)
    if is_hung:
        return "close() waited for the tick"
    if _checker_threads():
        return "the checker thread is still running"
    return f"{session.ticks - ticks} ticks after close()" if session.ticks > ticks + in_store else ""


def close_during_ticks(folder: Path, scale: Scale) -> list[str]:
    """Close sessions during ticks that are blocked in the store or in a callback."""
    repetitions = 100 if scale is Scale.FULL else 5
    return [
        _close_during_tick(folder, 2 * number + in_store, in_store=in_store)
        for number in range(repetitions)
        for in_store in (False, True)
    ]
