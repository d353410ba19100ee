"""What all stores in files share: the path, which may be a link, and the lock file next to it."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from client_session_persistence import atomic_file
from client_session_persistence.atomic_file import path_next_to
from client_session_persistence.contexts import SafeContext
from client_session_persistence.lock_file import OwnerLock, ProcessLock

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from client_session_persistence.forks import Lease
    from client_session_persistence.lock_file import Hold
    from client_session_persistence.snapshot import Snapshot
    from client_session_persistence.store import Owner


class FileStore(ABC):
    """A store that keeps its snapshot in a file and uses ``<name>.lock`` to exclude other threads and processes."""

    __slots__ = ("__weakref__", "_is_resolved", "_lock", "_path", "_temporary")

    _temporary: str
    """The file that is written and then renamed. One name is enough, since only the lock's holder uses it."""

    def __init__(self, path: str) -> None:
        """Store the path, and resolve it if that is possible now."""
        self._is_resolved = False
        self._set_path(path)
        with contextlib.suppress(OSError):
            self._resolve()

    @abstractmethod
    def load(self) -> Snapshot | None:
        """Return the snapshot, or ``None`` if there is none."""

    @abstractmethod
    def save(self, snapshot: Snapshot) -> Future[None] | None:
        """Replace the snapshot."""

    @property
    def path(self) -> Path:
        """The path of the file."""
        return Path(self._path)

    @property
    def corrupt_path(self) -> Path:
        """The path of the last corrupt file, if any."""
        return Path(path_next_to(self._path, ".corrupt"))

    def lock(self) -> AbstractContextManager[object]:
        """Return a context manager that excludes other threads and processes, using ``<name>.lock``.

        Entering it creates missing folders and deletes any leftover temporary file. It waits while the lock changes
        hands or its holder writes, and raises `TimeoutError` if neither has happened for 1 s, or after 10 s. All waits
        within one call to a session share these 10 s.
        """
        return self._locked()

    def _owner(self, suffix: str) -> Owner:
        self._resolve()
        self._create_folder()
        return OwnerLock(path_next_to(self._path, suffix), self._path)

    def _locked(self, *, wait: bool = True) -> SafeContext[Lease]:
        entered: list[tuple[ProcessLock, Hold]] = []
        return SafeContext(partial(self._enter, entered, wait=wait), partial(self._leave, entered))

    def _enter(self, entered: list[tuple[ProcessLock, Hold]], *, wait: bool) -> Lease:
        """Acquire the lock, unless this thread has it, and add what `_leave` must release to ``entered``."""
        self._resolve()
        own_lease = self._lock.own_lease
        if own_lease is not None and not own_lease.is_void:
            return own_lease
        self._create_folder()
        lock = self._lock
        hold = lock.new_hold()
        entered.append((lock, hold))
        lease = lock.acquire(hold, wait=wait)
        self._on_acquired(lease)
        return lease

    def _leave(self, entered: list[tuple[ProcessLock, Hold]]) -> None:
        for lock, hold in entered:
            lock.release(hold)

    def _on_acquired(self, lease: Lease) -> None:
        """Delete a killed writer's temporary file."""
        with contextlib.suppress(OSError):
            lease.call(os.unlink, self._temporary)

    def _create_folder(self) -> None:
        folder_stat = atomic_file.create_folder(folder := os.path.dirname(self._path), sync=self._sync_new_folder)
        user = os.geteuid() if hasattr(os, "geteuid") else 0
        atomic_file.check_folder(folder, folder_stat.st_dev, folder_stat.st_ino, user)

    def _sync_new_folder(self, parent: str) -> None:
        """Make the name of a new folder durable."""
        atomic_file.sync_folder(parent)

    def _set_path(self, path: str) -> None:
        self._path, self._temporary = path, path_next_to(path, ".tmp")
        self._lock = ProcessLock(path_next_to(path, ".lock"), path)

    def _resolve(self) -> None:
        if not self._is_resolved:
            if (path := atomic_file.follow_links(self._path)) != self._path:
                self._set_path(path)
            self._is_resolved = True
