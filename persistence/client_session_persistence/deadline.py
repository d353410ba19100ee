"""Deadlines for locks: a call waits for stores' locks for at most one second in total, however many locks it needs."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

LOCK_SECONDS = 1.0
_TRIES = 20


class _Thread(threading.local):
    until: float | None = None
    """The `time.monotonic` time at which the thread's current call must stop waiting; ``None`` outside a call."""


THREAD = _Thread()
"""This thread's deadline. Restore it inline, in a ``finally`` clause: an exception from outside could prevent any
function, even the ``__exit__`` of a context manager, from doing so."""


def within_deadline(function: Callable[[], Result], *, until: float | None = None, patient: bool = True) -> Result:
    """Treat everything that this thread does in the function as one call, or as part of the call already in progress.

    The call stops waiting for locks at ``until``, in `time.monotonic` time (default: one second from now). A call that
    is not ``patient`` tries each lock only once.
    """
    if THREAD.until is not None:
        return function()
    try:
        THREAD.until = -math.inf if not patient else time.monotonic() + LOCK_SECONDS if until is None else until
        return function()
    finally:
        THREAD.until = None


def seconds_left(timed_out_at: float) -> float:
    """Return how long the thread's call may still wait for a lock.

    ``timed_out_at`` is when a caller last timed out waiting for the lock. A call that began before then does not
    wait again: it has already waited, either for the lock or for that caller.
    """
    now = time.monotonic()
    until = now + LOCK_SECONDS if THREAD.until is None else THREAD.until
    return 0.0 if until - LOCK_SECONDS <= timed_out_at else max(0.0, until - now)


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
