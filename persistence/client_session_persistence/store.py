"""The protocol for snapshot stores, and an in-memory store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from client_session_persistence.forks import ForkAware

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from client_session_persistence.snapshot import Snapshot


class SnapshotStore(Protocol):
    """Stores one snapshot. Several sessions and processes may share a store.

    Every method must be thread-safe. Methods raise `OSError` for system errors and `StoreError` for others; the session
    then continues and retries later. It treats any other `Exception` from a store in the same way, unless a signal
    handler raised it.

    At run time, a store that keeps nothing but the newest snapshot does not need `replace_user`: without it, a session
    calls `save` while holding the lock.

    Entities report a store's attribute ``storage_mechanism``, if it has one: ``"SQLITE"``, ``"COOKIE_1"``,
    ``"COOKIE_3"``, ``"LOCAL_STORAGE"`` (the default) or ``"FLASH_LSO"``.
    """

    def load(self) -> Snapshot | None:
        """Return the snapshot, or ``None`` if the store is empty.

        Raises:
            CorruptSaveFileError: the stored data is not valid; ``recovered`` is set if a snapshot was recovered.
            OSError: the store cannot be read, and so must not be overwritten.

        """

    def save(self, snapshot: Snapshot) -> Future[None] | None:
        """Replace the snapshot atomically, and return once the new one is durable.

        A store may instead return at once, with a future that completes when the snapshot is durable. Until then,
        `load` must already return the new snapshot in this process, and no other process may acquire the lock.
        """

    def replace_user(self, snapshot: Snapshot) -> None:
        """Replace the user: delete all that the store keeps of earlier snapshots, such as backups, and save this one.

        Acquire the lock, unless this thread holds it. Return once nothing of the earlier snapshots remains and the new
        one is durable, even if `save` returns earlier. The store is never empty in between. Raise if this is not
        possible; then the snapshot that `load` returns has not changed.
        """

    def lock(self) -> AbstractContextManager[object]:
        """Return a context manager that keeps all other users out of the store during a read-modify-write.

        It must be re-entrant on the same thread, and must time out (see `XmlStore.lock`).
        """
        ...


class Owner(Protocol):
    """A run's ownership of the saved session. A store whose saved sessions have owners has a method ``ownership``.

    ``ownership()`` returns an `Owner`; `ClientSession` calls it if ``continue_on_restart`` is set.
    """

    def own(self) -> bool:
        """Try to become the owner; return False if another run remains the owner."""
        ...

    def release(self) -> None:
        """Let another run become the owner."""


class MemoryStore(ForkAware):
    """An in-memory store, for tests and for programs that do not need a file. Sessions may share it."""

    __slots__ = ("_lock", "_snapshot")

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._snapshot: Snapshot | None = None

    def __repr__(self) -> str:
        """Show the number of the saved session, if any."""
        return f"<MemoryStore session_index={self._snapshot and self._snapshot.session_index}>"

    def load(self) -> Snapshot | None:
        """Return the snapshot, or ``None`` if the store is empty."""
        return self._snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        with self.lock():
            self._snapshot = snapshot

    def replace_user(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; nothing of the old one remains."""
        self.save(snapshot)

    def lock(self) -> AbstractContextManager[object]:
        """Return a context manager that excludes other threads."""
        self.renew_in_child()
        return self._lock

    def renew(self) -> None:
        """Create a new lock, as a forked child must."""
        self._lock = threading.RLock()
