"""A scheduler that ticks sessions on a running asyncio loop, without a thread.

>>> session = ClientSession(store=XmlStore("session.xml", background=True), scheduler=AsyncioScheduler())
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from client_session.ticking.schedule import TickSchedule, reference_to, tick_session
from client_session_persistence.forks import ForkAware, Stage, register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_session.ticking.schedule import Reference, Request
    from client_session.ticking.scheduler import Ticking

_SLICE_SECONDS = 0.005
"""How long to tick sessions before yielding to the loop; asyncio's debug mode logs callbacks of 0.1 s or more."""


class AsyncioScheduler(ForkAware):
    """A scheduler that ticks any number of sessions, and so runs their callbacks, on one asyncio loop.

    It uses the loop that is running when the scheduler is constructed or a session's checker starts. After that loop
    stops, it uses the loop that is running when a checker next starts. Without a loop, no checks run, and sessions
    expire at their next event. If you construct all sessions before ``asyncio.run``, call `attach` inside it.

    Every method is thread-safe. It holds only weak references to sessions and the loop, and creates no tasks.
    """

    __slots__ = ("__weakref__", "_due", "_forget", "_loop", "_requests", "_schedule", "_timer", "_updating")

    def __init__(self) -> None:
        """Use the running loop, if there is one."""
        super().__init__()
        _schedulers.add(self)
        self.attach()

    def renew(self) -> None:
        """Start with no sessions and no loop, as a forked child must."""
        self._schedule = TickSchedule()
        self._updating = threading.Lock()
        """Held while a thread changes the schedule; no thread ever waits for this lock."""
        self._requests: deque[Request] = deque()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        # These are used only on the loop:
        self._timer: weakref.ref[asyncio.TimerHandle] | None = None
        self._due: Iterator[Reference] = iter(())
        this = weakref.ref(self)

        def forget(dead: Reference) -> None:
            if (scheduler := this()) is not None:
                scheduler._change(dead, None)  # noqa: SLF001  # the class's own method

        self._forget = forget

    def attach(self) -> None:
        """Tick on the running loop from now on, unless the scheduler's previous loop is still running."""
        self.renew_in_child()
        loop = self._loop() if self._loop is not None else None
        if loop is None or not loop.is_running():
            with contextlib.suppress(RuntimeError):  # no loop is running here; the previous loop may run again
                loop = asyncio.get_running_loop()
                self._loop = weakref.ref(loop)
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed; sessions wait for the next loop
                loop.call_soon_threadsafe(self._run, context=contextvars.Context())

    def detach(self) -> None:
        """Leave the loop, as a forked child must; sessions are not ticked until the child runs a loop of its own."""
        self._loop = self._timer = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs in real time
        """Tick the session every `check_interval` seconds; the first tick is at most one interval away."""
        self.renew_in_child()
        self._change(reference_to(session, self._forget), session.check_interval)
        self.attach()

    def stop(self, session: Ticking) -> None:
        """Stop ticking the session."""
        self._change(reference_to(session), None)

    def _change(self, session: Reference, interval: float | None) -> None:
        """Change the schedule now, or queue the change for a call (on any thread) that is already changing it."""
        self.renew_in_child()
        self._requests.append((session, interval))
        while self._requests and self._updating.acquire(blocking=False):
            try:
                while self._requests:
                    self._schedule.set(*self._requests.popleft())
            finally:
                self._updating.release()

    def _run(self) -> None:
        """Tick sessions that are due, for at most one time slice, and schedule the next call."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            return
        if self._timer is not None and (timer := self._timer()) is not None:
            timer.cancel()
        slice_end, unfinished = time.monotonic() + _SLICE_SECONDS, True
        try:
            for session in self._due:
                tick_session(session)
                if time.monotonic() >= slice_end:
                    break
            else:
                self._due, unfinished = self._schedule.due(), False
        finally:
            seconds = 0.0 if unfinished else self._schedule.seconds_until_due()
            if seconds is not None:
                # Use an empty context: the timer must not keep the context variables of `start`'s caller alive.
                self._timer = weakref.ref(loop.call_later(seconds, self._run, context=contextvars.Context()))


_schedulers: weakref.WeakSet[AsyncioScheduler] = weakref.WeakSet()


def _detach_in_child() -> None:
    for scheduler in list(_schedulers):
        scheduler.detach()


# Run this after sessions restart: they may attach to the parent's loop, which appears to be running in the child.
register(Stage.LOOPS, after_fork_in_child=_detach_in_child)
