"""What visitors cost: eight processes on Redis, compared with a bare GET and SET by the same client; and memory.

The servers run in temporary folders. ``python -m benchmarks.visitors NUMBER`` prints what that many visitors take in
`MemoryStates`, as JSON. `measure` runs it in a separate process, so that only the visitors contribute to its memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import attrs
import psutil
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.results import Bar, Row
from client_session.visitors import VisitorSessions
from client_session.visitors.value import decode
from client_session_persistence import MemoryStates, PostgresStates, RedisStates, SqliteStates
from engines import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.pool import Pool
    from multiprocessing.queues import SimpleQueue

    from client_session_persistence import StateStore

    Task = Callable[..., "Span"]
    """Its last argument is the number of events."""

VERSIONED = ("redis", "psycopg")
PROCESSES = 8
KEEP_SECONDS = 34_560_000
"""How long visitors are kept by default: 400 days."""
SAME_PROCESS = "visitors who stay with one process"
RANDOM_PROCESS = "visitors at random processes"
GET_AND_SET = "GET + SET"
SHARED = "one visitor at 8 processes"


@attrs.frozen
class Scale:
    """How much to measure."""

    visitors: int = 8_000
    events: int = 1_000
    """The number of events of each process in each round."""
    rounds: int = 20
    shared_inputs: int = 10_000
    """The number of inputs of each process for the visitor that all of them share."""
    stored: int = 100_000
    """The number of visitors whose memory in Redis is measured."""
    in_memory: int = 1_000_000
    """The number of visitors in `MemoryStates`."""


def measure(scale: Scale = Scale()) -> list[Row]:  # immutable
    """Measure everything that the installed servers allow."""
    program = servers.redis_program() or servers.valkey_program()
    assert program, "install redis-server, as `make bench-visitors` does"  # noqa: S101  # nothing to compare with
    with servers.run_redis(program) as server:
        place = str(server.folder / "socket")
        with connect_redis(place) as client:
            rows = [*compare(scale, place, client), *share(scale, place), *measure_redis(scale.stored, client)]
    rows += measure_memory(scale.in_memory)
    with tempfile.TemporaryDirectory() as folder:
        rows += time_store(scale, "SqliteStates", f"{folder}/visitors.db")
    if servers.postgres_program("postgres"):
        with servers.run_postgres() as server:
            place = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres connect_timeout=2"
            rows += time_store(scale, "PostgresStates", place)
    return rows


# On eight processes.


class Span(NamedTuple):
    """How long one host's events took."""

    begin: float
    end: float
    cpu: float
    """The CPU seconds that the host used."""

    @classmethod
    def of(cls, work: Callable[[], object]) -> Self:
        """Run the work once all hosts are ready."""
        _start.wait()
        begin, cpu = time.monotonic(), time.process_time()
        work()
        return cls(begin, time.monotonic(), time.process_time() - cpu)


@attrs.frozen
class Figures:
    """What an event takes, in each round."""

    elapsed: list[float] = attrs.Factory(list)
    """Microseconds per event of all hosts together."""
    cpu: list[float] = attrs.Factory(list)
    """CPU microseconds of the host and the server. On a busy machine, this varies less."""
    round_trips: list[float] = attrs.Factory(list)


class Host:
    """What a process keeps between two rounds: its connection, and the values that its sessions have cached."""

    def __init__(self, number: int, kind: str, place: str) -> None:
        """Connect to a server, or open a database. Hosts are numbered from 0."""
        self.number = number
        self.client: Any = None
        self._states: StateStore
        match kind:
            case "RedisStates":
                self.client = connect_redis(place)
                self._states = RedisStates(self.client)
            case "SqliteStates":
                self._states = SqliteStates(place)
            case _:
                self._states = PostgresStates(psycopg.connect(place))
        self._sessions: dict[str, VisitorSessions] = {}

    def sessions(self, namespace: str) -> VisitorSessions:
        """Return this process's sessions of a namespace."""
        if namespace not in self._sessions:
            self._sessions[namespace] = VisitorSessions(self._states, namespace=namespace)
        return self._sessions[namespace]


_host: Host
_start: Any


def _open_host(start: object, numbers: SimpleQueue[int], kind: str, place: str) -> None:
    global _host, _start  # a process of a pool has no other place
    _start, _host = start, Host(numbers.get(), kind, place)


@contextlib.contextmanager
def run_hosts(kind: str, place: str) -> Iterator[Pool]:
    """Yield a pool of `PROCESSES` hosts. Tasks wait for each other at the start, so each host gets one of them."""
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(PROCESSES):
        numbers.put(number)
    with context.Pool(PROCESSES, _open_host, (context.Barrier(PROCESSES), numbers, kind, place)) as pool:
        yield pool


def track_events(namespace: str, visitors: int, events: int) -> Span:
    """Track events of random visitors."""
    return _track_events(namespace, range(visitors), events)


def track_own_events(namespace: str, visitors: int, events: int) -> Span:
    """Track events of random ones of the visitors who stay with this host; see `track_events`."""
    return _track_events(namespace, range(_host.number, visitors, PROCESSES), events)


def _track_events(namespace: str, visitors: range, events: int) -> Span:
    sessions = _host.sessions(namespace)
    todo = [(f"visitor {random.choice(visitors)}", str(uuid.uuid4())) for _ in range(events)]  # noqa: S311  # not secret

    def work() -> None:
        for visitor, event_id in todo:
            sessions.of(visitor).get_session_context(event_id)

    return Span.of(work)


def get_and_set(value: bytes, visitors: int, events: int) -> Span:
    """Get and set random visitors' values, which is the least that any server-side session needs."""
    todo = [key_of("bare", random.randrange(visitors)) for _ in range(events)]  # noqa: S311  # not secret
    client = _host.client

    def work() -> None:
        for key in todo:
            client.get(key)
            client.set(key, value, px=KEEP_SECONDS * 1000)

    return Span.of(work)


def track_shared(namespace: str, inputs: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Track events of the visitor that all hosts share. Return the seconds of each, and the indexes handed out."""
    visitor = _host.sessions(namespace).of("visitor")
    seconds: list[float] = []
    indexes: list[tuple[int, int]] = []
    todo = [str(uuid.uuid4()) for _ in range(inputs)]
    _start.wait()
    for event_id in todo:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            context = visitor.get_session_context(event_id)
            indexes.append((context.session_index, context.event_index))
        seconds.append(time.monotonic() - begin)
    return seconds, indexes


def run_round(pool: Pool, task: Task, *arguments: object, events: int) -> tuple[float, float]:
    """Run a task on all hosts at once. Return the microseconds per event of all of them, and their CPU microseconds."""
    spans = pool.starmap(task, [(*arguments, events)] * PROCESSES, chunksize=1)
    elapsed = max(span.end for span in spans) - min(span.begin for span in spans)
    scale = 1e6 / (events * PROCESSES)
    return elapsed * scale, sum(span.cpu for span in spans) * scale


def compare(scale: Scale, place: str, client: Any) -> list[Row]:  # noqa: ANN401  # redis-py's types are incomplete
    """Alternate between bare calls, visitors at random processes, and visitors who stay with one."""
    tasks: dict[str, tuple[Task, tuple[Any, ...]]] = {
        GET_AND_SET: (get_and_set, (usual_value(), scale.visitors)),
        RANDOM_PROCESS: (track_events, ("random", scale.visitors)),
        SAME_PROCESS: (track_own_events, ("same", scale.visitors)),
    }
    figures = {name: Figures() for name in tasks}
    events = scale.events * PROCESSES
    with run_hosts("RedisStates", place) as pool:
        for name in (RANDOM_PROCESS, SAME_PROCESS):  # until most visitors have a session
            task, arguments = tasks[name]
            run_round(pool, task, *arguments, events=2 * scale.visitors // PROCESSES)
        for number in range(scale.rounds):
            for name, (task, arguments) in sorted(tasks.items(), reverse=number % 2 == 1):
                scripts, server_cpu = _server_figures(client)
                elapsed, cpu = run_round(pool, task, *arguments, events=scale.events)
                scripts_after, server_cpu_after = _server_figures(client)
                figures[name].elapsed.append(elapsed)
                figures[name].cpu.append(cpu + (server_cpu_after - server_cpu) * 1e6 / events)
                figures[name].round_trips.append((scripts_after - scripts) / events)
    bare = figures[GET_AND_SET]
    rows: list[Row] = []
    for name, limit in ((SAME_PROCESS, 1.2), (RANDOM_PROCESS, 0.7)):
        ours, bar = figures[name], Bar(limit, at_least=True)
        rows += [
            Row.of_rounds(name, ours.elapsed, bare.elapsed, against=GET_AND_SET, unit="µs", bar=bar, speedup=True),
            Row.of_rounds(f"{name}: CPU", ours.cpu, bare.cpu, against=GET_AND_SET, unit="µs", speedup=True),
            Row.of_values(f"{name}: round trips", [statistics.median(ours.round_trips)], unit=""),
        ]
    return rows


def _server_figures(client: Any) -> tuple[int, float]:  # noqa: ANN401  # redis-py's types are incomplete
    """Return how many scripts the server has run, and its CPU seconds."""
    scripts = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    cpu = client.info("cpu")
    return int(scripts), cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]


def share(scale: Scale, place: str) -> list[Row]:
    """Let all hosts track events of one visitor at once."""
    with run_hosts("RedisStates", place) as pool:
        results = pool.starmap(track_shared, [("shared", scale.shared_inputs)] * PROCESSES, chunksize=1)
    times = sorted(itertools.chain.from_iterable(seconds for seconds, _ in results))
    indexes = sorted(itertools.chain.from_iterable(found for _, found in results))
    chain = [(1, number + 1) for number in range(len(indexes))]
    return [
        Row.of_values(f"{SHARED}: failed inputs of {len(times):,}", [len(times) - len(indexes)], unit="", bar=Bar(0)),
        Row.of_values(f"{SHARED}: missing or repeated indexes", [len(set(chain) - set(indexes))], unit="", bar=Bar(0)),
        *(
            Row.of_values(f"{SHARED}: {name}", [times[int(part * len(times))] * 1e3], unit="ms", bar=bar)
            for name, part, bar in (("p50", 0.5, None), ("p99", 0.99, None), ("p99.9", 0.999, Bar(100)))
        ),
        Row.of_values(f"{SHARED}: longest", [times[-1] * 1e3], unit="ms"),
    ]


def time_store(scale: Scale, kind: str, place: str) -> list[Row]:
    """Measure visitors at random processes on another engine."""
    with run_hosts(kind, place) as pool:
        times = [
            run_round(pool, track_events, "random", scale.visitors, events=scale.events)[0]
            for _ in range(max(1, scale.rounds // 5))
        ]
    return [Row.of_values(f"{RANDOM_PROCESS}, {kind}", times, unit="µs")]


# Memory.


def connect_redis(place: str) -> Any:  # noqa: ANN401  # redis-py's types are incomplete
    """Return a client, with the limits that `RedisStates` requires."""
    return redis.Redis(unix_socket_path=place, socket_timeout=1.0, retry=Retry(NoBackoff(), 1))


def key_of(namespace: str, number: int) -> str:
    """Return a key that is as long as those of visitors."""
    return f"client-session:{namespace}:{uuid.UUID(int=number)}"


def value_after(sessions: int, events: int) -> bytes:
    """Return the value of a visitor who has had some sessions of some events each."""
    states = MemoryStates()
    tracked = VisitorSessions(states, namespace="bare")
    visitor = tracked.of(uuid.UUID(int=0))
    for _ in range(sessions):
        visitor.start_new_session()
        for _ in range(events):
            visitor.get_session_context(uuid.uuid4())
    value, _ = states.read(key_of("bare", 0))
    assert value is not None  # noqa: S101  # it was just stored
    return value


def usual_value() -> bytes:
    """Return the value of a visitor in the usual case: in the second session, with more than eight events."""
    return value_after(2, 12)


def measure_redis(stored: int, client: Any) -> list[Row]:  # noqa: ANN401  # redis-py's types are incomplete
    """Measure the bytes per visitor in Redis, including the key and the tables of keys."""
    rows: list[Row] = []
    for name, value, bar in (
        ("bytes per visitor in Redis", usual_value(), Bar(400)),
        ("the same, eight sessions of one event", value_after(9, 1), None),
    ):
        client.flushall()
        before = client.info("memory")["used_memory"]
        for first in range(0, stored, 10_000):
            pipeline = client.pipeline(transaction=False)
            for number in range(first, min(first + 10_000, stored)):
                pipeline.set(key_of("bare", number), value, px=KEEP_SECONDS * 1000)
            pipeline.execute()
        total = (client.info("memory")["used_memory"] - before) / stored
        own = client.memory_usage(key_of("bare", 0))
        rows += [
            Row.of_values(name, [total], unit="bytes", bar=bar),
            Row.of_values(f"{name}: MEMORY USAGE", [own], unit="bytes"),
        ]
    return rows


def measure_memory(visitors: int) -> list[Row]:
    """Measure `MemoryStates` in a separate process."""
    command = [sys.executable, "-m", "benchmarks.visitors", str(visitors)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)  # noqa: S603  # this module
    figures = json.loads(process.stdout)
    return [
        Row.of_values(
            "bytes per visitor in MemoryStates", [figures["resident"] / visitors], unit="bytes", bar=Bar(600)
        ),
        Row.of_values(f"{visitors:,} visitors in one process: resident", [figures["resident"] / 2**20], unit="MiB"),
        Row.of_values(f"{visitors:,} visitors in one process: event", [figures["event"]], unit="µs"),
    ]


def main() -> None:
    """Measure visitors in this process's memory, and print the figures as JSON."""
    visitors = int(sys.argv[1])
    states, usual = MemoryStates(), decode(key_of("bare", 0), usual_value())
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(visitors):
        key = key_of("bare", number)
        states.swap(key, None, usual.encode(key, 0), KEEP_SECONDS)
    sessions = VisitorSessions(states, namespace="bare")
    tracked = random.sample(range(visitors), min(visitors, 100_000))
    begin = time.perf_counter()
    for number in tracked:
        sessions.of(uuid.UUID(int=number)).get_session_context(uuid.uuid4())
    seconds = time.perf_counter() - begin
    resident = process.memory_info().rss - before
    print(json.dumps({"resident": resident, "event": seconds * 1e6 / len(tracked)}))  # noqa: T201  # read by `measure_memory`


if __name__ == "__main__":
    main()
