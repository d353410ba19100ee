"""Visitors when the store fails: calls end soon, with a clear error; no event counts twice; nothing tells the key."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

pytest.importorskip("psycopg", reason="needs psycopg, and libpq", exc_type=ImportError)

import psycopg
import psycopg_pool
import redis

pytest.importorskip("snowplow_tracker", reason="snowplow-tracker is not installed (extra: snowplow)")

from snowplow_tracker.events.structured_event import StructuredEvent  # imported after the skip

from client_session.input_log import REMEMBERED_EVENTS
from client_session.trackers.snowplow import SessionTracker
from client_session.visitors import NewerStateError, VisitorSessions
from client_session_persistence import MemoryStates, PostgresStates, RedisStates, SqliteStates, StoreError
from collector import RecordingEmitter
from engines import servers, stores
from engines.failures import failure_of, retried
from engines.proxy import Fault, Proxy
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_session import InputRecord, SessionContext, SessionSummary
    from client_session.visitors import VisitorSession
    from client_session_persistence import StateStore

KEY = "anna-4711@example.com"
NETWORKED = ("redis", "valkey", "postgres pool", "async redis", "async postgres pool")
REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "visitors.md"


@pytest.fixture(scope="module")
def running() -> Iterator[stores.Servers]:
    """Yield servers that no test stops."""
    started = stores.Servers()
    yield started
    started.close()


class Host:
    """A host that handles a visitor's inputs, and everything that it reports. Each test has a namespace of its own."""

    def __init__(self, states: StateStore, namespace: str, **settings: Any) -> None:  # noqa: ANN401
        """Create the sessions with these settings."""
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.inputs: list[InputRecord] = []
        self.sessions = VisitorSessions(
            states,
            namespace=namespace,
            on_session_start=self.started.append,
            on_session_end=self.ended.append,
            on_input=self.inputs.append,
            **settings,
        )
        self.visitor = self.sessions.of(KEY)

    def track(self, number: int) -> SessionContext:
        """Track an event."""
        return self.visitor.get_session_context(event_id(number))

    def failure(self, call: Callable[[], object] | None = None) -> OSError | StoreError:
        """Return the error of a call, by default of an event, after checking that it says nothing of the visitor."""
        return failure_of(call or (lambda: self.track(999)), *secrets(self.visitor))


def secrets(visitor: VisitorSession) -> tuple[str, ...]:
    """Return what neither logs nor errors may contain: the key, and the user id, which is a part of the stored key."""
    return KEY, "4711", visitor.user_id, visitor.user_id.replace("-", "")


@pytest.fixture
def namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture(autouse=True)
def no_leak(caplog: pytest.LogCaptureFixture, namespace: str) -> Iterator[None]:
    """After each test, check that neither this package nor a driver has logged anything about the visitor."""
    with caplog.at_level(logging.DEBUG):
        yield
    visitor = Host(MemoryStates(), namespace).visitor
    formatter = logging.Formatter()
    for record in caplog.get_records("call"):
        logged = formatter.format(record)
        assert not [secret for secret in secrets(visitor) if secret in logged], record.name


@pytest.fixture(params=NETWORKED)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of store in turn."""
    name: str = request.param
    return name


@pytest.fixture
def proxy(kind: str, running: stores.Servers) -> Iterator[Proxy]:
    """Yield a proxy in front of the server of this kind of store."""
    with Proxy(running.get(stores.server_name(kind)).port) as listening:
        yield listening


# Lost replies.


@pytest.mark.engines
def test_event_is_counted_once_if_the_reply_to_its_swap_is_lost(kind: str, proxy: Proxy, namespace: str) -> None:
    """The event that is sent again, by the caller or by the client itself, gets the entity that it would have got."""
    with stores.open_store(kind, proxy.port) as states:
        host = Host(states, namespace)
        host.track(0)
        for number in range(1, 6):
            proxy.disturb(Fault.CUT, host.visitor.user_id)
            context = retried(partial(host.track, number))
            assert (context.session_index, context.event_index) == (1, number + 1)
        assert proxy.lost == 5
        assert host.track(6).event_index == 7
        sequences = [record.sequence for record in host.inputs]
        assert sequences == sorted(set(sequences))


@pytest.mark.engines
def test_event_is_counted_once_if_the_reply_to_a_read_is_lost(kind: str, proxy: Proxy, namespace: str) -> None:
    """A host that does not know the visitor yet reads first; if that reply is lost, nothing has changed."""
    with stores.open_store(kind, proxy.port) as states:
        for number in range(3):
            host = Host(states, namespace)
            proxy.disturb(Fault.CUT, host.visitor.user_id)
            context = retried(partial(host.track, number))
            assert context.event_index == number + 1
            assert [record.sequence for record in host.inputs] == [number + 1]
        assert proxy.lost == 3


@pytest.mark.engines
def test_client_that_sends_again_by_itself_loses_no_report(running: stores.Servers, namespace: str) -> None:
    """If redis-py sends a swap again, the caller notices nothing: each input, start and end is reported once."""
    with Proxy(running.get("redis").port) as proxy, stores.open_store("redis", proxy.port) as states:
        host = Host(states, namespace)
        host.track(0)
        for number in range(1, 6):
            proxy.disturb(Fault.CUT, host.visitor.user_id)
            host.visitor.start_new_session()
            proxy.disturb(Fault.CUT, host.visitor.user_id)
            assert host.track(number).session_index == number + 1
        assert proxy.lost == 10
        assert [record.sequence for record in host.inputs] == list(range(1, 12))
        assert [summary.session_index for summary in host.ended] == list(range(1, 6))
        assert [context.session_index for context in host.started] == list(range(1, 7))


@pytest.mark.engines
@pytest.mark.parametrize("others", range(REMEMBERED_EVENTS + 1))
@pytest.mark.parametrize("kind", ["redis", "postgres pool"], indirect=True)
def test_event_is_sent_again_after_other_events(kind: str, proxy: Proxy, namespace: str, others: int) -> None:
    """An event whose reply was lost is recognized while it is among the visitor's last eight; then it counts again."""
    with stores.open_store(kind, proxy.port) as states:
        host, other = Host(states, namespace), Host(states, namespace)
        host.track(0)
        proxy.disturb(Fault.CUT, host.visitor.user_id, replies=2)  # the client's own try, too
        host.failure(lambda: host.track(1)) if kind == "redis" else retried(lambda: host.track(1))
        proxy.disturb(Fault.NONE, "", replies=0)
        for number in range(others):
            retried(partial(other.track, 100 + number))
        expected = 2 if others < REMEMBERED_EVENTS else others + 3
        assert retried(lambda: host.track(1)).event_index == expected
        last = others + 2 if others < REMEMBERED_EVENTS else others + 3
        assert retried(lambda: host.track(2)).event_index == last + 1


# Servers that are killed.


@pytest.mark.engines
@pytest.mark.parametrize("program", ["redis", "valkey"])
def test_server_without_persistence_forgets_visitors(program: str, namespace: str) -> None:
    """After the restart of a server that saves nothing, the same user begins again with session 1."""
    with stores.run(program) as server, stores.open_store(program, server.port) as states:
        host = Host(states, namespace)
        for number in range(3):
            host.track(number)
            host.visitor.start_new_session()
        server.kill()
        assert isinstance(host.failure(), ConnectionError | TimeoutError)
        server.start()
        context = retried(lambda: host.track(3))
        assert (context.user_id, context.session_index, context.event_index) == (host.visitor.user_id, 1, 1)
        assert context.previous_session_id is None


@pytest.mark.engines
@pytest.mark.parametrize(
    ("kind", "options"), [("redis", ("--appendonly", "yes", "--appendfsync", "always")), ("postgres pool", ())]
)
def test_killed_server_loses_no_event(kind: str, options: tuple[str, ...], namespace: str) -> None:
    """If a server that saves each swap is killed during traffic, every event counts once, although it is sent again."""
    stop, seen = threading.Event(), itertools.count()
    with stores.run(stores.server_name(kind), *options) as server, stores.open_store(kind, server.port) as states:
        sessions = VisitorSessions(states, namespace=namespace)
        indexes: list[list[int]] = [[] for _ in range(4)]
        has_traffic = threading.Event()

        def track(own: list[int], visitor: VisitorSession) -> None:
            while not (stop.is_set() and len(own) > 50):
                own.append(retried(partial(visitor.get_session_context, event_id(len(own)))).event_index)
                if next(seen) > 100:
                    has_traffic.set()

        threads = [
            threading.Thread(target=track, args=(own, sessions.of(f"{KEY}-{number}")))
            for number, own in enumerate(indexes)
        ]
        for thread in threads:
            thread.start()
        has_traffic.wait()
        for _ in range(3):
            server.kill()
            server.start()
        stop.set()
        for thread in threads:
            thread.join()
    assert [own == list(range(1, len(own) + 1)) for own in indexes] == [True] * 4


@pytest.mark.engines
def test_failover_repeats_numbers(namespace: str) -> None:
    """A replica that is promoted without the primary's last swaps repeats numbers, as the documentation shows."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(stores.run("redis"))
        link = stack.enter_context(Proxy(primary.port))
        replica = stack.enter_context(stores.run("redis", "--replicaof", "127.0.0.1", str(link.port)))
        admin = stack.enter_context(redis.Redis(port=replica.port))
        proxy = stack.enter_context(Proxy(primary.port))
        states = stack.enter_context(stores.open_store("redis", proxy.port))
        host = Host(states, namespace)
        lines: list[str] = []
        ids: dict[str | None, str] = {None: "none"}

        def track(number: int, remark: str = "") -> None:
            context = retried(lambda: host.track(number))
            name = ids.setdefault(context.session_id, "ABC"[len(ids) - 1])
            lines.append(
                f"| {number}{remark} | {name} | {context.session_index} | {context.event_index} "
                f"| {ids[context.previous_session_id]} |"
            )

        track(1)
        track(2)
        key = f"client-session:{namespace}:{host.visitor.user_id}"
        servers.wait_for(lambda: admin.get(key) == states.read(key)[0])
        lines.append("| *the replica receives nothing from now on* | | | | |")
        link.close()
        track(3)
        host.visitor.start_new_session()
        track(4)
        track(5)
        lines.append("| *the primary is lost, and the replica promoted* | | | | |")
        primary.kill()
        admin.replicaof("NO", "ONE")
        proxy.redirect(replica.port)
        track(6)
        track(5, ", sent again")
        host.visitor.start_new_session()
        track(7)
    assert "\n".join(lines) in REFERENCE.read_text(encoding="utf-8"), "\n".join(lines)


# Clocks.


@pytest.fixture
def traveled() -> Callable[[timedelta], Any]:
    """Return a function that moves this machine's wall clock, as this process sees it, in a ``with`` block."""
    time_machine = pytest.importorskip("time_machine", reason="time-machine is not installed")
    return lambda shift: time_machine.travel(datetime.now(UTC) + shift, tick=True)


@pytest.mark.parametrize("kind", stores.parameters("sqlite", "memory", "redis", "postgres"), indirect=True)
def test_clock_of_the_host_is_moved(
    kind: str, running: stores.Servers, tmp_path: Path, traveled: Callable[[timedelta], Any], namespace: str
) -> None:
    """A host's clock matters only if it is the store's. Set back, it ends no session; set forward again, it does."""
    place = tmp_path / "visitors.db" if kind in stores.EMBEDDED else running.get(stores.server_name(kind)).port
    with stores.open_store(kind, place) as states:
        host = Host(states, namespace)
        host.track(0)
        for number, shift in enumerate((-30, -90, -86400, -86100), start=1):
            with traveled(timedelta(seconds=shift)):
                assert (host.track(number).session_index, host.track(number).event_index) == (1, number + 1)
        assert host.ended == []
        assert host.track(5).session_index == (2 if kind in stores.EMBEDDED else 1)
        clocks = [record for record in host.inputs if record.input == "clock"]
        assert bool(clocks) == (kind in stores.EMBEDDED)


@pytest.mark.engines
def test_clock_of_the_server_is_moved(namespace: str) -> None:
    """Set back by 30 s, no time passes; by 90 s, times continue from there; set forward, sessions that are over end."""
    program, library = servers.valkey_program(), servers.faketime_library()
    if program is None or library is None:
        pytest.skip("Valkey or libfaketime (Debian's package faketime) is not installed")
    with (
        servers.run_with_clock(program, library) as (server, set_clock),
        stores.open_store("valkey", server.port) as states,
    ):
        host = Host(states, namespace)

        def at(seconds: int, *numbers: int) -> list[tuple[int, int]]:
            set_clock(seconds)
            states.read("a call after which the host knows the time")
            host.visitor.current()
            contexts = [host.track(number) for number in numbers]
            return [(context.session_index, context.event_index) for context in contexts]

        assert at(0, 0) == [(1, 1)]
        assert at(-30, 1, 0) == [(1, 2), (1, 1)]
        assert host.inputs[1].time == host.inputs[0].time
        assert at(-90, 2, 1) == [(1, 3), (1, 2)]
        assert [record.input for record in host.inputs] == ["event", "event", "clock", "event"]
        behind = host.inputs[0].time - host.inputs[3].time
        assert timedelta(seconds=60) < behind < timedelta(seconds=90)
        assert at(400, 3, 2) == [(1, 4), (1, 3)]
        assert at(1100, 4, 3) == [(2, 1), (1, 4)]
        assert [summary.event_count for summary in host.ended] == [4]
        assert [record.sequence for record in host.inputs] == [1, 2, 3, 4, 5, 6]


# Stores that refuse.


@attrs.frozen
class Refusal:
    """A store that refuses, the error that a call then raises, and what its message says."""

    states: StateStore
    error: type[Exception]
    message: str


@contextlib.contextmanager
def full_memory() -> Iterator[Refusal]:
    """Yield a store whose memory is full."""
    with stores.run("redis", "--maxmemory", "100kb") as server, stores.open_store("redis", server.port) as states:
        yield Refusal(states, OSError, "memory is full")


@contextlib.contextmanager
def read_only_replica() -> Iterator[Refusal]:
    """Yield a store that is a replica."""
    with stores.run("redis") as primary, stores.run("redis", "--replicaof", "127.0.0.1", str(primary.port)) as replica:
        with redis.Redis(port=replica.port) as admin:
            servers.wait_for(lambda: admin.info("replication")["master_link_status"] == "up")
        with stores.open_store("redis", replica.port) as states:
            yield Refusal(states, OSError, "read-only replica")


@contextlib.contextmanager
def wrong_password() -> Iterator[Refusal]:
    """Yield a store whose client has the wrong password, which looks like the visitor's key."""
    with (
        stores.run("redis", "--requirepass", "right") as server,
        redis.Redis(port=server.port, password=KEY, **stores.LIMITS, retry=stores.ONE_RETRY) as client,
    ):
        yield Refusal(RedisStates(client), PermissionError, "refuses the password")


@contextlib.contextmanager
def exhausted_pool() -> Iterator[Refusal]:
    """Yield a store whose client has one connection, which is in use."""
    with stores.run("redis") as server:
        pool = redis.ConnectionPool(port=server.port, max_connections=1, **stores.LIMITS, retry=stores.ONE_RETRY)
        with redis.Redis(connection_pool=pool) as client:
            connection = pool.get_connection()
            yield Refusal(RedisStates(client), ConnectionError, "not available")
            pool.release(connection)
        pool.disconnect()


@contextlib.contextmanager
def exhausted_postgres_pool() -> Iterator[Refusal]:
    """Yield a store whose pool has one connection, which is in use."""
    with (
        stores.run("postgres") as server,
        psycopg_pool.ConnectionPool(stores.conninfo(server.port), min_size=1, max_size=1) as pool,
        pool.connection(),
    ):
        yield Refusal(PostgresStates(pool), TimeoutError, "All connections of the pool are in use")


@contextlib.contextmanager
def read_only_postgres() -> Iterator[Refusal]:
    """Yield a store whose server only reads."""
    with stores.run("postgres") as server:
        with stores.open_store("postgres", server.port) as states:
            states.read("creates the table")
        options = "-c default_transaction_read_only=on"
        with psycopg.connect(stores.conninfo(server.port), options=options) as connection:
            yield Refusal(PostgresStates(connection), OSError, "read-only")


@contextlib.contextmanager
def killed(kind: str) -> Iterator[Refusal]:
    """Yield a store whose server was killed."""
    with stores.run(stores.server_name(kind)) as server, stores.open_store(kind, server.port) as states:
        states.read("connects")
        server.kill()
        yield Refusal(states, ConnectionError, "")


@contextlib.contextmanager
def suspended() -> Iterator[Refusal]:
    """Yield a store whose server accepts connections but does not reply."""
    with stores.run("redis") as server, stores.open_store("redis", server.port) as states, server.suspended():
        yield Refusal(states, TimeoutError, "did not reply in time")


REFUSALS: dict[str, Callable[[], contextlib.AbstractContextManager[Refusal]]] = {
    "full memory": full_memory,
    "read-only replica": read_only_replica,
    "wrong password": wrong_password,
    "exhausted pool": exhausted_pool,
    "exhausted PostgreSQL pool": exhausted_postgres_pool,
    "read-only PostgreSQL": read_only_postgres,
    "killed Redis": lambda: killed("redis"),
    "killed PostgreSQL": lambda: killed("postgres"),
    "suspended Redis": suspended,
}


@pytest.mark.engines
@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("key_secret", [None, b"secret"])
def test_refusing_store_costs_an_event_its_entity_only(
    name: str, key_secret: bytes | None, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call raises a clear error; the Snowplow tracker logs the first one, and sends the events without entity."""
    with REFUSALS[name]() as refusal:
        host = Host(refusal.states, namespace, key_secret=key_secret)
        for call in (None, lambda: host.visitor.set_background(True)):
            error = host.failure(call)
            assert isinstance(error, refusal.error)
            assert refusal.message in str(error)
        emitter = RecordingEmitter()
        session: Any = host.visitor  # the methods that the tracker needs
        tracker = SessionTracker("test", emitter, session=session, encode_base64=False)
        for _ in range(2):
            tracker.track(StructuredEvent(category="shop", action="buy"))
        assert ["co" in event for event in emitter.events] == [False, False]
        warnings = [record for record in caplog.records if record.name.startswith("client_session")]
        assert [record.getMessage() for record in warnings] == ["An event was sent without its session entity"]
        assert host.inputs == []


# Values of other versions and of others.


@pytest.mark.parametrize("kind", stores.parameters("memory", "sqlite", "redis", "valkey", "postgres"), indirect=True)
def test_value_of_a_newer_version_is_refused_and_kept(
    kind: str, running: stores.Servers, tmp_path: Path, namespace: str
) -> None:
    """During a rolling deployment, an older host raises an error for visitors whom a newer one has handled.

    It does so whether it knows the visitor's previous value or not, and the newer value remains as it is.
    """
    place = tmp_path / "visitors.db" if kind in stores.EMBEDDED else running.get(stores.server_name(kind)).port
    with stores.open_store(kind, place) as states:
        known, other = Host(states, namespace), Host(states, namespace)
        key = f"client-session:{namespace}:{known.visitor.user_id}"
        known.track(1)
        old = states.read(key)[0]
        newer = b"\2what a newer version writes"
        assert states.swap(key, old, newer, 3600)[0]
        for host in (known, other):
            visitor = host.visitor
            for call in (
                None,
                lambda visitor=visitor: visitor.set_background(True),
                visitor.touch,
                visitor.start_new_session,
                visitor.current,
                visitor.forget_user,
            ):
                error = host.failure(call)
                assert isinstance(error, NewerStateError)
                assert "version 2, which is newer than 1; upgrade client-session" in str(error)
        assert states.read(key)[0] == newer
        assert known.sessions.of("someone else").get_session_context(event_id(1)).event_index == 1


def test_corrupt_value_is_refused_and_kept(tmp_path: Path, namespace: str) -> None:
    """A value in which a bit has changed is an error, and remains as it is until someone deletes it."""
    states = SqliteStates(tmp_path / "visitors.db")
    host = Host(states, namespace)
    key = f"client-session:{namespace}:{host.visitor.user_id}"
    host.track(1)
    value = states.read(key)[0]
    assert value is not None
    corrupt = value[:20] + bytes([value[20] ^ 1]) + value[21:]
    assert states.swap(key, value, corrupt, 60)[0]
    for call in (None, host.visitor.current, host.visitor.forget_user):
        assert "is corrupt, or not this visitor's state; nothing was written" in str(host.failure(call))
    assert states.read(key)[0] == corrupt
    states.delete(key)
    assert host.track(2).session_index == 1
    states.close()


# Upkeep.


@pytest.mark.parametrize("kind", stores.parameters("sqlite", "postgres", "async postgres"), indirect=True)
def test_purge_deletes_visitors_who_did_not_return(
    kind: str, running: stores.Servers, tmp_path: Path, namespace: str
) -> None:
    """A visitor who does not return within ``keep`` is new; ``purge`` deletes the state, and no other one."""
    place = tmp_path / "visitors.db" if kind in stores.EMBEDDED else running.get(stores.server_name(kind)).port
    with stores.open_store(kind, place) as states:
        store: Any = states
        store.purge()
        limits: dict[str, Any] = {"foreground_timeout": 0.01, "background_timeout": 0.01}
        brief, long = Host(states, namespace, keep=0.05, **limits), Host(states, f"{namespace}-2")
        brief.track(1)
        long.track(1)
        key = f"client-session:{namespace}:{brief.visitor.user_id}"
        servers.wait_for(lambda: states.read(key)[0] is None)
        assert store.purge() == 1
        assert store.purge() == 0
        assert long.track(2).event_index == 2
        assert brief.track(2).session_index == 1
        brief.visitor.forget_user()  # otherwise it could expire while this test runs with another client
