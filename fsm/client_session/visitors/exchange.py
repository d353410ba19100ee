"""The exchange with a state store that applies one input: read, decide, and swap, until no other host was faster.

It is a generator that yields requests and receives replies, so one code serves synchronous and asynchronous stores.
"""

from __future__ import annotations

import random
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from client_session.clock import SYSTEM_CLOCK
from client_session.visitors.value import NEW_VISITOR, VisitorState, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from client_session.visitors.decision import Outcome, Report

Result = TypeVar("Result")
Request = "Callable[[Any], Any]"
"""Makes one call to a state store, and returns its result (of an asynchronous store, an awaitable)."""

CONTENTION_SECONDS = 1.0
"""How long an input competes with other hosts for a visitor's state."""
PAUSE_SECONDS = 0.005
"""The longest pause of a host that competes with others for a visitor, before its next input of this visitor."""
RECENT_MICROSECONDS = 50_000
"""How long ago the input of another host was, at most, if the hosts compete."""
CLOCK_SECONDS = 60.0
"""How long the store's time is carried forward by this host's monotonic clock."""
CACHE_SIZE = 10_000

_RANDOM = random.SystemRandom()


@attrs.define  # created for every input; attrs.frozen would take twice as long
class Entry:
    """A visitor's state as last seen by this host."""

    value: bytes | None
    state: VisitorState
    is_contended: bool = False
    """Whether another host was faster at first, with an input just before this one."""


_NEW = Entry(None, NEW_VISITOR)


class Cache:
    """The last states that this host has seen, so that it can swap without reading first.

    It has two generations, each at most half of `CACHE_SIZE`: when the newer one is full, it becomes the older one,
    whose states are forgotten. Without a lock, it can be used by threads, in signal handlers and in forked children:
    at worst, they forget a state, or remember one that the store refuses to swap.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._newer: dict[str, Entry] = {}
        self._older: dict[str, Entry] = {}
        self._clock: tuple[float, int] | None = None

    def get(self, key: str) -> Entry | None:
        """Return a visitor's state, if it is known."""
        return self._newer.get(key) or self._older.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Remember a visitor's state."""
        self._newer[key] = entry
        if len(self._newer) >= CACHE_SIZE // 2:
            self._older, self._newer = self._newer, {}

    def drop(self, key: str) -> None:
        """Forget a visitor's state."""
        self._newer.pop(key, None)
        self._older.pop(key, None)

    def set_time(self, now: int) -> None:
        """Note the store's time as of now."""
        self._clock = SYSTEM_CLOCK.monotonic(), now

    def time(self) -> int | None:
        """Return the store's time, or ``None`` if its last reply is too long ago."""
        if self._clock is None:
            return None
        at, now = self._clock
        elapsed = SYSTEM_CLOCK.monotonic() - at
        return now + int(elapsed * 1e6) if elapsed < CLOCK_SECONDS else None


class Exchanges:
    """Applies inputs to the states of visitors. Thread-safe."""

    def __init__(self, keep: float, pause: Callable[[float], object], *, is_local: bool) -> None:
        """Keep states for ``keep`` seconds, and sleep with ``pause`` (which may return an awaitable).

        If the store ``is_local``, reading costs nothing, and nothing is cached.
        """
        self._keep = keep
        self._pause = pause
        self._cache = None if is_local else Cache()

    def apply(
        self, key: str, decide: Callable[[VisitorState, int], Outcome]
    ) -> Generator[Callable[[Any], Any], Any, Report]:
        """Apply an input, which ``decide`` decides given a state and the store's time. Return what to report.

        Raises:
            TimeoutError: other hosts changed the state first each time, for `CONTENTION_SECONDS`.

        """
        end = SYSTEM_CLOCK.monotonic() + CONTENTION_SECONDS
        cached = self._cached(key)
        if cached is not None and cached[0].is_contended:
            yield self._wait  # so that hosts that lose can win; they try again at once
            cached = self._cached(key)
        is_cached, is_contended = cached is not None, False
        entry, now = cached or (yield from self._read(key))
        while True:
            outcome = decide(entry.state, now)
            if outcome.state is not None:
                # No two tries write the same value, so a value that equals `new` was written by this one.
                new = outcome.state.encode(key, _RANDOM.getrandbits(32))
                is_swapped, value, now = yield methodcaller("swap", key, entry.value, new, self._keep)
                if is_swapped or value == new:  # equal if the client lost the reply, and sent the swap again
                    self._remember(key, Entry(new, outcome.state, is_contended), now)
                    return outcome.report()
                entry = self._remember(key, _entry(key, value), now)
                if SYSTEM_CLOCK.monotonic() > end:
                    msg = f"other hosts changed the visitor's state first each time for {CONTENTION_SECONDS:g} s"
                    raise TimeoutError(msg)
                is_contended = now - entry.state.last_input < RECENT_MICROSECONDS
            elif not is_cached:
                return outcome.report()
            else:
                reply: tuple[Entry, int] = yield from self._read(key)
                entry, now = reply
            is_cached = False

    def read(
        self, key: str, look: Callable[[VisitorState, int], Result]
    ) -> Generator[Callable[[Any], Any], Any, Result]:
        """Read a visitor's state, and return the result of ``look``."""
        entry, now = yield from self._read(key)
        return look(entry.state, now)

    def delete(self, key: str) -> Generator[Callable[[Any], Any], Any, None]:
        """Delete a visitor's state."""
        if self._cache is not None:
            self._cache.drop(key)
        yield methodcaller("delete", key)

    def _cached(self, key: str) -> tuple[Entry, int] | None:
        if self._cache is None:
            return None
        entry, now = self._cache.get(key), self._cache.time()
        return None if entry is None or now is None else (entry, now)

    def _wait(self, _: object) -> object:
        return self._pause(random.uniform(0, PAUSE_SECONDS))  # noqa: S311  # not secret

    def _read(self, key: str) -> Generator[Callable[[Any], Any], Any, tuple[Entry, int]]:
        value, now = yield methodcaller("read", key)
        return self._remember(key, _entry(key, value), now), now

    def _remember(self, key: str, entry: Entry, now: int) -> Entry:
        if self._cache is not None:
            self._cache.put(key, entry)
            self._cache.set_time(now)
        return entry


def _entry(key: str, value: bytes | None) -> Entry:
    return _NEW if value is None else Entry(value, decode(key, value))
