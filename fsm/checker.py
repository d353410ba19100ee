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
import threading
from typing import TYPE_CHECKING

from fsm.rounds import Reference, Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.scheduler import Ticking

_logger = logging.getLogger(__name__)


class Checker:
    """A scheduler with a thread of its own while it has sessions to tick. Every method is thread-safe."""

    def __init__(self) -> None:
        """Start with nothing to tick, and no thread."""
        self.forget_all()

    def forget_all(self) -> None:
        """Start afresh, as a forked child must: the thread did not come along, and a lock may have been held."""
        wishes: queue.SimpleQueue[Callable[[Rounds], None]] = queue.SimpleQueue()
        self._wishes = wishes

        def forget(dead: Reference) -> None:
            wishes.put(lambda rounds: rounds.discard(dead.key, dead))

        self._forget = forget
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs on real time
        """Tick the session every `check_interval` seconds, the first time at most that long from now."""
        reference, interval = Reference.to(session, self._forget), session.check_interval
        self._wishes.put(lambda rounds: rounds.add(reference, interval))
        self._ensure_thread()

    def stop(self, session: Ticking) -> None:
        """Tick the session no more."""
        key = id(session)
        self._wishes.put(lambda rounds: rounds.discard(key))

    def _ensure_thread(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="client-session-checker", daemon=True)
            if self._thread is None:  # still: a signal handler's call may have come between
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is leaving, or the system has no more threads
                    self._thread = None
                    _logger.warning("No checker thread could be started; sessions expire at their next event")

    def _run(self) -> None:
        rounds, wishes, thread = Rounds(), self._wishes, threading.current_thread()
        while True:
            while (seconds := rounds.seconds_until_due()) is not None:
                with contextlib.suppress(queue.Empty):
                    wishes.get(timeout=seconds)(rounds)
                for session in rounds.due():
                    session.tick()
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
