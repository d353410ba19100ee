"""Every kind of state store, on real servers that are started when they are first needed."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.backoff
import redis.cluster
import redis.retry
import valkey
import valkey.asyncio
import valkey.backoff
import valkey.retry

from client_session_persistence import (
    MemoryStates,
    PostgresStates,
    RedisStates,
    SqliteStates,
    postgres_states,
    redis_states,
    sqlite_states,
)
from engines import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from client_session_persistence import AsyncStateStore, ReadResult, StateStore, SwapResult
    from engines.servers import Server

TIMEOUT = 0.5
LIMITS: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
PATIENT = 60.0
"""The timeout of processes that wait for a server on a busy machine."""
ONE_RETRY = redis.retry.Retry(redis.backoff.NoBackoff(), 1)

EMBEDDED = ("memory", "sqlite")
BLOCKING = ("redis", "redis decoding responses", "redis cluster", "valkey", "postgres", "postgres pool")
ASYNC = ("async redis", "async redis cluster", "async valkey", "async postgres", "async postgres pool")
SHARED = ("sqlite", "redis", "redis cluster", "valkey", "postgres")
"""The kinds that processes can share, each once."""


def parameters(*kinds: str) -> list[Any]:
    """Return pytest's parameters for these kinds, marked as needing a server if so."""
    return [pytest.param(kind, marks=() if kind in EMBEDDED else pytest.mark.engines) for kind in kinds]


class Servers:
    """Servers for all tests of a worker, started when they are first needed. Skips the test if one is not installed."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._running: dict[str, Server] = {}
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        """Stop the servers."""
        self._stack.close()

    def get(self, name: str) -> Server:
        """Return the running server."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(run(name))
        return self._running[name]


@contextlib.contextmanager
def run(name: str, *options: str) -> Iterator[Server]:
    """Run a server: redis, "redis cluster", valkey or postgres. Skip the test if it is not installed."""
    find: dict[str, Callable[[], str | None]] = {
        "redis": servers.redis_program,
        "redis cluster": servers.redis_program,
        "valkey": servers.valkey_program,
        "postgres": partial(servers.postgres_program, "postgres"),
    }
    program = find[name]()
    if program is None:
        pytest.skip(f"{name} is not installed")
    if name == "postgres":
        with servers.run_postgres(*options) as server:
            yield server
    elif name == "redis cluster":
        with servers.run_redis(program, "--cluster-enabled", "yes", *options) as server:
            make_cluster(server)
            yield server
    else:
        with servers.run_redis(program, *options) as server:
            yield server


def make_cluster(server: Server) -> None:
    """Let a server own all slots of a cluster of its own."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        servers.wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


def server_name(kind: str) -> str:
    """Return the name of the server that a kind of store needs."""
    return kind.removeprefix("async ").removesuffix(" decoding responses").removesuffix(" pool")


def conninfo(port: int) -> str:
    """Return how to connect to a PostgreSQL server."""
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=2"


@contextlib.contextmanager
def blocking_store(kind: str, port: int, timeout: float) -> Iterator[StateStore]:
    """Yield a store whose client blocks."""
    limits: dict[str, Any] = dict.fromkeys(LIMITS, timeout)
    match kind:
        case "redis" | "redis decoding responses":
            with redis.Redis(
                port=port, **limits, retry=ONE_RETRY, decode_responses=kind != "redis", protocol=3
            ) as client:
                yield RedisStates(client)
        case "redis cluster":
            with redis.cluster.RedisCluster(port=port, host="127.0.0.1", **limits, retry=ONE_RETRY) as cluster:
                yield RedisStates(cluster)
        case "valkey":
            retry = valkey.retry.Retry(valkey.backoff.NoBackoff(), 1)
            with valkey.Valkey(port=port, **limits, retry=retry) as valkey_client:
                yield RedisStates(valkey_client)
        case "postgres":
            with psycopg.connect(conninfo(port)) as connection:
                yield PostgresStates(connection)
        case _:
            assert kind == "postgres pool"
            with psycopg_pool.ConnectionPool(conninfo(port), min_size=1, max_size=4) as pool:
                yield PostgresStates(pool)


@contextlib.asynccontextmanager
async def async_store(kind: str, port: int) -> Any:  # noqa: ANN401  # an iterator
    """Yield a store whose client is for asyncio."""
    match kind:
        case "async redis":
            async with redis.asyncio.Redis(port=port) as client:
                yield RedisStates(client)
        case "async redis cluster":
            async with redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=port) as cluster:
                yield RedisStates(cluster)
        case "async valkey":
            async with valkey.asyncio.Valkey(port=port) as valkey_client:
                yield RedisStates(valkey_client)
        case "async postgres":
            async with await psycopg.AsyncConnection.connect(conninfo(port)) as connection:
                yield PostgresStates(connection)
        case _:
            assert kind == "async postgres pool"
            async with psycopg_pool.AsyncConnectionPool(conninfo(port), min_size=1, max_size=4, open=False) as pool:
                yield PostgresStates(pool)


class BlockingAdapter:
    """Lets tests call an asynchronous store like a blocking one."""

    def __init__(self, store: AsyncStateStore, runner: asyncio.Runner) -> None:
        """Store the event loop that the client belongs to."""
        self._store: Any = store
        self._runner = runner

    def read(self, key: str) -> ReadResult:
        """Wait for `AsyncStateStore.read`."""
        result: ReadResult = self._runner.run(self._store.read(key))
        return result

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Wait for `AsyncStateStore.swap`."""
        result: SwapResult = self._runner.run(self._store.swap(key, old, new, keep))
        return result

    def delete(self, key: str) -> None:
        """Wait for `AsyncStateStore.delete`."""
        self._runner.run(self._store.delete(key))

    def purge(self) -> int:
        """Wait for ``purge``."""
        deleted: int = self._runner.run(self._store.purge())
        return deleted


@contextlib.contextmanager
def open_store(kind: str, place: int | Path, timeout: float = TIMEOUT) -> Iterator[StateStore]:
    """Yield a store, with methods that block, at a server's port or, for SQLite, at a path."""
    if kind == "memory":
        yield MemoryStates()
    elif kind == "sqlite":
        assert not isinstance(place, int)
        states = SqliteStates(place)
        yield states
        states.close()
    elif kind in ASYNC:
        assert isinstance(place, int)
        with asyncio.Runner() as runner:
            context = async_store(kind, place)
            try:
                yield BlockingAdapter(runner.run(context.__aenter__()), runner)
            finally:
                runner.run(context.__aexit__(None, None, None))
    else:
        assert isinstance(place, int)
        with blocking_store(kind, place, timeout) as store:
            yield store


def increment(store: StateStore, key: str, times: int) -> int:
    """Increment a number in a store by compare-and-swap, and return how many swaps failed."""
    failed = 0
    for _ in range(times):
        value, _ = store.read(key)
        while True:
            is_swapped, value, _ = store.swap(key, value, b"%d" % (int(value or b"0") + 1), keep=60)
            if is_swapped:
                break
            failed += 1
    return failed


def open_patient_store(kind: str, place: int | Path) -> AbstractContextManager[StateStore]:
    """Open a store in a process that does nothing else, whose calls may take longer than a program would wait."""
    for module in (postgres_states, redis_states, sqlite_states):
        vars(module).update(CALL_SECONDS=PATIENT)
    return open_store(kind, place, PATIENT)


def process_context() -> Any:  # noqa: ANN401  # a context of multiprocessing
    """Return how to start processes. Where possible, they fork from one that has imported what takes long to import."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["client_session.visitors", "hypothesis", "psycopg_pool", "pytest", "redis.asyncio.cluster", "valkey.asyncio"]
    )
    return context


def _increment_in_process(kind: str, place: int | Path, key: str, times: int) -> None:
    with open_patient_store(kind, place) as store:
        increment(store, key, times)


def increment_in_processes(kind: str, place: int | Path, key: str, *, processes: int, times: int) -> None:
    """Increment a number in several processes at once."""
    context = process_context()
    workers = [context.Process(target=_increment_in_process, args=(kind, place, key, times)) for _ in range(processes)]
    _for_each(workers, lambda worker: worker.start())
    _for_each(workers, lambda worker: worker.join())
    assert [worker.exitcode for worker in workers] == [0] * processes


def _for_each(workers: list[Any], do: Callable[[Any], object]) -> None:
    for worker in workers:
        do(worker)
