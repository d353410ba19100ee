"""The save file: one XML file shared by any number of processes."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from filelock import FileLock

from persistence.codec import MAX_BYTES, dumps, loads, readable_user_id
from persistence.durable import (
    PRIVATE,
    has_leftovers,
    keep_beside,
    make_folder,
    read_regular_file,
    remove_leftovers,
    sync_folder,
    write_durably,
)
from persistence.errors import CorruptSaveFileError
from persistence.snapshot import Snapshot
from persistence.waiting import seconds_left

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

_POLL_SECONDS = 0.005


@attrs.frozen
class _Reading:
    """What stood in the file when it was read under the lock; ``error`` if it was corrupt."""

    data: bytes
    mode: int
    snapshot: Snapshot | None
    error: CorruptSaveFileError | None


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
        self._temporary_of = (self.path, self.backup_path, self.corrupt_path)
        self._given_up = -math.inf
        """When somebody last waited in vain for the lock."""
        self._reading: _Reading | None = None
        """What `load` found under the lock that is now held, for `save`."""
        self._renew_lock()

    def __repr__(self) -> str:
        """Name the path."""
        return f"XmlStore({os.fspath(self.path)!r})"

    def load(self) -> Snapshot | None:
        """Return what the file holds, or ``None`` if there is no file; remove what a killed writer left beside it.

        Raises:
            CorruptSaveFileError: it is no save file. ``recovered`` is the backup's snapshot, or else the user id that
                is still readable in the file or its backup.
            OSError: it cannot be read.

        """
        if self._lock.is_locked:
            reading = self._reading = self._read()
        else:
            self._clear_up()
            reading = self._read()
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
        writer left. Within `persistence.waiting.one_call`, the second is the whole call's.
        """
        return self._locked()

    def _renew_lock(self) -> None:
        self._process = os.getpid()
        self._lock = FileLock(self._beside(".lock"), mode=PRIVATE, poll_interval=_POLL_SECONDS)
        self._reading = None

    @contextlib.contextmanager
    def _locked(self, *, wait: bool = True) -> Generator[None]:
        if self._process != os.getpid():
            self._renew_lock()  # what a forked child inherits is its parent's
        if self._lock.is_locked:
            yield
            return
        make_folder(self.path.parent)
        seconds = seconds_left(self._given_up) if wait else 0.0
        try:
            self._lock.acquire(seconds)
        except TimeoutError:
            if seconds:
                self._given_up = time.monotonic()
            raise
        try:
            remove_leftovers(*self._temporary_of)
            yield
        finally:
            self._reading = None
            self._lock.release()

    def _clear_up(self) -> None:
        """Remove what a killed writer left. If the lock is taken, it may be that of a writer who is at work."""
        if has_leftovers(*self._temporary_of):
            with contextlib.suppress(OSError), self._locked(wait=False):
                pass

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
