"""Locks: who holds one, and how to get one that is held for a moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_TRIES = 20


def is_held(lock: threading.RLock) -> bool:
    """Tell whether this thread holds a lock."""
    # Not public, but what threading.Condition asks of any lock, and typeshed lacks it.
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001


def acquire_soon(lock: threading.RLock) -> None:
    """Acquire a lock that is mostly held for less than a microsecond; held, too, if an interrupt is raised meanwhile.

    Threads that wait in the lock itself are handed it one after the other, with a switch of threads for each, and go on
    so for as long as they are busy. Who lets others go on and tries again leaves it to whoever is running.
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
