"""The shared checker of the process: one daemon thread that ticks every session whose checker is running.

Only the thread changes its schedule. Other threads append requests to a deque, and wake it up (through a
`queue.SimpleQueue`) if a request cannot wait for the next tick. Both can be done from anywhere, weak reference
callbacks, ``__del__`` and signal handlers included. The thread runs while there are sessions to tick, holds them
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

from client_session.ticking.schedule import Reference, Request, TickSchedule, reference_to, tick_session

if TYPE_CHECKING:
    from client_session.ticking.scheduler import Ticking


class Checker:
    """A scheduler that runs its own thread while it has sessions to tick. Every method is thread-safe."""

    def __init__(self) -> None:
        """Start without sessions and without a thread."""
        self.forget_all()

    def forget_all(self) -> None:
        """Start afresh, as a forked child must: the thread did not come along, and a lock may have been held."""
        schedule, requests = TickSchedule(), deque[Request]()
        wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._schedule, self._requests, self._wakeup = schedule, requests, wakeup

        def forget(dead: Reference) -> None:
            requests.append((dead, None))
            if len(requests) >= len(schedule):  # perhaps no session is left, so the thread can end
                wakeup.put(None)

        self._forget = forget
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs on real time
        """Tick the session every `check_interval` seconds, for the first time within that interval.

        Raises:
            RuntimeError: no thread could be started. The next thread that starts, for any session, ticks this one too.

        """
        reference, interval = reference_to(session, self._forget), session.check_interval
        self._requests.append((reference, interval))
        if interval not in self._schedule.by_interval:  # otherwise the thread wakes up in time
            self._wakeup.put(None)
        self._ensure_thread()

    def stop(self, session: Ticking) -> None:
        """Stop ticking the session."""
        self._requests.append((reference_to(session), None))
        self._wakeup.put(None)

    def _ensure_thread(self) -> None:
        if sys.is_finalizing():
            return  # threads no longer run, and the lock may never be released
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="client-session-checker", daemon=True)
            if self._thread is None:  # a signal handler may have started one meanwhile
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError as error:  # the interpreter is exiting, or the system allows no more threads
                    self._thread = None
                    msg = "No checker thread could be started"
                    raise RuntimeError(msg) from error

    def _run(self) -> None:
        schedule, requests, thread = self._schedule, self._requests, threading.current_thread()
        while True:
            while requests:
                schedule.set(*requests.popleft())
            if schedule.by_interval:
                for session in schedule.due():
                    tick_session(session)
                if not requests:
                    with contextlib.suppress(queue.Empty):
                        self._wakeup.get(timeout=schedule.seconds_until_due())
                continue
            with self._starting:
                self._thread = None
                # A finalizer may call meanwhile: its request is in the deque, or it has started another thread.
                if not requests or self._thread is not None:
                    return
                self._thread = thread


SHARED_CHECKER = Checker()
"""The default scheduler."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED_CHECKER.forget_all)  # sessions start their checkers again themselves
