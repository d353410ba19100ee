"""A daemon thread that runs while it has work and pauses for forks."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar

_logger = logging.getLogger(__name__)


class DaemonThread(ABC):
    """Runs `_work` on a daemon thread that is started when needed. Every method is thread-safe and re-entrant.

    The thread ends before a fork and starts again afterward, so that the child inherits a consistent state and Python
    does not warn about forking a multithreaded process.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        """Initialize without starting a thread."""
        self.renew()

    @abstractmethod
    def _work(self) -> None:
        """Do the thread's work. Return when there is nothing left to do, or soon after `is_pausing` is set."""

    @abstractmethod
    def _has_work(self) -> bool:
        """Return whether to call `_work` again after it has returned."""

    def _wait(self, seconds: float | None = None) -> None:
        """In `_work`, wait for a call to `_wake`. Check for work first: calls from before the thread began are lost."""
        if self._wakeup is not None:
            with contextlib.suppress(queue.Empty):
                self._wakeup.get(timeout=seconds)

    def _wake(self) -> None:
        """Wake `_work` if it is waiting. This can be called even in ``__del__`` and signal handlers."""
        if (wakeup := self._wakeup) is not None:
            wakeup.put(None)

    def renew(self) -> None:
        """Start over without a thread, as a forked child must."""
        self._threads: dict[str, threading.Thread] = {}
        """The thread, if any, by name. `dict.setdefault` claims its place in one step, which nothing can interrupt."""
        self._wakeup: queue.SimpleQueue[None] | None = None
        """Created by each new thread, because gevent or eventlet may have replaced threads and queues meanwhile."""
        self.is_pausing = False
        """Whether ``_work`` must return."""

    @property
    def is_running(self) -> bool:
        """Whether the thread is running or about to start."""
        return bool(self._threads)

    @property
    def is_current(self) -> bool:
        """Whether the caller is running on this thread."""
        return threading.current_thread() is self._threads.get(self.name)

    def ensure_running(self) -> bool:
        """Start the thread if necessary; return whether it is running or will be restarted after a fork."""
        if self.is_pausing or sys.is_finalizing() or self._threads:
            return self.is_pausing or self.is_running
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            if self._threads.setdefault(self.name, thread) is thread:
                thread.start()
        except RuntimeError:  # no more threads, the interpreter is exiting, or a subinterpreter forbids daemon threads
            self._threads.pop(self.name, None)
            return False
        except BaseException:  # from outside; if the thread has started nevertheless, it claims the place again
            if self._threads.get(self.name) is thread and thread.ident is None:
                self._threads.pop(self.name, None)
            raise
        return True

    def pause(self, until: float) -> None:
        """Stop the thread and wait for it to end, but not past ``until`` (a `time.monotonic` time)."""
        self.is_pausing = True
        thread = self._threads.get(self.name)
        if thread is None or self.is_current:
            return
        self._wake()
        with contextlib.suppress(RuntimeError):  # the fork interrupted the thread's start, so it cannot be joined
            thread.join(max(0.0, until - time.monotonic()))
        if thread.native_id == threading.get_native_id():  # gevent or eventlet runs both on one thread
            return
        task = f"/proc/self/task/{thread.native_id}"
        while not thread.is_alive() and os.path.exists(task) and time.monotonic() < until:  # noqa: PTH110
            time.sleep(0)  # the thread has ended in Python, but the system still lists it

    def resume(self) -> None:
        """Start the thread again after a pause if there is work."""
        self.is_pausing = False
        if self._has_work():
            self.ensure_running()

    def _run(self) -> None:
        thread = threading.current_thread()
        while self._threads.setdefault(self.name, thread) is thread:
            self._wakeup = queue.SimpleQueue()
            try:
                self._work()
            except BaseException:  # for example, SystemExit raised by one of the embedder's callbacks
                with contextlib.suppress(BaseException):
                    _logger.exception("%s continues after an unexpected exception", self.name)
                continue
            self._threads.pop(self.name, None)
            # Callers that added work before this still saw the thread running, so check for work again.
            if self.is_pausing or not self._has_work():
                return
