"""Visitors' states in Redis or Valkey, which any number of processes and machines can share.

Each value is a string key, which the server deletes when it expires. Each call runs one script on one key, so it also
works on clusters.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from client_session_persistence.snapshot import StoreError, shown
from client_session_persistence.states import CALL_SECONDS, AsyncClient, Client, SyncClient, microseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from client_session_persistence.states import ReadResult, SwapResult

Result = TypeVar("Result")


class _Script:
    __slots__ = ("sha1", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()  # how Redis names scripts


# Both reply with the server's time, in microseconds since 1970 (which Lua's numbers represent exactly until 2255), and
# the stored value. If the value was swapped, the reply is only the time, which clients parse fastest.
_READ = _Script("""\
local time = redis.call('TIME')
return {time[1] * 1000000 + time[2], redis.call('GET', KEYS[1])}
""")
_SWAP = _Script("""\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local value = redis.call('GET', KEYS[1])
if value == (ARGV[3] or false) then
    redis.call('PSETEX', KEYS[1], ARGV[2], ARGV[1])
    return now
end
return {now, value}
""")
_DELETE = _Script("return redis.call('DEL', KEYS[1])")

_MAX_RETRIES = 1
_PACKAGES = frozenset({"redis", "valkey"})
_BASE_ERRORS = frozenset({"RedisClusterException", "RedisError", "ValkeyClusterException", "ValkeyError"})
"""The base classes of the clients' exceptions, by name: either package may be missing."""

_CLUSTER = (errno.ECONNREFUSED, "The cluster is not available")
_DENIED = (errno.EACCES, "The server refuses the password, the user, or this user's access")
_FULL = (errno.ENOMEM, "The server's memory is full")
_MOVED = (errno.EREMOTE, "The key is on another node of a cluster; use a client for clusters, such as RedisCluster")
_READ_ONLY = (errno.EROFS, "The server is a read-only replica")
_FAILURES = {
    # The clients' exceptions.
    "AskError": _MOVED,
    "AuthenticationError": _DENIED,
    "AuthorizationError": _DENIED,
    "ClusterError": _CLUSTER,
    "MasterDownError": _CLUSTER,
    "MovedError": _MOVED,
    "NoPermissionError": _DENIED,
    "OutOfMemoryError": _FULL,
    "ReadOnlyError": _READ_ONLY,
    "RedisClusterException": _CLUSTER,
    "TimeoutError": (errno.ETIMEDOUT, "The server did not reply in time"),
    "TryAgainError": _CLUSTER,
    "ValkeyClusterException": _CLUSTER,
    # The server's error codes. If a command in a script fails, Redis 6 has them only in the text.
    "BUSY": (errno.EBUSY, "The server is busy with a script"),
    "CLUSTERDOWN": _CLUSTER,
    "MISCONF": (errno.EIO, "The server cannot save its data, so it does not accept writes"),
    "MASTERDOWN": _CLUSTER,
    "NOAUTH": _DENIED,
    "NOPERM": _DENIED,
    "NOREPLICAS": (errno.EIO, "The server has too few replicas, so it does not accept writes"),
    "OOM": _FULL,
    "READONLY": _READ_ONLY,
    "WRONGPASS": _DENIED,
}
_CODE = re.compile(r"\b[A-Z]{3,}\b")


class RedisStates(Generic[Client]):
    """A state store in Redis 6 or later, or in Valkey. As safe for threads and forks as its client.

    The client is redis-py's or valkey-py's, for one server, Sentinel or a cluster. With a client for asyncio, the
    methods return awaitables. The caller owns the client.

    Each call is one round trip to the primary, whose time is the store's time. It is two when the server does not know
    the script: at first, and after a restart or a failover. A client that gets no reply may send a swap again by
    itself. The result then is not swapped, with ``new`` as the stored value.

    With a client for asyncio, a call ends after a second. With another client, its own limits apply, which must be one
    second and one retry at most::

        redis.Redis(..., socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 1))
    """

    __slots__ = ("_client", "_is_async")

    @overload
    def __init__(self: RedisStates[SyncClient], client: SyncClient) -> None: ...
    @overload
    def __init__(self: RedisStates[AsyncClient], client: AsyncClient) -> None: ...
    def __init__(self, client: SyncClient | AsyncClient) -> None:
        """Store the client; the server is not contacted yet.

        Raises:
            TypeError: the client is not an instance of one of redis-py's or valkey-py's clients.
            ValueError: a call of the client could take too long.

        """
        packages = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
        if not packages & _PACKAGES or not hasattr(client, "execute_command"):
            msg = f"client must be a client of redis-py or valkey-py, such as redis.Redis(...), not {shown(client)}"
            raise TypeError(msg)
        self._client: Any = client
        self._is_async = hasattr(client, "__aenter__")
        if not self._is_async:
            _check_limits(self._client)

    def __repr__(self) -> str:
        """Show the kind of client, whose own repr may show a password."""
        return f"RedisStates(<{type(self._client).__name__}>)"

    @property
    def is_async(self) -> bool:
        """Whether the client is for asyncio, so that the methods return awaitables."""
        return self._is_async

    @overload
    def read(self: RedisStates[SyncClient], key: str) -> ReadResult: ...
    @overload
    def read(self: RedisStates[AsyncClient], key: str) -> Awaitable[ReadResult]: ...
    def read(self, key: str) -> ReadResult | Awaitable[ReadResult]:
        """Return the stored value (``None``: absent), and the server's time in microseconds since 1970.

        Raises:
            TimeoutError: the server did not reply in time.
            ConnectionError: the server is not available, or all connections of the client's pool are in use.
            PermissionError: the server refuses the password, the user, or this user's access.
            OSError: the server is a read-only replica, its memory is full, or it does not accept writes.
            StoreError: the server refuses the call for another reason.

        """
        return self._run(_read_result, _READ, key)

    @overload
    def swap(self: RedisStates[SyncClient], key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult: ...
    @overload
    def swap(
        self: RedisStates[AsyncClient], key: str, old: bytes | None, new: bytes, keep: float
    ) -> Awaitable[SwapResult]: ...
    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult | Awaitable[SwapResult]:
        """Replace the value if it equals ``old`` (``None``: absent), and keep the new one for ``keep`` seconds.

        Return whether it was replaced, the value that is now stored, and the server's time in microseconds. Raise the
        same errors as `read`, and `ValueError` if ``keep`` is not more than 0 and at most a century.
        """

        def swap_result(reply: int | list[Any]) -> SwapResult:
            if isinstance(reply, int):
                return True, new, reply
            now, value = reply
            return False, value, now

        arguments = (new, math.ceil(microseconds(keep) / 1000))
        return self._run(swap_result, _SWAP, key, *arguments, *(() if old is None else (old,)))

    @overload
    def delete(self: RedisStates[SyncClient], key: str) -> None: ...
    @overload
    def delete(self: RedisStates[AsyncClient], key: str) -> Awaitable[None]: ...
    def delete(self, key: str) -> Awaitable[None] | None:
        """Delete the value, if any. Raise the same errors as `read`."""
        return self._run(_no_result, _DELETE, key)

    def _run(
        self, result: Callable[[Any], Result], script: _Script, key: str, *arguments: bytes | int
    ) -> Result | Awaitable[Result]:
        """Run a script, and return what ``result`` returns for its reply, or an awaitable of that."""
        return (self._run_async if self._is_async else self._run_sync)(result, script, 1, key, *arguments)

    def _run_sync(self, result: Callable[[Any], Result], script: _Script, *arguments: object) -> Result:
        try:
            try:
                reply = self._client.execute_command("EVALSHA", script.sha1, *arguments, NEVER_DECODE=True)
            except Exception as error:
                if not _is_unknown_script(error):
                    raise
                # This also loads the script.
                reply = self._client.execute_command("EVAL", script.source, *arguments, NEVER_DECODE=True)
        except Exception as error:
            if (failure := _translated(error)) is None:
                raise
            raise failure from None  # the client's exception may quote the command
        return result(reply)

    async def _run_async(self, result: Callable[[Any], Result], script: _Script, *arguments: object) -> Result:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                try:
                    reply = await self._client.execute_command("EVALSHA", script.sha1, *arguments, NEVER_DECODE=True)
                except Exception as error:
                    if not _is_unknown_script(error):
                        raise
                    reply = await self._client.execute_command("EVAL", script.source, *arguments, NEVER_DECODE=True)
        except Exception as error:
            if (failure := _translated(error)) is None:
                raise
            raise failure from None
        return result(reply)


def _check_limits(client: Any) -> None:  # noqa: ANN401  # any client
    """Raise `ValueError` if a call of a client that blocks could take much longer than a second."""
    settings = client.get_connection_kwargs()
    timeouts = {"socket_timeout": settings.get("socket_timeout")}
    if "path" not in settings:  # connecting to a Unix domain socket does not take long
        timeouts["socket_connect_timeout"] = settings.get("socket_connect_timeout")
    pool: Any = getattr(client, "connection_pool", None)
    if hasattr(pool, "timeout"):  # a BlockingConnectionPool
        timeouts["timeout of the connection pool"] = pool.timeout
    retry = getattr(client, "retry", None) or settings.get("retry")
    retries = getattr(client, "cluster_error_retry_attempts", 0) if retry is None else getattr(retry, "_retries", 0)
    if all(seconds and seconds <= CALL_SECONDS for seconds in timeouts.values()) and 0 <= retries <= _MAX_RETRIES:
        return
    given = ", ".join(f"{name}: {seconds}" for name, seconds in timeouts.items())
    msg = (
        f"client must have timeouts of at most {CALL_SECONDS:g} s and at most {_MAX_RETRIES} retry, so that no call "
        f"blocks for long; it has {given}, retries: {retries}. For example: "
        f"redis.Redis(..., socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 1))"
    )
    raise ValueError(msg)


def _read_result(reply: list[Any]) -> ReadResult:
    now, value = reply
    return value, now


def _no_result(_: object) -> None:
    """Ignore how many keys a script has deleted."""


def _is_unknown_script(error: Exception) -> bool:
    return type(error).__name__ == "NoScriptError"


def _translated(error: Exception) -> OSError | StoreError | None:
    """Return the error to raise instead of a client's exception, or ``None`` for other exceptions.

    Only the text of a connection's failure is kept: it names the server. Other texts may quote the command.
    """
    # The time may have been over while the client waited to retry after a failure of its own, which says more.
    causes = _causes(error) if isinstance(error, TimeoutError) else [error]
    failure = next(filter(_is_of_client, causes), error)
    if not (_is_of_client(failure) or isinstance(error, TimeoutError)):
        return None
    names = [cls.__name__ for cls in type(failure).__mro__]
    for name in (*names, *_CODE.findall(str(failure))):
        if name in _FAILURES:
            return OSError(*_FAILURES[name])
    if "ConnectionError" in names:
        return ConnectionError(errno.ENOTCONN, f"The server is not available: {failure}")
    return StoreError(f"The server refused the call ({names[0]})")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and what led to it; exceptions that were raised again may refer to each other."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _is_of_client(error: BaseException) -> bool:
    return any(cls.__name__ in _BASE_ERRORS for cls in type(error).__mro__)
