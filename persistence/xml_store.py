"""The save file: one XML file shared by any number of processes."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from filelock import FileLock

from persistence.codec import MAX_BYTES, dumps, loads, readable_user_id
from persistence.durable import (
    PRIVATE,
    keep_beside,
    read_regular_file,
    remove_leftovers,
    sync_folder,
    write_durably,
)
from persistence.errors import CorruptSaveFileError
from persistence.snapshot import Snapshot
from persistence.store import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

LOCK_SECONDS = 1.0
_POLL_SECONDS = 0.005


@attrs.frozen
class _Reading:
    """What stood in the file when it was read under the lock; ``error`` if it was corrupt."""

    data: bytes
    mode: int
    snapshot: Snapshot | None
    error: CorruptSaveFileError | None


_locks: weakref.WeakValueDictionary[int, FileLock] = weakref.WeakValueDictionary()


def _is_of_another(record: logging.LogRecord) -> bool:
    # filelock logs each acquisition at level DEBUG, and our caller holds its session's lock meanwhile: a deadlock if a
    # handler of the host's calls the session on another thread. Other locks log as ever.
    return not (isinstance(record.args, tuple) and record.args and record.args[0] in _locks)


logging.getLogger("filelock").addFilter(_is_of_another)


class XmlStore:
    """Keeps the snapshot in an XML file, atomically and durably, in the .NET tracker's format.

    Beside ``<name>`` stand ``<name>.bak`` (the last good file), ``<name>.lock`` (held round every
    read-modify-write) and, if there ever was one, ``<name>.corrupt`` (the last corrupt file). Parent folders are made
    when first needed. A path that is a symbolic link is followed once, at construction; the link stays.

    Any method may be called from any thread and from several processes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Keep the path; nothing is read or made yet."""
        self.path = Path(os.path.realpath(path))
        self.backup_path = self._beside(".bak")
        self.corrupt_path = self._beside(".corrupt")
        self._reading: _Reading | None = None
        """What `load` found under the lock that is now held, for `save`."""
        self._renew_lock()
        renew_after_fork(self)

    def __repr__(self) -> str:
        """Name the path."""
        return f"XmlStore({os.fspath(self.path)!r})"

    def load(self) -> Snapshot | None:
        """Return what the file holds, or ``None`` if there is no file.

        Raises:
            CorruptSaveFileError: it is no save file. ``recovered`` is the backup's snapshot, or else the user id that
                is still readable in the file or its backup.
            OSError: it cannot be read.

        """
        reading = self._read()
        if self._lock.is_locked:
            self._reading = reading
        if reading is None:
            return None
        if reading.error is not None:
            raise reading.error
        return reading.snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Write the file, wholly or not at all, and return when it would survive a power cut.

        A good file that stood there becomes the backup; a corrupt one is kept as ``<name>.corrupt``.

        Raises:
            OSError: it cannot be written, or what stands there cannot be read, or the lock was not free for 1 s
                (`TimeoutError`). The file is as it was.

        """
        data = dumps(snapshot)
        if loads(data) != snapshot:
            msg = f"{snapshot!r} does not read back equal, and was not written"
            raise ValueError(msg)
        with self.lock():
            before = self._reading or self._read()
            if before is None:
                mode = PRIVATE
            else:
                mode = before.mode
                kept = self.backup_path if before.error is None else self.corrupt_path
                keep_beside(self.path, kept, before.data)
            self._reading = None
            write_durably(self.path, data, mode)
            sync_folder(self.path.parent)

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other thread or process can be in meanwhile, by ``<name>.lock``.

        Entering it makes the parent folders, waits for at most 1 s (then `TimeoutError`), and removes what a killed
        writer left.
        """
        return self._locked()

    def after_fork(self) -> None:
        """Make a lock of this child's own: the one that it inherits is its parent's."""
        self._renew_lock()

    def _renew_lock(self) -> None:
        self._lock = FileLock(self._beside(".lock"), timeout=LOCK_SECONDS, mode=PRIVATE, poll_interval=_POLL_SECONDS)
        _locks[id(self._lock)] = self._lock
        self._reading = None

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        if self._lock.is_locked:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                remove_leftovers(self.path, self.backup_path, self.corrupt_path)
                yield
            finally:
                self._reading = None

    def _read(self) -> _Reading | None:
        try:
            data, mode = read_regular_file(self.path, MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            return _Reading(data, mode, loads(data), None)
        except CorruptSaveFileError as error:
            path = os.fspath(self.path)
            return _Reading(data, mode, None, CorruptSaveFileError(error.reason, path, self._recover(data)))

    def _recover(self, data: bytes) -> Snapshot | None:
        backup = b""
        with contextlib.suppress(OSError, CorruptSaveFileError):
            backup, _ = read_regular_file(self.backup_path, MAX_BYTES + 1)
            return loads(backup)
        user_id = readable_user_id(data) or readable_user_id(backup)
        return Snapshot(user_id=user_id) if user_id else None

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
