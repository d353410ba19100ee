"""The process's shared checker: one daemon thread that ticks every session whose checker is running.

The thread is an actor. All that it knows is its own, and what others want of it comes through a `queue.SimpleQueue`,
whose ``put`` may be called from anywhere (weak reference callbacks, ``__del__`` and signal handlers included). It lives
while there is a session to tick, holds sessions weakly, and does not delay the interpreter's exit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

import attrs

from fsm.errors import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.scheduler import Ticking

_logger = logging.getLogger(__name__)


class _Reference(weakref.ref["Ticking"]):
    """A session, known by its id also when it is gone."""

    __slots__ = ("key",)

    key: int


@attrs.define
class _Round:
    """The sessions of one check interval, ticked together."""

    due: float
    sessions: dict[int, _Reference] = attrs.field(factory=dict[int, _Reference])


@attrs.define
class _Rounds:
    """What the thread knows: rounds by interval, and each session's interval by its id."""

    by_interval: dict[float, _Round] = attrs.field(factory=dict[float, _Round])
    interval_of: dict[int, float] = attrs.field(factory=dict[int, float])

    def add(self, session: _Reference, interval: float) -> None:
        self.discard(session.key)
        now = time.monotonic()
        self.by_interval.setdefault(interval, _Round(now + interval)).sessions[session.key] = session
        self.interval_of[session.key] = interval

    def discard(self, key: int, only: _Reference | None = None) -> None:
        """Forget a session; with ``only``, not one that got a dead one's id since."""
        interval = self.interval_of.get(key)
        if interval is None:
            return
        sessions = self.by_interval[interval].sessions
        if only is not None and sessions[key] is not only:
            return
        del sessions[key], self.interval_of[key]
        if not sessions:
            del self.by_interval[interval]

    def seconds_until_due(self) -> float:
        due = min(members.due for members in self.by_interval.values())
        return min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)  # a longer wait overflows

    def tick_due(self) -> None:
        now = time.monotonic()
        for interval, members in list(self.by_interval.items()):
            if members.due <= now:
                members.due = now + interval
                for session in list(members.sessions.values()):
                    _tick(session)


def _tick(reference: _Reference) -> None:
    session = reference()
    if session is None:
        return
    try:
        session.tick()
    except SessionClosedError:
        pass  # closed between the look-up and the tick
    except Exception:
        _logger.exception("A session's tick failed; the checker goes on")


class Checker:
    """A scheduler with a thread of its own while it has sessions to tick. Every method is thread-safe."""

    def __init__(self) -> None:
        """Start with nothing to tick, and no thread."""
        self.forget_all()

    def forget_all(self) -> None:
        """Start afresh, as a forked child must: the thread did not come along, and a lock may have been held."""
        wishes: queue.SimpleQueue[Callable[[_Rounds], None]] = queue.SimpleQueue()
        self._wishes = wishes

        def forget(dead: _Reference) -> None:
            wishes.put(lambda rounds: rounds.discard(dead.key, dead))

        self._forget = forget
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs on real time
        """Tick the session every `check_interval` seconds, the first time at most that long from now.

        Raises:
            RuntimeError: no thread could be started. Once one can, for any session, it ticks this one too.

        """
        reference, interval = _Reference(session, self._forget), session.check_interval
        reference.key = id(session)
        self._wishes.put(lambda rounds: rounds.add(reference, interval))
        self._ensure_thread()

    def stop(self, session: Ticking) -> None:
        """Tick the session no more."""
        key = id(session)
        self._wishes.put(lambda rounds: rounds.discard(key))

    def _ensure_thread(self) -> None:
        if sys.is_finalizing():
            return  # nothing ticks any more, and the thread that did holds for ever what it held
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="client-session-checker", daemon=True)
            if self._thread is None:  # still: a signal handler's call may have come between
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError as error:  # the interpreter is leaving, or the system has no more threads
                    self._thread = None
                    msg = "No checker thread could be started"
                    raise RuntimeError(msg) from error

    def _run(self) -> None:
        rounds, wishes, thread = _Rounds(), self._wishes, threading.current_thread()
        while True:
            while rounds.by_interval:
                rounds.tick_due()
                with contextlib.suppress(queue.Empty):
                    wishes.get(timeout=rounds.seconds_until_due())(rounds)
            with self._starting:
                self._thread = None
                # A finalizer's call may come between: what it wishes is in the queue, or it has started another thread.
                if wishes.empty() or self._thread is not None:
                    return
                self._thread = thread
            wishes.get()(rounds)


SHARED_CHECKER = Checker()
"""The scheduler of every session that is given no other."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED_CHECKER.forget_all)  # sessions start their checkers again themselves
