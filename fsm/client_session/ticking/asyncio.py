"""Ticks on a running asyncio loop, without a thread.

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

from client_session.ticking.schedule import Rounds, refer, tick
from client_session_persistence.forks import ForkAware, Stage, register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_session.ticking.schedule import Reference, Wish
    from client_session.ticking.scheduler import Ticking

_SLICE_SECONDS = 0.005
"""How long sessions are ticked at a stretch before the loop does what else it has to; its log calls 0.1 s slow."""


class AsyncioScheduler(ForkAware):
    """A scheduler for any number of sessions, which ticks them, and calls their callbacks, on one asyncio loop.

    The loop is the one that runs where the scheduler is constructed or a session is started first; when it has ended,
    the one that runs where that is done next. Until there is one, no ticks come, and sessions expire at their next
    event: if they are all constructed before ``asyncio.run``, call `attach` in it.

    Every method is thread-safe. Sessions and the loop are held weakly, and no task is made that might be cancelled.
    """

    __slots__ = ("__weakref__", "_due", "_forget", "_loop", "_rounds", "_timer", "_turn", "_wishes")

    def __init__(self) -> None:
        """Tick on the loop that runs here, if one does."""
        super().__init__()
        _schedulers.add(self)
        self.attach()

    def renew(self) -> None:
        """Start with nothing to tick and no loop, as a forked child must, too."""
        self._rounds = Rounds()
        self._turn = threading.Lock()
        """What a thread holds to change the rounds; nobody waits for it."""
        self._wishes: deque[Wish] = deque()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        # Of the loop alone:
        self._timer: weakref.ref[asyncio.TimerHandle] | None = None
        self._due: Iterator[Reference] = iter(())
        this = weakref.ref(self)

        def forget(dead: Reference) -> None:
            if (scheduler := this()) is not None:
                scheduler._change(dead, None)  # noqa: SLF001  # the class's own

        self._forget = forget

    def attach(self) -> None:
        """Tick on the loop that runs here from now on, unless the present one is still running."""
        self.renew_in_child()
        loop = self._loop() if self._loop is not None else None
        if loop is None or not loop.is_running():
            with contextlib.suppress(RuntimeError):  # none runs here: the present one may yet go on
                loop = asyncio.get_running_loop()
                self._loop = weakref.ref(loop)
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the sessions wait for the next one
                loop.call_soon_threadsafe(self._run, context=contextvars.Context())

    def detach(self) -> None:
        """Leave the loop, as a forked child must: the sessions wait for one of its own."""
        self._loop = self._timer = None

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # this scheduler runs on real time
        """Tick the session every `check_interval` seconds, the first time at most that long from now."""
        self.renew_in_child()
        self._change(refer(session, self._forget), session.check_interval)
        self.attach()

    def stop(self, session: Ticking) -> None:
        """Tick the session no more."""
        self._change(refer(session), None)

    def _change(self, session: Reference, interval: float | None) -> None:
        """Change the rounds now, or leave it to whoever is changing them: another thread, or this one, further up."""
        self.renew_in_child()
        self._wishes.append((session, interval))
        while self._wishes and self._turn.acquire(blocking=False):
            try:
                while self._wishes:
                    self._rounds.set(*self._wishes.popleft())
            finally:
                self._turn.release()

    def _run(self) -> None:
        """Tick on the loop who is due, for a moment; then let the rest, or the next round, wait for its time."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            return
        timer = self._timer() if self._timer is not None else None
        if timer is not None:
            timer.cancel()
        enough, unfinished = time.monotonic() + _SLICE_SECONDS, True
        try:
            for session in self._due:
                tick(session)
                if time.monotonic() >= enough:
                    break
            else:
                self._due, unfinished = self._rounds.due(), False
        finally:
            seconds = 0.0 if unfinished else self._rounds.seconds_until_due()
            if seconds is not None:
                # In a context of its own: whoever called `start` may have large things in its variables.
                self._timer = weakref.ref(loop.call_later(seconds, self._run, context=contextvars.Context()))


_schedulers: weakref.WeakSet[AsyncioScheduler] = weakref.WeakSet()


def _detach_in_child() -> None:
    for scheduler in list(_schedulers):
        scheduler.detach()


# After the sessions have started again: until then, the parent's loop seems to run in the child.
register(Stage.LOOPS, after_fork_in_child=_detach_in_child)
