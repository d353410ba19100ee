"""How long a call may wait for the locks of stores: a second from its beginning, however often it needs one."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

LOCK_SECONDS = 1.0


class _Call(threading.local):
    begun: float | None = None
    """When the thread's present call began, by `time.monotonic`; ``None`` outside of one."""


_call = _Call()


@contextlib.contextmanager
def deadline(*, patient: bool = True) -> Generator[None]:
    """Let all that this thread does in the block be one call, or a part of the one that it is in.

    A call that is not patient tries each lock once.
    """
    if _call.begun is not None:
        yield
        return
    _call.begun = time.monotonic() if patient else -math.inf
    try:
        yield
    finally:
        _call.begun = None


@contextlib.contextmanager
def no_deadline() -> Generator[None]:
    """Let what this thread does in the block be no part of the call that it is in: the embedder's code runs there."""
    outer, _call.begun = _call.begun, None
    try:
        yield
    finally:
        _call.begun = outer


def seconds_left(given_up: float) -> float:
    """Return how long the thread's call may still wait for a lock that somebody waited for in vain at ``given_up``.

    Whoever called before that has waited, for the lock or for the one who waited for it.
    """
    now = time.monotonic()
    begun = now if _call.begun is None else _call.begun
    return 0.0 if begun <= given_up else max(0.0, begun + LOCK_SECONDS - now)
