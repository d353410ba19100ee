"""The process's shared checker: one daemon thread that ticks every session whose checker is running.

The thread is an actor. It alone changes what it knows; what others want of it they put into a deque, and ring a bell
(a `queue.SimpleQueue`) if it cannot wait until the thread's next round. Both may be done from anywhere (weak reference
callbacks, ``__del__`` and signal handlers included). The thread lives while there is a session to tick, holds sessions
weakly, and does not delay the interpreter's exit.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from client_session.ticking.schedule import Reference, Rounds, Wish, refer, tick

if TYPE_CHECKING:
    from client_session.ticking.scheduler import Ticking


class Checker:
    """A scheduler with a thread of its own while it has sessions to tick. Every method is thread-safe."""

    def __init__(self) -> None:
        """Start with nothing to tick, and no thread."""
        self.forget_all()

    def forget_all(self) -> None:
        """Start afresh, as a forked child must: the thread did not come along, and a lock may have been held."""
        rounds, wishes = Rounds(), deque[Wish]()
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rounds, self._wishes, self._bell = rounds, wishes, bell

        def forget(dead: Reference) -> None:
            wishes.append((dead, None))
            if len(wishes) >= len(rounds):  # it may have been the last one; of many, a few wake the thread
                bell.put(None)

        self._forget = forget
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs on real time
        """Tick the session every `check_interval` seconds, the first time at most that long from now.

        Raises:
            RuntimeError: no thread could be started. Once one can, for any session, it ticks this one too.

        """
        reference, interval = refer(session, self._forget), session.check_interval
        self._wishes.append((reference, interval))
        if interval not in self._rounds.by_interval:  # else the thread comes round in time by itself
            self._bell.put(None)
        self._ensure_thread()

    def stop(self, session: Ticking) -> None:
        """Tick the session no more."""
        self._wishes.append((refer(session), None))
        self._bell.put(None)

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
        rounds, wishes, thread = self._rounds, self._wishes, threading.current_thread()
        while True:
            while wishes:
                rounds.set(*wishes.popleft())
            if rounds.by_interval:
                for session in rounds.due():
                    tick(session)
                if not wishes:
                    with contextlib.suppress(queue.Empty):
                        self._bell.get(timeout=rounds.seconds_until_due())
                continue
            with self._starting:
                self._thread = None
                # A finalizer's call may come between: what it wishes is in the queue, or it has started another thread.
                if not wishes or self._thread is not None:
                    return
                self._thread = thread


SHARED_CHECKER = Checker()
"""The scheduler of every session that is given no other."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED_CHECKER.forget_all)  # sessions start their checkers again themselves
