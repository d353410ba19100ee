"""Protocols for visitor state stores, and an in-memory store.

A state store keeps one small opaque value per visitor and replaces it by compare-and-swap.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from client_session_persistence.forks import ForkAware
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable

ReadResult: TypeAlias = tuple[bytes | None, int]
"""The stored value (``None``: absent), and the store's time in microseconds since 1970."""
SwapResult: TypeAlias = tuple[bool, bytes | None, int]
"""Whether the value was swapped, the value that is now stored, and the store's time in microseconds since 1970."""

CALL_SECONDS = 1.0
"""How long a call to a state store may take."""
MAX_KEEP = 3_155_760_000
"""The longest time in seconds for which a value can be kept: a century."""
_EXAMINED_PER_SWAP = 2


class StateStore(Protocol):
    """Keeps one value of up to about a kilobyte per key. Any number of threads may share a store.

    Keys are ASCII text. A value that has expired is absent. Each call ends within about a second, either successfully
    or with an `OSError` (such as `TimeoutError` or `ConnectionError`) or a `StoreError`. After an error, a swap may
    have taken place nevertheless. Errors do not contain keys or values.

    A store that is on the host, so that a call costs little, has an attribute ``is_local = True``; of other stores, a
    host remembers the last values, and swaps them without reading first.

    A store whose engine does not delete expired values also has a method ``purge() -> int``. It deletes them and
    returns how many there were.
    """

    def read(self, key: str) -> ReadResult:
        """Return the stored value (``None``: absent), and the store's time in microseconds since 1970."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Replace the value if it equals ``old`` (``None``: absent), in one atomic step; keep the new one ``keep`` s.

        Return whether it was replaced, the value that is now stored, and the store's time in microseconds since 1970.
        A caller that did not get the reply to a swap can send it again: the result then is not swapped, with ``new``
        as the stored value.

        Raises:
            ValueError: ``keep`` is not more than 0 and at most a century.

        """
        ...

    def delete(self, key: str) -> None:
        """Delete the value, if any."""


class AsyncStateStore(Protocol):
    """A `StateStore` for asyncio: its methods return awaitables.

    If they are not coroutine functions, it has an attribute ``is_async = True``.
    """

    def read(self, key: str) -> Awaitable[ReadResult]:
        """Return the stored value and the store's time, as `StateStore.read` does."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> Awaitable[SwapResult]:
        """Replace the value if it equals ``old``, as `StateStore.swap` does."""
        ...

    def delete(self, key: str) -> Awaitable[None]:
        """Delete the value, if any."""
        ...


class SyncClient(Protocol):
    """A database client whose calls block: a context manager, such as `redis.Redis` or `psycopg.Connection`."""

    def __enter__(self) -> object:
        """Return the client."""
        ...


class AsyncClient(Protocol):
    """A database client for asyncio: an asynchronous context manager, such as `redis.asyncio.Redis`."""

    def __aenter__(self) -> Awaitable[object]:
        """Return the client."""
        ...


Client = TypeVar("Client", SyncClient, AsyncClient)


def microseconds(keep: float) -> int:
    """Return how long to keep a value, in whole microseconds. Raise `ValueError` if it is out of range."""
    if not 0 < keep <= MAX_KEEP:
        msg = f"keep must be more than 0 and at most {MAX_KEEP} seconds (a century), not {shown(keep)}"
        raise ValueError(msg)
    return math.ceil(keep * 1_000_000)


def now_us() -> int:
    """Return the time of this machine's clock in microseconds since 1970."""
    return time.time_ns() // 1000


class MemoryStates(ForkAware):
    """A state store in this process's memory. Thread-safe.

    Other processes do not see its values: a forked child continues with a copy. Each swap examines two values and
    deletes those that have expired, so expired values never outnumber the others for long.
    """

    __slots__ = ("_entries", "_lock", "_to_examine")

    def __init__(self) -> None:
        """Start empty."""
        self._entries: dict[str, tuple[bytes, int]] = {}
        self._to_examine: list[str] = []
        super().__init__()

    def __repr__(self) -> str:
        """Show how many values there are, including those that have expired but have not been deleted yet."""
        return f"<MemoryStates values={len(self._entries)}>"

    @property
    def is_local(self) -> bool:
        """``True``: calls cost no round trip, so hosts read a value before they swap it."""
        return True

    def read(self, key: str) -> ReadResult:
        """Return the stored value (``None``: absent), and this machine's time in microseconds since 1970."""
        entry = self._entries.get(key)
        now = now_us()
        return (None if entry is None or entry[1] <= now else entry[0]), now

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Replace the value if it equals ``old`` (``None``: absent), and keep the new one for ``keep`` seconds.

        Return whether it was replaced, the value that is now stored, and this machine's time in microseconds.
        """
        lifetime = microseconds(keep)
        self.renew_in_child()
        with self._lock:
            self._examine()
            while True:
                before = self._entries.get(key)
                now = now_us()
                value = None if before is None or before[1] <= now else before[0]
                if value != old:
                    return False, value, now
                after = (new, now + lifetime)
                # No call from here to the assignment, so no signal handler can swap the same key in between.
                if (self._entries[key] if key in self._entries else None) is before:  # noqa: SIM401  # get() is a call
                    self._entries[key] = after
                    return True, new, now

    def delete(self, key: str) -> None:
        """Delete the value, if any."""
        self.renew_in_child()
        with self._lock:
            self._entries.pop(key, None)

    def renew(self) -> None:
        """Create a new lock, as a forked child must."""
        self._lock = threading.RLock()

    def _examine(self) -> None:
        """Delete those of the next few values that have expired."""
        if not self._to_examine:
            self._to_examine = list(self._entries)
        for key in self._to_examine[-_EXAMINED_PER_SWAP:]:
            entry = self._entries.get(key)
            is_expired = entry is not None and entry[1] <= now_us()
            # No call in between, as in swap().
            if is_expired and (self._entries[key] if key in self._entries else None) is entry:  # noqa: SIM401
                del self._entries[key]
        del self._to_examine[-_EXAMINED_PER_SWAP:]
