"""Waiting for locks: those of stores for one second from the beginning of a call, however many it needs."""

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
    """When the thread's current call must stop waiting, on `time.monotonic`; ``None`` outside of a call."""


_call = _Call()


@contextlib.contextmanager
def deadline(*, until: float | None = None, patient: bool = True) -> Generator[None]:
    """Treat all that this thread does in the block as one call, or as a part of the call that it is in.

    The call may wait for locks until a time on `time.monotonic` (``None``: for a second). One that is not ``patient``
    tries each lock once.
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
    """Treat what this thread does in the block as calls of their own: the embedder's code runs there."""
    outer, _call.until = _call.until, None
    try:
        yield
    finally:
        _call.until = outer


def seconds_left(timed_out_at: float) -> float:
    """Return how long the thread's call may still wait for a lock.

    ``timed_out_at`` is when a caller last waited for the lock in vain. A call that began before has waited for the lock
    too, or for that caller, and does not wait again.
    """
    now = time.monotonic()
    until = now + LOCK_SECONDS if _call.until is None else _call.until
    return 0.0 if until - LOCK_SECONDS <= timed_out_at else max(0.0, until - now)


def is_held(lock: threading.RLock) -> bool:
    """Return whether this thread holds a lock."""
    # Not public, but what threading.Condition asks of any lock, and typeshed lacks it.
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001


def acquire_soon(lock: threading.RLock) -> None:
    """Acquire a lock that is mostly held for less than a microsecond; held, too, if an interrupt is raised meanwhile.

    Threads that wait in the lock itself get it one after the other, with a switch of threads for each, for as long as
    they are busy. A thread that yields and tries again leaves the lock to the thread that is running.
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
