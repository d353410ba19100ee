"""Deadlines for locks: a call waits for stores' locks for at most one second in total, however many locks it needs."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

LOCK_SECONDS = 1.0
_TRIES = 20


class _Call(threading.local):
    until: float | None = None
    """The `time.monotonic` time at which the thread's current call must stop waiting; ``None`` outside a call."""


_call = _Call()


@contextlib.contextmanager
def deadline(*, until: float | None = None, patient: bool = True) -> Generator[None]:
    """Treat everything that this thread does in the block as one call, or as part of the call already in progress.

    The call stops waiting for locks at ``until``, in `time.monotonic` time (default: one second from now). A call that
    is not ``patient`` tries each lock only once.
    """
    if _call.until is not None:
        yield
        return
    _call.until = -math.inf if not patient else time.monotonic() + LOCK_SECONDS if until is None else until
    try:
        yield
    finally:
        _call.until = None


@contextlib.contextmanager
def no_deadline() -> Generator[None]:
    """Treat each call that this thread makes in the block as a new call, since the block runs the embedder's code."""
    outer, _call.until = _call.until, None
    try:
        yield
    finally:
        _call.until = outer


def seconds_left(timed_out_at: float) -> float:
    """Return how long the thread's call may still wait for a lock.

    ``timed_out_at`` is when a caller last timed out waiting for the lock. A call that began before then does not
    wait again: it has already waited, either for the lock or for that caller.
    """
    now = time.monotonic()
    until = now + LOCK_SECONDS if _call.until is None else _call.until
    return 0.0 if until - LOCK_SECONDS <= timed_out_at else max(0.0, until - now)


def is_held(lock: threading.RLock) -> bool:
    """Return whether this thread holds a lock."""
    # `_is_owned` is private and missing from typeshed, but threading.Condition relies on it too.
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001


def acquire_soon(lock: threading.RLock) -> None:
    """Acquire a lock that is usually held for under a microsecond. If interrupted, acquire it before re-raising.

    Blocking would make busy threads take turns, with a thread switch for each acquisition; yielding and retrying lets
    the running thread keep using the lock.
    """
    try:
        for _ in range(_TRIES):
            time.sleep(0)
            if lock.acquire(blocking=False):
                return
        lock.acquire()
    except BaseException:
        if not is_held(lock):
            lock.acquire()
        raise
