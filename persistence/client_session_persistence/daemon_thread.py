"""A daemon thread that runs while there is work, and pauses for forks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar


class DaemonThread(ABC):
    """Runs `_work` on a daemon thread, started when needed. Every method is thread-safe and re-entrant.

    The thread ends before a fork, so that the child inherits a consistent state (and Python sees one thread only), and
    starts again afterwards.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        """Start no thread yet."""
        self.renew()

    @abstractmethod
    def _work(self) -> None:
        """Work on the thread; return when there is nothing left to do, and soon after `is_pausing` is set."""

    @abstractmethod
    def _has_work(self) -> bool:
        """Return whether to call `_work` again after it has returned."""

    @abstractmethod
    def _wake(self) -> None:
        """Let `_work` notice `is_pausing` if it is waiting."""

    def renew(self) -> None:
        """Begin without a thread, as a forked child does."""
        self._running = threading.Lock()
        """Held while the thread runs. Nobody waits for it, so nobody can be kept waiting."""
        self._thread: threading.Thread | None = None
        self.is_pausing = False
        """Whether ``_work`` must return."""

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def ensure_running(self) -> bool:
        """Start the thread unless it runs; return whether it does, or will after a fork."""
        if self.is_pausing or sys.is_finalizing() or not self._running.acquire(blocking=False):
            return self.is_pausing or self._running.locked()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down, or the system is out of threads
            self._thread = None
            self._running.release()
            return False
        return True

    def pause(self, until: float) -> None:
        """End the thread; wait for that until a time on `time.monotonic`."""
        self.is_pausing = True
        thread = self._thread
        if thread is None or self.is_current:
            return
        self._wake()
        with contextlib.suppress(RuntimeError):  # not started yet: the fork interrupts its start
            thread.join(max(0.0, until - time.monotonic()))
        task = f"/proc/self/task/{thread.native_id}"
        while not thread.is_alive() and os.path.exists(task) and time.monotonic() < until:  # noqa: PTH110
            time.sleep(0)  # Python has left the thread, but the system still counts it

    def resume(self) -> None:
        """Start the thread again after a pause if there is work."""
        self.is_pausing = False
        if self._has_work():
            self.ensure_running()

    def _run(self) -> None:
        thread = threading.current_thread()
        while True:
            self._work()
            self._thread = None
            self._running.release()
            # Work that was added before the release found the thread running, so look once more.
            if self.is_pausing or not self._has_work() or not self._running.acquire(blocking=False):
                return
            self._thread = thread
