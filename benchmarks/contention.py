"""Eight threads on one session, and eight threads on eight, against one thread that does all of their events."""

from __future__ import annotations

import threading
import time
import uuid
from itertools import repeat
from typing import TYPE_CHECKING

from benchmarks.results import Bar, Row
from client_session import ClientSession
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 8
EVENTS = 200_000
"""In total, whatever the number of threads."""
ROUNDS = 5
_TRIES = 4
"""Of each round, the best: whatever else the machine does only adds."""


def measure() -> list[Row]:
    """Measure in turn."""
    sessions = [ClientSession(store=MemoryStore()) for _ in range(THREADS)]
    one, shared, apart = ([sessions[0]], [sessions[0]] * THREADS, sessions)
    times: dict[str, list[float]] = {"one": [], "shared": [], "apart": []}
    track_all(one, EVENTS)
    for _ in range(ROUNDS):
        tries = [[track_all(threads, EVENTS) for threads in (one, shared, apart)] for _ in range(_TRIES)]
        for own, best in zip(times.values(), map(min, zip(*tries, strict=True)), strict=True):
            own.append(best)
    return [
        Row.of_rounds(name, times[key], times["one"], against="one thread", unit="ns", bar=Bar(1.15))
        for name, key in (("8 threads on one session", "shared"), ("8 threads on 8 sessions", "apart"))
    ]


def track_all(sessions: Sequence[ClientSession], events: int) -> float:
    """Track events, evenly by one thread for each place in ``sessions``, and return the nanoseconds of one."""
    gate = threading.Barrier(len(sessions))
    begun: list[float] = []
    done: list[float] = []

    def work(session: ClientSession) -> None:
        event_id, track = str(uuid.uuid4()), session.get_session_context
        gate.wait()
        begun.append(time.perf_counter())  # not on the main thread, which may get its turn late
        for _ in repeat(None, events // len(sessions)):
            track(event_id)
        done.append(time.perf_counter())

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (max(done) - min(begun)) * 1e9 / events
