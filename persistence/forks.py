"""Locks in forked children: another thread of the parent may have held what a child inherits."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod


class _Guard:
    """What a thread holds to renew; made anew in each child, before it has threads."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.lock = threading.RLock()
        self.process = os.getpid()


_guard = _Guard()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guard.renew)


class ForkAware(ABC):
    """Something with locks that begins anew in each process that uses it."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        """Begin in this process."""
        self._process = _guard.process
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Make the locks, unlocked."""

    def renew_in_a_child(self) -> None:
        """Renew in the first call in a forked child, whichever of its threads makes it."""
        if self._process != _guard.process:
            with _guard.lock:
                if self._process != _guard.process:
                    self.renew()
                    self._process = _guard.process
