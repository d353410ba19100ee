"""Where snapshots are kept: the contract, and the store that forgets."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from persistence.snapshot import Snapshot


class _Renewable(Protocol):
    def after_fork(self) -> None: ...


_renewed_after_fork: weakref.WeakSet[_Renewable] = weakref.WeakSet()


def renew_after_fork(store: _Renewable) -> None:
    """Call the store's `after_fork` in each child, before a thread can run there."""
    _renewed_after_fork.add(store)


def _after_fork_in_child() -> None:
    for store in list(_renewed_after_fork):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class SnapshotStore(Protocol):
    """Keeps one snapshot, for one or several sessions in one or several processes.

    Every method may be called from any thread. What goes wrong is raised, as `OSError` where it is the system's
    fault; the session carries on and tries again later.
    """

    def load(self) -> Snapshot | None:
        """Return what is kept, or ``None`` while nothing is.

        Raises:
            CorruptSaveFileError: what is kept cannot be understood; the error holds what could be recovered.
            OSError: it cannot be read. A store that cannot be read must not be overwritten.

        """

    def save(self, snapshot: Snapshot) -> None:
        """Keep this snapshot instead of the last, wholly or not at all; return when it is durable."""

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other user of the store can be in meanwhile, for reading, deciding and saving.

        Entering it again on the same thread must be possible. Waiting for it must end (`XmlStore`: after 1 s,
        with `TimeoutError`).
        """
        ...


class MemoryStore:
    """Keeps the snapshot in memory, for tests and for programs that want no file. Sessions may share one."""

    __slots__ = ("__weakref__", "_lock", "_snapshot")

    def __init__(self) -> None:
        """Start with nothing kept."""
        self.after_fork()
        self._snapshot: Snapshot | None = None
        renew_after_fork(self)

    def load(self) -> Snapshot | None:
        """Return what is kept, or ``None`` while nothing is."""
        return self._snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Keep this snapshot instead of the last."""
        with self.lock():
            self._snapshot = snapshot

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other thread can be in meanwhile."""
        return self._lock

    def after_fork(self) -> None:
        """Make a lock: a thread of the parent may have held the one that this child inherits."""
        self._lock = threading.RLock()
