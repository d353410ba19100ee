"""Compares eight threads, on one shared session or on eight, with one thread that tracks the same number of events."""

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
"""The total number of events, regardless of the number of threads."""
ROUNDS = 5
_TRIES = 4
"""The number of tries per round. Only the fastest is used, since other load on the machine can only add time."""


def measure() -> list[Row]:
    """Measure all three setups in each round."""
    sessions = [ClientSession(store=MemoryStore()) for _ in range(THREADS)]
    one, shared, separate = ([sessions[0]], [sessions[0]] * THREADS, sessions)
    times: dict[str, list[float]] = {"one": [], "shared": [], "separate": []}
    track_all(one, EVENTS)
    for _ in range(ROUNDS):
        tries = [[track_all(threads, EVENTS) for threads in (one, shared, separate)] for _ in range(_TRIES)]
        for durations, best in zip(times.values(), map(min, zip(*tries, strict=True)), strict=True):
            durations.append(best)
    return [
        Row.of_rounds(name, times[key], times["one"], against="one thread", unit="ns", bar=Bar(1.15))
        for name, key in (("8 threads on one session", "shared"), ("8 threads on 8 sessions", "separate"))
    ]


def track_all(sessions: Sequence[ClientSession], events: int) -> float:
    """Track events with one thread per item of ``sessions``, and return the nanoseconds per event."""
    barrier = threading.Barrier(len(sessions))
    starts: list[float] = []
    ends: list[float] = []

    def work(session: ClientSession) -> None:
        event_id, track = str(uuid.uuid4()), session.get_session_context
        barrier.wait()
        starts.append(time.perf_counter())  # taken here because the main thread might run too late
        for _ in repeat(None, events // len(sessions)):
            track(event_id)
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (max(ends) - min(starts)) * 1e9 / events
