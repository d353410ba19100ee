"""Up to 100,000 sessions in one process: memory, checker passes, idle CPU use, tick delay and time per event.

Tick delay is the amount by which the time between two ticks of a session exceeds the check interval, as a percentage
of that interval.

``python -m benchmarks.many_sessions`` prints the figures as JSON. `measure` runs it in a separate process, so that
only the sessions contribute to the measured memory and threads.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import subprocess
import sys
import threading
import time
import timeit
import tracemalloc
import uuid
from typing import TYPE_CHECKING

import psutil

from benchmarks.minimal import MinimalSession
from benchmarks.results import Bar, Row
from client_session import ClientSession
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (1, 1_000, 10_000, 100_000)
LARGEST = SIZES[-1]
PASSES = 4
"""The number of checker passes to wait for, at the default interval."""
INTERVAL = 15.0
_SESSIONS_PER_PROBE = 1_000
_ROUNDS = 7
_TRIES = 10
_EVENTS = 2_000
"""The number of events per try."""
_TRACED_SESSIONS = 5_000
"""The number of sessions whose allocations are traced; tracing makes construction several times slower."""


class TickProbe:
    """Records the time of each of its ticks. Probes are spread evenly among the sessions in the checker's queue."""

    check_interval = INTERVAL

    def __init__(self) -> None:
        """Start ticking."""
        self.times: list[float] = []
        SHARED_CHECKER.start(self, time.monotonic())

    def tick(self) -> None:
        """Record the time."""
        self.times.append(time.monotonic())


def measure() -> list[Row]:
    """Measure in a separate process."""
    process = subprocess.run([sys.executable, "-m", "benchmarks.many_sessions"], check=True, stdout=subprocess.PIPE)
    figures: dict[str, list[float]] = json.loads(process.stdout)
    return [
        Row.of_values("resident memory per session", figures["resident"], unit="KiB", bar=Bar(2)),
        Row.of_values("allocated memory per session", figures["allocated"], unit="KiB"),
        Row.of_values("checker pass over 100,000 sessions", figures["passes"], unit="s", bar=Bar(0.1)),
        Row.of_values("CPU of 100,000 idle sessions, % of a core", figures["idle"], unit="%", bar=Bar(2)),
        Row.of_values("relative tick delay of 100,000 sessions", figures["lateness"], unit="%", bar=Bar(5)),
        Row.of_values("checker threads for 100,000 sessions", figures["threads"], unit="", bar=Bar(1)),
        *(
            Row.of_rounds(
                f"event with {size:,} sessions open",
                figures[f"event with {size}"],
                figures["event with 1"],
                against="event with one session open",
                unit="ns",
                bar=Bar(1.15),
            )
            for size in SIZES[1:]
        ),
        Row.of_rounds(
            "events of 100,000 sessions in random order",
            figures["shuffled"],
            figures["minimal, shuffled"],
            against="minimal implementation",
            unit="ns",
        ),
    ]


def main() -> None:
    """Measure, and print the figures as JSON."""
    figures: dict[str, list[float]] = {}
    process = psutil.Process()
    sessions = [_active_session()]
    figures["event with 1"] = _time_events(sessions[0])
    threads_before = threading.active_count() - 1  # excluding the checker thread
    before = process.memory_info().rss
    probes: list[TickProbe] = []
    for size in SIZES[1:]:
        while len(sessions) < size:
            sessions.append(_active_session())
            if len(sessions) % _SESSIONS_PER_PROBE == 0:
                probes.append(TickProbe())
        if size == LARGEST:
            figures["resident"] = [(process.memory_info().rss - before) / LARGEST / 1024]
            figures["threads"] = [threading.active_count() - threads_before]
        figures[f"event with {size}"] = _time_events(sessions[size // 2])
    figures |= _measure_idle(probes)
    figures |= _time_shuffled_events(sessions)
    figures["allocated"] = [_measure_allocation()]
    print(json.dumps(figures))  # noqa: T201  # read by `measure`


def _active_session() -> ClientSession:
    session = ClientSession(store=MemoryStore())
    session.get_session_context(str(uuid.uuid4()))
    return session


def _time_events(session: ClientSession) -> list[float]:
    timer = timeit.Timer(
        "track(event_id)", globals={"track": session.get_session_context, "event_id": str(uuid.uuid4())}
    )
    return [min(timer.repeat(_TRIES, _EVENTS)) * 1e9 / _EVENTS for _ in range(_ROUNDS)]


def _measure_idle(probes: Sequence[TickProbe]) -> dict[str, list[float]]:
    """Stay idle for several checker passes, and measure CPU use, pass durations and tick delay."""
    gc.collect()
    for probe in probes:
        probe.times.clear()
    wall, cpu = time.monotonic(), time.process_time()
    time.sleep(PASSES * INTERVAL)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    times = [probe.times for probe in probes]
    gaps = [after - before for probe in probes for before, after in itertools.pairwise(probe.times)]
    return {
        "idle": [share * 100],
        "passes": pass_durations(sorted(itertools.chain(*times)), len(probes)),
        "lateness": [max(0.0, (max(gaps) / INTERVAL - 1) * 100)],
    }


def pass_durations(times: Sequence[float], count: int) -> list[float]:
    """Return the seconds from the first to the last tick of each pass, for passes with exactly ``count`` ticks."""
    starts = [
        0,
        *(after for after in range(1, len(times)) if times[after] - times[after - 1] > INTERVAL / 2),
        len(times),
    ]
    passes = [times[begin:end] for begin, end in itertools.pairwise(starts)]
    return [ticks[-1] - ticks[0] for ticks in passes if len(ticks) == count]


def _time_shuffled_events(sessions: Sequence[ClientSession]) -> dict[str, list[float]]:
    """Track one event in each session, in random order, so that the sessions are not in the CPU's caches."""
    minimal = [MinimalSession() for _ in sessions]
    event_id = str(uuid.uuid4())
    figures: dict[str, list[float]] = {"shuffled": [], "minimal, shuffled": []}
    groups: dict[str, Sequence[ClientSession | MinimalSession]] = {"shuffled": sessions, "minimal, shuffled": minimal}
    for _ in range(_ROUNDS):
        for name, tracked in groups.items():
            shuffled = random.sample(tracked, len(tracked))
            begin = time.perf_counter()
            for session in shuffled:
                session.get_session_context(event_id)
            figures[name].append((time.perf_counter() - begin) * 1e9 / len(shuffled))
    # The first round is discarded, because it starts the minimal sessions.
    return {name: times[1:] for name, times in figures.items()}


def _measure_allocation() -> float:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    sessions = [_active_session() for _ in range(_TRACED_SESSIONS)]
    after, _ = tracemalloc.get_traced_memory()
    return (after - before) / len(sessions) / 1024


if __name__ == "__main__":
    main()
