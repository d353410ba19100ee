"""State stores when connections, servers or their configuration fail: each call ends soon, with a clear error."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg, and libpq", exc_type=ImportError)

import psycopg
import psycopg_pool
import redis
import redis.asyncio
import redis.backoff
import redis.cluster
import redis.retry
import valkey

from client_session_persistence import PostgresStates, RedisStates, StoreError, redis_states
from engines import failures, servers, stores
from engines.failures import retried
from engines.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_session_persistence import StateStore
    from engines.servers import Server

NETWORKED = ("redis", "valkey", "postgres pool", "async redis", "async valkey", "async postgres pool")
NO_RETRY = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
SECRET = "visitor-4711"  # noqa: S105  # not a password
VALUE = b"value-4711"

pytestmark = pytest.mark.engines


@pytest.fixture(params=NETWORKED)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of store in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def running() -> Iterator[stores.Servers]:
    """Yield servers that no test stops."""
    started = stores.Servers()
    yield started
    started.close()


@pytest.fixture
def key() -> str:
    """Return a key that no other test uses."""
    return f"{SECRET}/{uuid.uuid4()}"


@pytest.fixture
def proxy(kind: str, running: stores.Servers) -> Iterator[Proxy]:
    """Yield a proxy in front of the server of this kind of store."""
    with Proxy(running.get(stores.server_name(kind)).port) as listening:
        yield listening


def failure_of(call: Callable[[], object]) -> OSError | StoreError:
    """Return the error of a call, after checking that it ended soon and says nothing of keys and values."""
    return failures.failure_of(call, "4711")


def test_lost_reply_is_recognizable(kind: str, proxy: Proxy, key: str) -> None:
    """If a connection is cut before the reply, the swap has taken place, and the repeated call shows that."""
    with stores.open_store(kind, proxy.port) as store:
        store.swap(key, None, b"0", 60)
        for number in range(5):
            old, new = b"%d" % number, b"%d" % (number + 1)
            proxy.disturb(Fault.CUT, key)
            try:
                result = store.swap(key, old, new, 60)
            except (OSError, StoreError):
                result = retried(partial(store.swap, key, old, new, 60))
            assert result[:2] == (False, new)
        assert proxy.lost == 5
        assert store.read(key)[0] == b"5"


def test_reply_that_never_comes_is_a_timeout(kind: str, proxy: Proxy, key: str) -> None:
    """If a reply does not arrive, the call raises TimeoutError, and later calls do not receive that reply."""
    with stores.open_store(kind, proxy.port) as store:
        store.swap(key, None, VALUE, 60)
        proxy.disturb(Fault.HOLD, key, replies=1000)
        assert isinstance(failure_of(lambda: store.read(key)), TimeoutError)
        assert isinstance(failure_of(lambda: store.swap(key, VALUE, b"new", 60)), OSError)
        proxy.disturb(Fault.NONE, key, replies=0)
        assert retried(lambda: store.read(key))[0] in {VALUE, b"new"}
        assert retried(lambda: store.read(f"{key}/other"))[0] is None


def test_slow_reply_is_waited_for(kind: str, proxy: Proxy, key: str) -> None:
    """A reply that takes a tenth of a second is not an error."""
    with stores.open_store(kind, proxy.port) as store:
        store.read(key)
        proxy.disturb(Fault.DELAY, key, replies=2)
        assert store.swap(key, None, VALUE, 60)[:2] == (True, VALUE)
        assert store.read(key)[0] == VALUE


def test_cut_connections_are_replaced(kind: str, proxy: Proxy, key: str) -> None:
    """After all connections were cut, calls succeed again without a new store."""
    with stores.open_store(kind, proxy.port) as store:
        store.swap(key, None, VALUE, 60)
        for _ in range(3):
            proxy.cut_all()
            assert retried(lambda: store.read(key))[0] == VALUE


@pytest.mark.parametrize(
    "kind", ["redis", "valkey", "redis cluster", "async redis", "async redis cluster"], indirect=True
)
def test_redis_restarts(kind: str, key: str) -> None:
    """While the server is down, calls raise ConnectionError; after its restart, the scripts are loaded again."""
    with stores.run(stores.server_name(kind)) as server, stores.open_store(kind, server.port) as store:
        store.swap(key, None, VALUE, 60)
        server.kill()
        assert isinstance(failure_of(lambda: store.read(key)), ConnectionError | TimeoutError)
        assert isinstance(failure_of(lambda: store.swap(key, VALUE, b"new", 60)), ConnectionError | TimeoutError)
        server.start()
        assert retried(lambda: store.swap(key, None, VALUE, 60))[1] == VALUE
        assert store.read(key)[0] == VALUE


@pytest.mark.parametrize("kind", ["postgres pool", "async postgres pool"], indirect=True)
def test_postgres_restarts(kind: str, key: str) -> None:
    """While the server is down, calls raise OSError; after its restart, the values are still there."""
    with stores.run("postgres") as server, stores.open_store(kind, server.port) as store:
        store.swap(key, None, VALUE, 60)
        server.stop()
        assert isinstance(failure_of(lambda: store.read(key)), ConnectionError | TimeoutError)
        assert isinstance(failure_of(lambda: store.delete(key)), ConnectionError | TimeoutError)
        server.start()
        assert retried(lambda: store.read(key))[0] == VALUE


@pytest.mark.parametrize("kind", ["redis", "valkey", "async redis", "async valkey"], indirect=True)
def test_suspended_server_is_a_timeout(kind: str, key: str) -> None:
    """If the server accepts connections but hangs, a call raises TimeoutError."""
    with stores.run(stores.server_name(kind)) as server, stores.open_store(kind, server.port) as store:
        store.read(key)
        with server.suspended():
            assert isinstance(failure_of(lambda: store.swap(key, None, VALUE, 60)), TimeoutError)


@pytest.mark.parametrize("kind", ["postgres", "async postgres"], indirect=True)
def test_single_connection_is_closed_after_a_timeout(kind: str, proxy: Proxy, key: str) -> None:
    """A reply that never came cannot be taken for the next one, because the connection is closed."""
    with stores.open_store(kind, proxy.port) as store:
        proxy.disturb(Fault.HOLD, key)
        assert isinstance(failure_of(lambda: store.read(key)), TimeoutError)
        assert "the connection is closed" in str(failure_of(lambda: store.read(key)))


def test_promoted_replica_accepts_swaps(key: str) -> None:
    """A read-only replica refuses swaps with a clear error, but not reads; once promoted, it accepts them."""
    with stores.run("redis") as primary, stores.run("redis", "--replicaof", "127.0.0.1", str(primary.port)) as replica:
        with stores.open_store("redis", primary.port) as store:
            store.swap(key, None, VALUE, 60)
        with stores.open_store("redis", replica.port) as store, redis.Redis(port=replica.port) as admin:
            servers.wait_for(lambda: store.read(key)[0] == VALUE)
            for old in (VALUE, VALUE):
                error = failure_of(partial(store.swap, key, old, b"new", 60))
                assert "read-only replica" in str(error)
            admin.replicaof("NO", "ONE")
            assert store.swap(key, VALUE, b"new", 60)[:2] == (True, b"new")


def test_full_memory_is_an_error(key: str) -> None:
    """A server whose memory is full refuses swaps with a clear error; reads and deletions continue."""
    with (
        stores.run("redis", "--maxmemory-policy", "noeviction") as server,
        redis.Redis(port=server.port) as admin,
        stores.open_store("redis", server.port) as store,
    ):
        store.swap(key, None, VALUE, 60)
        admin.config_set("maxmemory", "1mb")
        assert "memory is full" in str(failure_of(lambda: store.swap(key, VALUE, b"new", 60)))
        assert store.read(key)[0] == VALUE
        store.delete(key)
        admin.config_set("maxmemory", "0")
        assert store.swap(key, None, b"new", 60)[0]


@pytest.mark.parametrize("program", ["redis", "valkey"])
def test_wrong_password_is_a_permission_error(program: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong or missing password raises PermissionError, whose message does not contain it."""
    monkeypatch.setattr(redis_states, "CALL_SECONDS", stores.PATIENT)  # a busy machine may take a second to refuse
    with stores.run(program, "--requirepass", "right") as server:
        for password in (None, "wrong-4711"):
            with redis.Redis(port=server.port, password=password, **stores.LIMITS, retry=NO_RETRY) as client:
                assert isinstance(failure_of(partial(RedisStates(client).read, key)), PermissionError)

        async def read() -> None:
            async with redis.asyncio.Redis(port=server.port, password="wrong-4711") as client:  # noqa: S106
                await RedisStates(client).read(key)

        assert isinstance(failure_of(lambda: asyncio.run(read())), PermissionError)


def test_denied_key_is_a_permission_error(running: stores.Servers, key: str) -> None:
    """A user without access to the key gets a PermissionError that does not quote the key."""
    port = running.get("redis").port
    with redis.Redis(port=port) as admin:
        admin.acl_setuser("limited", enabled=True, nopass=True, keys=["other:*"], commands=["+@all"])
    with redis.Redis(port=port, username="limited", password="any", **stores.LIMITS, retry=NO_RETRY) as client:  # noqa: S106
        assert isinstance(failure_of(lambda: RedisStates(client).read(key)), PermissionError)


def test_key_of_another_type_is_an_error(running: stores.Servers, key: str) -> None:
    """A key that another program uses for a list is left alone, and is a StoreError."""
    port = running.get("redis").port
    with redis.Redis(port=port) as admin, stores.open_store("redis", port) as store:
        admin.lpush(key, "4711")
        assert isinstance(failure_of(lambda: store.swap(key, None, VALUE, 60)), StoreError)
        assert admin.llen(key) == 1


def test_client_for_one_server_is_refused_by_a_cluster(key: str) -> None:
    """A cluster's node that does not have the key makes calls raise an error that says which client to use."""
    with stores.run("redis", "--cluster-enabled", "yes") as server, stores.open_store("redis", server.port) as store:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("CLUSTER ADDSLOTS", 0)
        assert "cluster is not available" in str(failure_of(lambda: store.read(key)))


def test_exhausted_pool_is_an_error(running: stores.Servers, key: str) -> None:
    """A call that gets no connection from the pool raises ConnectionError or TimeoutError within the limits."""
    pool = redis.ConnectionPool(port=running.get("redis").port, max_connections=1, **stores.LIMITS)
    blocking = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        port=running.get("redis").port, max_connections=1, timeout=0.1, **stores.LIMITS
    )
    for each in (pool, blocking):
        with redis.Redis(connection_pool=each) as client:
            connection = each.get_connection()
            assert isinstance(failure_of(partial(RedisStates(client).read, key)), ConnectionError)
            each.release(connection)
            assert RedisStates(client).read(key)[0] is None
        each.disconnect()
    with psycopg_pool.ConnectionPool(stores.conninfo(running.get("postgres").port), min_size=1, max_size=1) as postgres:
        with postgres.connection():
            assert isinstance(failure_of(lambda: PostgresStates(postgres).read(key)), TimeoutError)
        assert PostgresStates(postgres).read(key)[0] is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "socket_timeout: (None|5), socket_connect_timeout: (None|5)"),
        ({"socket_timeout": 2, "socket_connect_timeout": 1, "retry": NO_RETRY}, "socket_timeout: 2"),
        ({"socket_timeout": 1, "socket_connect_timeout": None, "retry": NO_RETRY}, "socket_connect_timeout: None"),
        ({**stores.LIMITS, "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 3)}, "retries: 3"),
        ({**stores.LIMITS, "retry": redis.retry.Retry(redis.backoff.NoBackoff(), -1)}, "retries: -1"),
    ],
)
def test_client_that_could_block_for_long_is_refused(settings: dict[str, Any], reason: str) -> None:
    """A client without limits is refused, with an example of limits; a client for asyncio needs none."""
    with redis.Redis(**settings) as client, pytest.raises(ValueError, match=f"{reason}.*For example: redis.Redis"):
        RedisStates(client)
    RedisStates(redis.asyncio.Redis())
    RedisStates(redis.Redis(unix_socket_path="/nowhere", socket_timeout=1, retry=NO_RETRY))


def test_pool_that_could_block_for_long_is_refused() -> None:
    """A pool that waits 20 s for a free connection, redis-py's default, is refused."""
    pool = redis.BlockingConnectionPool(**stores.LIMITS)  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="timeout of the connection pool: 20"):
        RedisStates(redis.Redis(connection_pool=pool))


@pytest.mark.parametrize("client", [None, "redis://localhost", redis.Redis, object(), redis])
def test_other_objects_are_refused(client: Any) -> None:  # noqa: ANN401  # any object
    """What is not a client raises TypeError, which says what is allowed."""
    with pytest.raises(
        TypeError, match=r"client must be a client of redis-py or valkey-py, such as redis.Redis\(...\)"
    ):
        RedisStates(client)
    with pytest.raises(TypeError, match="connection_or_pool must be a connection of psycopg 3"):
        PostgresStates(client)


@contextlib.contextmanager
def postgres_connection(server: Server, **options: Any) -> Iterator[psycopg.Connection[Any]]:  # noqa: ANN401  # any option
    """Yield a connection to a server."""
    with psycopg.connect(stores.conninfo(server.port), autocommit=True, **options) as connection:
        yield connection


def test_table_is_created_once(key: str) -> None:
    """The first call creates the table, in one process or in several; the SQL to do so can be run several times."""
    with stores.run("postgres") as server:
        stores.increment_in_processes("postgres", server.port, key, processes=4, times=5)
        with postgres_connection(server) as connection:
            assert PostgresStates(connection).read(key)[0] == b"20"
            connection.execute(PostgresStates.sql())
            assert PostgresStates(connection).read(key)[0] == b"20"


def test_denied_table_is_a_permission_error(running: stores.Servers, key: str) -> None:
    """A role that may not create the table gets a PermissionError that names the table."""
    server = running.get("postgres")
    with postgres_connection(server) as admin:
        admin.execute("DROP ROLE IF EXISTS visitor; CREATE ROLE visitor LOGIN; CREATE SCHEMA IF NOT EXISTS empty")
        admin.execute("GRANT USAGE ON SCHEMA empty TO visitor")
    with postgres_connection(server, options="-c role=visitor -c search_path=empty") as connection:
        error = failure_of(lambda: PostgresStates(connection).read(key))
    assert isinstance(error, PermissionError)
    assert "client_session_states" in str(error)


def test_read_only_server_is_an_error(running: stores.Servers, key: str) -> None:
    """A server that only reads refuses swaps with an error that says so; reads continue."""
    server = running.get("postgres")
    with stores.open_store("postgres", server.port) as store:
        store.swap(key, None, VALUE, 60)
    with postgres_connection(server, options="-c default_transaction_read_only=on") as connection:
        states = PostgresStates(connection)
        assert "read-only" in str(failure_of(lambda: states.swap(key, VALUE, b"new", 60)))
        assert states.read(key)[0] == VALUE


def test_statement_timeout_is_a_timeout(running: stores.Servers, key: str) -> None:
    """If PostgreSQL cancels a statement that waits for a lock, the call raises TimeoutError."""
    server = running.get("postgres")
    with stores.open_store("postgres", server.port) as store:
        store.read(key)
    with (
        postgres_connection(server) as admin,
        postgres_connection(server, options="-c statement_timeout=100") as limited,
    ):
        with admin.transaction():
            admin.execute("LOCK TABLE client_session_states")
            assert isinstance(failure_of(lambda: PostgresStates(limited).swap(key, None, VALUE, 60)), TimeoutError)
        assert PostgresStates(limited).swap(key, None, VALUE, 60)[0]


def test_locked_table_is_a_timeout(running: stores.Servers, key: str) -> None:
    """Without a statement timeout, a call that waits for a lock still raises TimeoutError."""
    server = running.get("postgres")
    with stores.open_store("postgres pool", server.port) as store, postgres_connection(server) as admin:
        store.read(key)
        with admin.transaction():
            admin.execute("LOCK TABLE client_session_states")
            assert isinstance(failure_of(lambda: store.swap(key, None, VALUE, 60)), TimeoutError)
        assert retried(lambda: store.swap(key, None, VALUE, 60))[1] == VALUE


def test_connection_in_a_transaction_is_refused(running: stores.Servers, key: str) -> None:
    """A connection in a transaction or a pipeline is refused: a swap there could be rolled back."""
    with psycopg.connect(stores.conninfo(running.get("postgres").port)) as connection:
        states = PostgresStates(connection)
        connection.execute("SELECT 1")
        assert "in a transaction" in str(failure_of(lambda: states.read(key)))
        connection.rollback()
        with connection.pipeline():
            assert "pipeline" in str(failure_of(lambda: states.read(key)))
        assert states.read(key)[0] is None
        connection.close()
        assert "closed" in str(failure_of(lambda: states.read(key)))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_stricter_isolation_loses_no_swap(running: stores.Servers, key: str, level: str) -> None:
    """Swaps at a stricter default isolation level, where PostgreSQL asks to retry, also succeed."""
    server = running.get("postgres")
    options = f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
    info = stores.conninfo(server.port)
    with psycopg_pool.ConnectionPool(info, kwargs={"options": options}, min_size=4) as pool:
        assert_threads_lose_no_swap(PostgresStates(pool), key)


def assert_threads_lose_no_swap(store: StateStore, key: str) -> None:
    """Increment a number in four threads."""

    async def run() -> None:
        await asyncio.gather(*(asyncio.to_thread(stores.increment, store, key, 25) for _ in range(4)))

    asyncio.run(run())
    assert store.read(key)[0] == b"100"


def test_canceled_call_leaves_the_client_usable(running: stores.Servers, key: str) -> None:
    """A task that is canceled during a call does not leave its reply to the next call."""

    async def run(kind: str, port: int) -> None:
        async with stores.async_store(kind, port) as store:
            await store.swap(key, None, VALUE, 60)
            for _ in range(5):
                task = asyncio.ensure_future(store.read(key))
                await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
                assert (await store.read(f"{key}/other"))[0] is None

    for kind in ("async redis", "async valkey", "async postgres pool"):
        asyncio.run(run(kind, running.get(stores.server_name(kind)).port))


def test_asynchronous_calls_share_a_connection(running: stores.Servers, key: str) -> None:
    """Tasks that use one connection at once wait for each other."""

    async def run() -> None:
        async with stores.async_store("async postgres", running.get("postgres").port) as store:
            swaps = [store.swap(f"{key}/{number}", None, b"%d" % number, 60) for number in range(20)]
            assert [result[0] for result in await asyncio.gather(*swaps)] == [True] * 20

    asyncio.run(run())


def test_scripts_work_with_valkey_and_redis_clients(running: stores.Servers, key: str) -> None:
    """Each client works with each server, over TCP and over a Unix domain socket."""
    for name in ("redis", "valkey"):
        path = str(running.get(name).folder / "socket")
        with redis.Redis(unix_socket_path=path, socket_timeout=1, retry=NO_RETRY) as client:
            assert RedisStates(client).swap(f"{key}/a", None, VALUE, 60)[0]
        with valkey.Valkey(unix_socket_path=path, socket_timeout=1) as valkey_client:
            assert RedisStates(valkey_client).read(f"{key}/a")[0] == VALUE
