"""Up to 100,000 sessions in one process: memory, the checker's passes, idling, lateness, and the time of an event.

``python -m benchmarks.crowd`` prints the figures as JSON; `measure` runs it in a process of its own, whose memory and
threads are the crowd's alone.
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

from benchmarks.floor import Floor
from benchmarks.results import Bar, Row
from client_session import ClientSession
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (1, 1_000, 10_000, 100_000)
CROWD = SIZES[-1]
PASSES = 4
"""Of the checker, waited for at the default interval."""
INTERVAL = 15.0
_WITNESS_EVERY = 1_000
"""Sessions."""
_ROUNDS = 7
_TRIES = 10
_EVENTS = 2_000
"""Events of one try."""
_TRACED = 5_000
"""Sessions whose allocations are counted, which takes several times as long as making them."""


class Witness:
    """Notes when it is ticked; many of them stand in the checker's queue, between the sessions."""

    check_interval = INTERVAL

    def __init__(self) -> None:
        """Be ticked from now on."""
        self.times: list[float] = []
        SHARED_CHECKER.start(self, time.monotonic())

    def tick(self) -> None:
        """Note the time."""
        self.times.append(time.monotonic())


def measure() -> list[Row]:
    """Measure in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.crowd"], check=True, stdout=subprocess.PIPE)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return [
        Row.of_values("memory of a session, resident", found["resident"], unit="KiB", bar=Bar(2)),
        Row.of_values("memory of a session, allocated", found["allocated"], unit="KiB"),
        Row.of_values("a pass over 100,000 sessions", found["passes"], unit="s", bar=Bar(0.1)),
        Row.of_values("100,000 idle sessions, of a core", found["idle"], unit="%", bar=Bar(2)),
        Row.of_values("ticks of 100,000 late, of the interval", found["lateness"], unit="%", bar=Bar(5)),
        Row.of_values("checker threads of 100,000 sessions", found["threads"], unit="", bar=Bar(1)),
        *(
            Row.of_rounds(
                f"an event among {size:,} sessions",
                found[f"among {size}"],
                found["among 1"],
                against="an event of a lone session",
                unit="ns",
                bar=Bar(1.15),
            )
            for size in SIZES[1:]
        ),
        Row.of_rounds(
            "events of 100,000 sessions in turn",
            found["in turn"],
            found["floors in turn"],
            against="of 100,000 floors in turn",
            unit="ns",
        ),
    ]


def main() -> None:
    """Measure, and print the figures by name."""
    found: dict[str, list[float]] = {}
    process = psutil.Process()
    sessions = [_live_session()]
    found["among 1"] = _time_events(sessions[0])
    threads_before = threading.active_count() - 1  # the checker's
    before = process.memory_info().rss
    witnesses: list[Witness] = []
    for size in SIZES[1:]:
        while len(sessions) < size:
            sessions.append(_live_session())
            if len(sessions) % _WITNESS_EVERY == 0:
                witnesses.append(Witness())
        if size == CROWD:
            found["resident"] = [(process.memory_info().rss - before) / CROWD / 1024]
            found["threads"] = [threading.active_count() - threads_before]
        found[f"among {size}"] = _time_events(sessions[size // 2])
    found |= _idle(witnesses)
    found |= _in_turn(sessions)
    found["allocated"] = [_allocated()]
    print(json.dumps(found))  # noqa: T201  # what `measure` reads


def _live_session() -> ClientSession:
    session = ClientSession(store=MemoryStore())
    session.get_session_context(str(uuid.uuid4()))
    return session


def _time_events(session: ClientSession) -> list[float]:
    timer = timeit.Timer(
        "track(event_id)", globals={"track": session.get_session_context, "event_id": str(uuid.uuid4())}
    )
    return [min(timer.repeat(_TRIES, _EVENTS)) * 1e9 / _EVENTS for _ in range(_ROUNDS)]


def _idle(witnesses: Sequence[Witness]) -> dict[str, list[float]]:
    """Sit still for some passes of the checker."""
    gc.collect()
    for witness in witnesses:
        witness.times.clear()
    wall, cpu = time.monotonic(), time.process_time()
    time.sleep(PASSES * INTERVAL)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    times = [witness.times for witness in witnesses]
    gaps = [after - before for own in times for before, after in itertools.pairwise(own)]
    return {
        "idle": [share * 100],
        "passes": spans(sorted(itertools.chain(*times)), len(witnesses)),
        "lateness": [max(0.0, (max(gaps) / INTERVAL - 1) * 100)],
    }


def spans(times: Sequence[float], count: int) -> list[float]:
    """Return how long each pass took, from its first tick to its last; one that is not whole is left out."""
    starts = [
        0,
        *(after for after in range(1, len(times)) if times[after] - times[after - 1] > INTERVAL / 2),
        len(times),
    ]
    passes = [times[begin:end] for begin, end in itertools.pairwise(starts)]
    return [ticks[-1] - ticks[0] for ticks in passes if len(ticks) == count]


def _in_turn(sessions: Sequence[ClientSession]) -> dict[str, list[float]]:
    """Let an event of each session come, in no order, so that none of them is in the processor's caches."""
    floors = [Floor() for _ in sessions]
    event_id = str(uuid.uuid4())
    found: dict[str, list[float]] = {"in turn": [], "floors in turn": []}
    crowds: dict[str, Sequence[ClientSession | Floor]] = {"in turn": sessions, "floors in turn": floors}
    for _ in range(_ROUNDS):
        for name, tracked in crowds.items():
            shuffled = random.sample(tracked, len(tracked))
            begin = time.perf_counter()
            for one in shuffled:
                one.get_session_context(event_id)
            found[name].append((time.perf_counter() - begin) * 1e9 / len(shuffled))
    return {name: times[1:] for name, times in found.items()}  # in the first round, the floors begin


def _allocated() -> float:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [_live_session() for _ in range(_TRACED)]
    after, _ = tracemalloc.get_traced_memory()
    return (after - before) / len(kept) / 1024


if __name__ == "__main__":
    main()
