"""Where snapshots are kept: the contract, and the store that forgets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from client_session_persistence.forks import ForkAware

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from client_session_persistence.snapshot import Snapshot


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

    def save(self, snapshot: Snapshot) -> Future[None] | None:
        """Keep this snapshot instead of the last, wholly or not at all; return when it is durable.

        Or return at once, with the future of that: from here on the snapshot is what this process loads, and no other
        can enter `lock` until it is durable, or has failed to be.
        """

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other user of the store can be in meanwhile, for reading, deciding and saving.

        Entering it again on the same thread must be possible. Waiting for it must end (`XmlStore`: after 1 s,
        with `TimeoutError`).
        """
        ...


class MemoryStore(ForkAware):
    """Keeps the snapshot in memory, for tests and for programs that want no file. Sessions may share one."""

    __slots__ = ("_lock", "_snapshot")

    def __init__(self) -> None:
        """Start with nothing kept."""
        super().__init__()
        self._snapshot: Snapshot | None = None

    def load(self) -> Snapshot | None:
        """Return what is kept, or ``None`` while nothing is."""
        return self._snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Keep this snapshot instead of the last."""
        with self.lock():
            self._snapshot = snapshot

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other thread can be in meanwhile."""
        self.renew_in_child()
        return self._lock

    def renew(self) -> None:
        """Make the lock."""
        self._lock = threading.RLock()
