"""The process's shared checker: one daemon thread that ticks every session whose checker is running.

The thread is an actor: only the thread itself changes its schedule. Callers append requests to a deque, and wake the
thread if a request cannot wait until the next check. Both can be done anywhere, even in weak-reference callbacks,
``__del__`` and signal handlers. The thread runs while there is a session to tick, holds only weak references to
sessions, does not delay the interpreter's exit, and pauses for forks.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

from client_session.ticking.schedule import Reference, Request, TickSchedule, reference_to, tick_session
from client_session_persistence.daemon_thread import DaemonThread
from client_session_persistence.forks import Stage, register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_session.ticking.scheduler import Ticking


class Checker(DaemonThread):
    """A scheduler that runs its own thread while it has sessions to tick. Every method is thread-safe."""

    name = "client-session-checker"

    def renew(self) -> None:
        """Start over without sessions, as a forked child must; the child's sessions call `start` again."""
        schedule, requests = TickSchedule(), deque[Request]()
        self._schedule, self._requests = schedule, requests
        self._due: Iterator[Reference] = iter(())

        def forget(dead: Reference) -> None:
            requests.append((dead, None))
            if len(requests) >= len(schedule):  # wake the thread only if all sessions may be gone
                self._wake()

        self._forget = forget
        super().renew()

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs in real time
        """Tick the session every `check_interval` seconds; the first tick is at most one interval away.

        Raise `RuntimeError` if the thread cannot be started. Once a later call starts it, this session is ticked too.
        """
        reference, interval = reference_to(session, self._forget), session.check_interval
        self._requests.append((reference, interval))
        if interval not in self._schedule.by_interval:  # otherwise, the thread will wake up in time anyway
            self._wake()
        if not self.ensure_running() and not sys.is_finalizing():
            msg = "The checker thread could not be started"
            raise RuntimeError(msg)

    def stop(self, session: Ticking) -> None:
        """Stop ticking the session."""
        self._requests.append((reference_to(session), None))
        self._wake()

    def _work(self) -> None:
        schedule, requests = self._schedule, self._requests
        while not self.is_pausing:
            for _ in range(len(requests)):  # requests that arrive during this loop must not delay checks
                schedule.set(*requests.popleft())
            if not schedule.by_interval:
                return
            for session in self._due:
                tick_session(session)
                if self.is_pausing:
                    return  # the remaining sessions are ticked after the fork
            if not requests:
                self._wait(schedule.seconds_until_due())
            self._due = schedule.due()

    def _has_work(self) -> bool:
        return bool(self._requests or self._schedule.by_interval)


SHARED_CHECKER = Checker()
"""The default scheduler."""

register(
    Stage.THREADS,
    before_fork=SHARED_CHECKER.pause,
    after_fork_in_parent=SHARED_CHECKER.resume,
    after_fork_in_child=SHARED_CHECKER.renew,
)
