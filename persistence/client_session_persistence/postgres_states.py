"""Visitors' states in PostgreSQL, which any number of processes and machines can share.

Requires psycopg 3 (the ``postgres`` extra); otherwise the import raises `ImportError`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import asynccontextmanager, closing, contextmanager
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from client_session_persistence.snapshot import StoreError, shown
from client_session_persistence.states import CALL_SECONDS, AsyncClient, Client, SyncClient, microseconds

try:
    import psycopg
    from psycopg.pq import DiagnosticField, ExecStatus, PipelineStatus, TransactionStatus
except ImportError as error:
    msg = "client_session_persistence.PostgresStates needs psycopg 3: pip install 'client-session[postgres]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from client_session_persistence.states import ReadResult, SwapResult

    Steps = Generator[int, int, "Result"]

Result = TypeVar("Result")


_TABLE = """\
CREATE TABLE IF NOT EXISTS client_session_states (
    key text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 80)"""  # with free space in its page, updating a row does not change the index
_READ = """\
SELECT (extract(epoch FROM now) * 1000000)::bigint,
    (SELECT value FROM client_session_states WHERE key = $1::text AND expires_at > now)
FROM (SELECT clock_timestamp() AS now) AS clock"""
_INSERT = """\
    INSERT INTO client_session_states AS stored (key, value, expires_at)
    SELECT $1::text, $2::bytea, now + $3::bigint * interval '1 microsecond' FROM clock
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
    WHERE stored.expires_at <= (SELECT now FROM clock)"""
_UPDATE = """\
    UPDATE client_session_states SET value = $2::bytea, expires_at = now + $3::bigint * interval '1 microsecond'
    FROM clock WHERE key = $1::text AND expires_at > now AND value = $4::bytea"""
_SWAP = """\
WITH clock AS (SELECT clock_timestamp() AS now), swapped AS (
{change}
    RETURNING true
)
SELECT (extract(epoch FROM now) * 1000000)::bigint, EXISTS (SELECT FROM swapped),
    (SELECT value FROM client_session_states
    WHERE key = $1::text AND expires_at > now AND NOT EXISTS (SELECT FROM swapped))
FROM clock"""
_SWAP_ABSENT = _SWAP.format(change=_INSERT)
_SWAP_PRESENT = _SWAP.format(change=_UPDATE)
_DELETE = """\
WITH deleted AS (DELETE FROM client_session_states WHERE key = $1::text RETURNING true)
SELECT count(*) FROM deleted"""
_PURGE = """\
WITH batch AS (SELECT key FROM client_session_states WHERE key > $1::text ORDER BY key LIMIT 1000), deleted AS (
    DELETE FROM client_session_states AS stored USING batch
    WHERE stored.key = batch.key AND stored.expires_at <= clock_timestamp()
    RETURNING true
)
SELECT (SELECT count(*) FROM deleted), (SELECT max(key) FROM batch)"""

_UNDEFINED_TABLE = "42P01"
_CONCURRENT_CREATION = ("23505", "42710", "42P07")
_SERIALIZATION_FAILURES = ("40001", "40P01")
_DISCONNECTED = (errno.ECONNRESET, "PostgreSQL closed the connection or does not accept any")
_FAILURES = {
    "08": _DISCONNECTED,
    "25006": (errno.EROFS, "PostgreSQL is a read-only replica, or read-only transactions are the default"),
    "42501": (errno.EACCES, "PostgreSQL denies access to the table client_session_states, or its creation"),
    "53100": (errno.ENOSPC, "PostgreSQL's disk is full"),
    "53200": (errno.ENOMEM, "PostgreSQL is out of memory"),
    "55P03": (errno.ETIMEDOUT, "PostgreSQL did not get a lock in time"),
    "57014": (errno.ETIMEDOUT, "PostgreSQL canceled the statement, which took too long"),
    "57P": _DISCONNECTED,
}
"""The errors for the SQLSTATEs that begin in these ways."""


class PostgresStates(Generic[Client]):
    """A state store in a PostgreSQL table. As thread-safe as the connection or the pool.

    The source is psycopg's connection or pool; with one for asyncio, the methods return awaitables. The caller owns it.
    A server with several threads or tasks should use a pool: a single connection serves one call at a time, and after
    a call that timed out, it is closed.

    Each call ends after a second, and is one statement, which is a transaction of its own and is not prepared, so it
    also works behind PgBouncer. The store's time is the server's. If a call times out, its statement may continue on
    the server: set ``statement_timeout`` for the role, so that it ends there too.

    The table, ``client_session_states``, is created when it is first needed and may be; otherwise, run the statement
    that `sql` returns. It is an ordinary table: after a crash of the server, what was swapped is still there. Expired
    values stay in the table until `purge` deletes them.
    """

    __slots__ = ("_is_async", "_is_pool", "_process", "_source")

    @overload
    def __init__(self: PostgresStates[SyncClient], connection_or_pool: SyncClient) -> None: ...
    @overload
    def __init__(self: PostgresStates[AsyncClient], connection_or_pool: AsyncClient) -> None: ...
    def __init__(self, connection_or_pool: SyncClient | AsyncClient) -> None:
        """Store the connection or the pool; the server is not contacted yet.

        Raises:
            TypeError: it is not a connection or a pool of psycopg 3.

        """
        if isinstance(connection_or_pool, type) or not any(
            hasattr(connection_or_pool, name) for name in ("getconn", "pgconn")
        ):
            msg = (
                f"connection_or_pool must be a connection of psycopg 3, such as psycopg.connect(...), or a pool, such "
                f"as psycopg_pool.ConnectionPool(...), not {shown(connection_or_pool)}"
            )
            raise TypeError(msg)
        self._source: Any = connection_or_pool
        self._is_pool = hasattr(connection_or_pool, "getconn")
        self._is_async = hasattr(connection_or_pool, "__aenter__")
        self._process = os.getpid()

    def __repr__(self) -> str:
        """Show the kind of connection or pool, whose own repr may show a password."""
        return f"PostgresStates(<{type(self._source).__name__}>)"

    @property
    def is_async(self) -> bool:
        """Whether the connection or pool is for asyncio, so that the methods return awaitables."""
        return self._is_async

    @staticmethod
    def sql() -> str:
        """Return the statement that creates the table."""
        return f"{_TABLE};\n"

    @overload
    def read(self: PostgresStates[SyncClient], key: str) -> ReadResult: ...
    @overload
    def read(self: PostgresStates[AsyncClient], key: str) -> Awaitable[ReadResult]: ...
    def read(self, key: str) -> ReadResult | Awaitable[ReadResult]:
        """Return the stored value (``None``: absent), and the server's time in microseconds since 1970.

        Raises:
            TimeoutError: the server did not reply in time, or all connections of the pool are in use.
            ConnectionError: the server is not available, or it has closed the connection.
            PermissionError: the server denies access to the table, or its creation.
            OSError: the server is a read-only replica, or its disk is full, or the connection is a parent process's.
            StoreError: the connection is in a transaction or pipeline, or PostgreSQL failed otherwise.

        """
        return self._run(lambda query: _read(query, key))

    @overload
    def swap(self: PostgresStates[SyncClient], key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult: ...
    @overload
    def swap(
        self: PostgresStates[AsyncClient], key: str, old: bytes | None, new: bytes, keep: float
    ) -> Awaitable[SwapResult]: ...
    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult | Awaitable[SwapResult]:
        """Replace the value if it equals ``old`` (``None``: absent), and keep the new one for ``keep`` seconds.

        Return whether it was replaced, the value that is now stored, and the server's time in microseconds. Raise the
        same errors as `read`, and `ValueError` if ``keep`` is not more than 0 and at most a century.
        """
        lifetime = microseconds(keep)
        return self._run(lambda query: _swap(query, key, old, new, lifetime))

    @overload
    def delete(self: PostgresStates[SyncClient], key: str) -> None: ...
    @overload
    def delete(self: PostgresStates[AsyncClient], key: str) -> Awaitable[None]: ...
    def delete(self, key: str) -> Awaitable[None] | None:
        """Delete the value, if any. Raise the same errors as `read`."""
        return self._run(lambda query: _delete(query, key))

    @overload
    def purge(self: PostgresStates[SyncClient]) -> int: ...
    @overload
    def purge(self: PostgresStates[AsyncClient]) -> Awaitable[int]: ...
    def purge(self) -> int | Awaitable[int]:
        """Delete the expired values and return how many there were.

        This goes through the whole table, with a statement for each thousand values. Raise the same errors as `read`.
        """
        return self._purge_async() if self._is_async else self._purge_sync()

    def _purge_sync(self) -> int:
        deleted = 0
        key: str | None = ""
        while key is not None:
            count, key = self._run_sync(_purge(key))
            deleted += count
        return deleted

    async def _purge_async(self) -> int:
        deleted = 0
        key: str | None = ""
        while key is not None:
            count, key = await self._run_async(_purge(key))
            deleted += count
        return deleted

    def _run(self, call: Callable[[_Query], Steps[Result]]) -> Result | Awaitable[Result]:
        return self._run_async(call) if self._is_async else self._run_sync(call)

    def _run_sync(self, call: Callable[[_Query], Steps[Result]]) -> Result:
        until = time.monotonic() + CALL_SECONDS
        try:
            with self._borrowed() as pgconn:
                return _complete(_steps(call, pgconn, until), pgconn, until)
        except psycopg.Error as error:
            raise _translated(error) from None  # the original may quote the statement

    async def _run_async(self, call: Callable[[_Query], Steps[Result]]) -> Result:
        until = time.monotonic() + CALL_SECONDS
        try:
            async with self._borrowed_async() as pgconn:
                return await _complete_async(_steps(call, pgconn, until), pgconn, until)
        except psycopg.Error as error:
            raise _translated(error) from None

    @contextmanager
    def _borrowed(self) -> Generator[PGconn]:
        """Yield a connection of libpq that no other thread uses."""
        self._check_process()
        if self._is_pool:
            connection = self._source.getconn(CALL_SECONDS)
            try:
                yield connection.pgconn
            finally:
                self._source.putconn(connection)
        elif self._source.lock.acquire(timeout=CALL_SECONDS):
            try:
                yield self._source.pgconn
            finally:
                self._source.lock.release()
        else:
            raise TimeoutError(errno.ETIMEDOUT, "Other threads are using the connection")

    @asynccontextmanager
    async def _borrowed_async(self) -> AsyncGenerator[PGconn]:
        self._check_process()
        if self._is_pool:
            connection = await self._source.getconn(CALL_SECONDS)
            try:
                yield connection.pgconn
            finally:
                await self._source.putconn(connection)
        else:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._source.lock.acquire()
            except TimeoutError:
                raise TimeoutError(errno.ETIMEDOUT, "Other tasks are using the connection") from None
            try:
                yield self._source.pgconn
            finally:
                self._source.lock.release()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            message = "This process was forked; create a connection or a pool, and PostgresStates, in each process"
            raise OSError(errno.ECANCELED, message)


class _Query:
    """Sends statements on a connection and returns the first row of each result, in binary."""

    __slots__ = ("_pgconn", "_until")

    def __init__(self, pgconn: PGconn, until: float) -> None:
        self._pgconn = pgconn
        self._until = until

    def __call__(self, statement: str, *parameters: str | bytes | int) -> Steps[list[bytes | None]]:
        """Run a statement; create the table if it is missing."""
        while True:
            result = yield from self._exchange(statement, parameters)
            if result.status == ExecStatus.TUPLES_OK:
                return [result.get_value(0, column) for column in range(result.nfields)]
            state = _sqlstate(result)
            if state == _UNDEFINED_TABLE:
                result = yield from self._exchange(_TABLE, ())
                state = _sqlstate(result)
                if result.status != ExecStatus.COMMAND_OK and state not in _CONCURRENT_CREATION:
                    raise _failure(state, result)
            elif state not in _SERIALIZATION_FAILURES:
                raise _failure(state, result)
            self.check_deadline()

    def check_deadline(self) -> None:
        """Raise `TimeoutError` if the call has taken too long."""
        if time.monotonic() >= self._until:
            raise TimeoutError(errno.ETIMEDOUT, "PostgreSQL did not reply in time")

    def _exchange(self, statement: str, parameters: Sequence[str | bytes | int]) -> Steps[PGresult]:
        """Send a statement and return its result, without blocking."""
        pgconn = self._pgconn
        pgconn.send_query_params(
            statement.encode(),
            [value if isinstance(value, bytes) else str(value).encode() for value in parameters],
            param_formats=[int(isinstance(value, bytes)) for value in parameters],
            result_format=1,
        )
        while pgconn.flush():
            if (yield from self._ready(EVENT_READ | EVENT_WRITE)) & EVENT_READ:
                pgconn.consume_input()
        results: list[PGresult] = []
        while True:
            while pgconn.is_busy():
                yield from self._ready(EVENT_READ)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                return results[0]
            results.append(result)

    def _ready(self, awaited: int) -> Steps[int]:
        while not (ready := (yield awaited)):
            self.check_deadline()
        return ready


def _complete(steps: Steps[Result], pgconn: PGconn, until: float) -> Result:
    """Run a generator, which yields the events that it waits for, and return its result."""
    with closing(steps), DefaultSelector() as selector:
        try:
            selector.register(pgconn.socket, next(steps))
            while True:
                occurred = selector.select(max(0.0, until - time.monotonic()))
                selector.modify(pgconn.socket, steps.send(sum(events for _, events in occurred)))
        except StopIteration as stop:
            result: Result = stop.value
            return result


async def _complete_async(steps: Steps[Result], pgconn: PGconn, until: float) -> Result:
    """Run a generator as `_complete` does, but let other tasks run while it waits."""
    with closing(steps):
        try:
            awaited = next(steps)
            while True:
                awaited = steps.send(await _wait(pgconn.socket, awaited, until))
        except StopIteration as stop:
            result: Result = stop.value
            return result


async def _wait(socket: int, awaited: int, until: float) -> int:
    """Wait until one of these events occurs on a socket, and return it; at ``until``, return 0."""
    loop = asyncio.get_running_loop()
    occurred: asyncio.Future[int] = loop.create_future()

    def occur(event: int) -> None:
        if not occurred.done():
            occurred.set_result(event)

    timer = loop.call_later(max(0.0, until - time.monotonic()), occur, 0)
    try:
        if awaited & EVENT_READ:
            loop.add_reader(socket, occur, EVENT_READ)
        if awaited & EVENT_WRITE:
            loop.add_writer(socket, occur, EVENT_WRITE)
        return await occurred
    finally:
        timer.cancel()
        loop.remove_reader(socket)
        loop.remove_writer(socket)


def _steps(call: Callable[[_Query], Steps[Result]], pgconn: PGconn, until: float) -> Steps[Result]:
    """Check that a connection is idle, and make a call on it; afterwards, close it unless it is idle again."""
    is_in_use = pgconn.transaction_status not in {TransactionStatus.IDLE, TransactionStatus.UNKNOWN}
    if is_in_use or pgconn.pipeline_status != PipelineStatus.OFF:  # if it is closed, psycopg says so
        msg = "the connection to PostgreSQL is in a transaction or a pipeline; use another connection for states"
        raise StoreError(msg)
    try:
        return (yield from call(_Query(pgconn, until)))
    finally:
        if pgconn.transaction_status != TransactionStatus.IDLE:
            pgconn.finish()


def _read(query: _Query, key: str) -> Steps[ReadResult]:
    now, value = yield from query(_READ, key)
    return value, _integer(now)


def _swap(query: _Query, key: str, old: bytes | None, new: bytes, lifetime: int) -> Steps[SwapResult]:
    while True:
        if old is None:
            now, is_swapped, value = yield from query(_SWAP_ABSENT, key, new, lifetime)
        else:
            now, is_swapped, value = yield from query(_SWAP_PRESENT, key, new, lifetime, old)
        if _integer(is_swapped):
            return True, new, _integer(now)
        # Otherwise, the value was replaced after the statement had begun: it still read the old one.
        if value != old:
            return False, value, _integer(now)
        query.check_deadline()


def _delete(query: _Query, key: str) -> Steps[None]:
    yield from query(_DELETE, key)


def _purge(key: str) -> Callable[[_Query], Steps[tuple[int, str | None]]]:
    """Return a call that deletes the expired ones of the thousand values after a key.

    It returns how many it has deleted, and the last of the thousand keys.
    """

    def call(query: _Query) -> Steps[tuple[int, str | None]]:
        count, end = yield from query(_PURGE, key)
        return _integer(count), None if end is None else end.decode()

    return call


def _integer(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big", signed=True)


def _sqlstate(result: PGresult) -> str:
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()


def _failure(state: str, result: PGresult) -> OSError | StoreError:
    if not state:  # an error of libpq, not of the server
        return OSError(*_DISCONNECTED)
    for beginning, arguments in _FAILURES.items():
        if state.startswith(beginning):
            return OSError(*arguments)
    message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    return StoreError(f"PostgreSQL failed with SQLSTATE {state}: {message}")


def _translated(error: psycopg.Error) -> OSError:
    """Return the `OSError` for an exception of psycopg, which means that there is no connection."""
    if type(error).__name__ in {"PoolTimeout", "TooManyRequests"}:
        return TimeoutError(errno.ETIMEDOUT, "All connections of the pool are in use, or PostgreSQL is not available")
    return ConnectionError(errno.ENOTCONN, f"PostgreSQL is not available: {' '.join(str(error).split())}")
