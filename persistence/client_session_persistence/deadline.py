"""Deadlines for locks: how long a call waits for stores' locks in total, however many locks it needs."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

LOCK_SECONDS = 1.0
"""How long to wait for a lock that does not change hands. After that, its holder is considered hung."""
MAX_LOCK_SECONDS = 10.0
"""How long a call waits in total for locks that change hands."""
NEVER = -math.inf
"""A time before every wait."""
_TRIES = 20


class _Thread(threading.local):
    began: float = 0.0
    """The `time.monotonic` time at which the thread's current call began."""
    until: float | None = None
    """The `time.monotonic` time at which the thread's current call must stop waiting; ``None`` outside a call."""


THREAD = _Thread()
"""This thread's deadline. Restore it inline, in a ``finally`` clause: an exception from outside could prevent any
function, even the ``__exit__`` of a context manager, from doing so."""


def within_deadline(function: Callable[[], Result], *, until: float | None = None, patient: bool = True) -> Result:
    """Run a function as one call, or as part of the call that is already in progress on this thread.

    The call stops waiting for locks at ``until``, in `time.monotonic` time (default: ten seconds from now). A call that
    is not ``patient`` tries each lock only once.
    """
    if THREAD.until is not None:
        return function()
    try:
        THREAD.began = now = time.monotonic()
        THREAD.until = -math.inf if not patient else now + MAX_LOCK_SECONDS if until is None else until
        return function()
    finally:
        THREAD.until = None


class Wait:
    """One wait for a lock. It ends when the lock has not changed hands for a second, and at the call's deadline."""

    __slots__ = ("_began", "_call_began", "_until")

    def __init__(self) -> None:
        """Begin to wait."""
        self._began = now = time.monotonic()
        self._until, self._call_began = (
            (now + MAX_LOCK_SECONDS, now) if THREAD.until is None else (THREAD.until, THREAD.began)
        )

    def seconds_left(self, changed_at: float, timed_out_at: float) -> float:
        """Return how much longer to wait for a lock that last changed hands at ``changed_at`` (`time.monotonic`).

        ``timed_out_at`` is when a caller last timed out waiting for the lock. A call that began before then does not
        wait any longer: it has already waited, either for the lock or for that caller.
        """
        if self._call_began <= timed_out_at:
            return 0.0
        return max(0.0, min(self._until, max(self._began, changed_at) + LOCK_SECONDS) - time.monotonic())


def is_held(lock: threading.RLock) -> bool:
    """Return whether this thread holds a lock."""
    # `_is_owned` is private and missing from typeshed, but threading.Condition relies on it too.
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001


def acquire_soon(lock: threading.RLock) -> None:
    """Acquire a lock that is usually held for under a microsecond.

    Blocking would make busy threads take turns, with a thread switch for each acquisition; yielding and retrying lets
    the running thread keep using the lock.
    """
    for _ in range(_TRIES):
        time.sleep(0)
        if lock.acquire(blocking=False):
            return
    lock.acquire()
