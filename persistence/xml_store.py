"""The save file: one XML file shared by any number of processes."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from filelock import FileLock

from persistence.codec import MAX_BYTES, dumps, loads, readable_user_id
from persistence.durable import (
    PRIVATE,
    PRIVATE_FOLDER,
    follow_links,
    has_leftovers,
    keep_beside,
    read_regular_file,
    remove_leftovers,
    sync_folder,
    write_durably,
)
from persistence.errors import CorruptSaveFileError
from persistence.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

LOCK_SECONDS = 1.0
_POLL_SECONDS = 0.005


@attrs.frozen
class _Reading:
    """What stood in the file when it was read under the lock; ``error`` if it was corrupt."""

    data: bytes
    status: os.stat_result
    snapshot: Snapshot | None
    error: CorruptSaveFileError | None


class XmlStore:
    """Keeps the snapshot in an XML file, atomically and durably, in the .NET tracker's format.

    Beside ``<name>`` stand ``<name>.bak`` (the last good file), ``<name>.lock`` (held round every
    read-modify-write) and, if there ever was one, ``<name>.corrupt`` (the last corrupt file). Parent folders are made
    when first needed, the last of them private. A path that is a symbolic link is followed once, at construction or as
    soon as that can be done; the link stays.

    Any method may be called from any thread and from several processes.
    """

    _reading: _Reading | None
    """What `load` found in the lock's context, for `save`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Keep the path; nothing is read or made yet, and nothing raised."""
        self._followed = False
        self._stand_at(Path(path))
        with contextlib.suppress(OSError):
            self._follow_links()

    def __repr__(self) -> str:
        """Name the path."""
        return f"XmlStore({os.fspath(self.path)!r})"

    def load(self) -> Snapshot | None:
        """Return what the file holds, or ``None`` if there is no file.

        Raises:
            CorruptSaveFileError: it is no save file. ``recovered`` is the backup's snapshot, or else the user id that
                is still readable in the file or its backup.
            OSError: it cannot be read. Its attribute ``recovered`` is what the backup gives, as above.

        """
        try:
            self._follow_links()
            if self._holder != threading.get_ident() and has_leftovers(*self._written()):
                with contextlib.suppress(OSError), self._locked(0.0):
                    pass  # entering it clears up, unless a living writer is in it
            reading = self._read()
        except OSError as error:
            # The system's error stays what it is, so that callers can catch it as any other.
            error.recovered = self._recover(b"")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            raise
        if self._holder == threading.get_ident():
            self._reading = reading
        if reading is None:
            return None
        if reading.error is not None:
            raise reading.error
        return reading.snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Write the file, wholly or not at all, and return when it would survive a power cut.

        A good file that stood there becomes the backup, if that can be; a corrupt one is kept as ``<name>.corrupt``.

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
            if before is not None:
                self._keep(before)
            self._reading = None
            write_durably(self.path, data, None if before is None else before.status)
            sync_folder(self.path.parent)

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other thread or process can be in meanwhile, by ``<name>.lock``.

        Entering it makes the parent folders, waits for at most 1 s (then `TimeoutError`), and removes what a killed
        writer left.
        """
        return self._locked(LOCK_SECONDS)

    def _follow_links(self) -> None:
        if not self._followed:
            self._stand_at(follow_links(self.path))
            self._followed = True

    def _stand_at(self, path: Path) -> None:
        self.path = path
        self.backup_path = self._beside(".bak")
        self.corrupt_path = self._beside(".corrupt")
        self._renew_lock()

    def _written(self) -> tuple[Path, Path, Path]:
        return self.path, self.backup_path, self.corrupt_path

    def _renew_lock(self) -> None:
        self._process = os.getpid()
        self._turn = threading.RLock()
        """What a thread holds to get at the lock file, whose descriptor is the whole process's."""
        self._lock = FileLock(
            self._beside(".lock"), timeout=LOCK_SECONDS, mode=PRIVATE, poll_interval=_POLL_SECONDS, thread_local=False
        )
        self._holder: int | None = None
        """The thread that is in the lock's context."""
        self._reading = None

    @contextlib.contextmanager
    def _locked(self, seconds: float) -> Generator[None]:
        if self._process != os.getpid():
            self._renew_lock()  # what a forked child inherits is its parent's
        self._follow_links()
        begin = time.monotonic()
        if not self._turn.acquire(timeout=seconds):
            raise TimeoutError(errno.ETIMEDOUT, "Another thread holds the lock of", os.fspath(self.path))
        with contextlib.ExitStack() as stack:
            stack.callback(self._turn.release)
            if self._holder is not None:
                yield
                return
            self.path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._lock.release(force=True)  # does nothing, unless unlocking failed the last time
            stack.enter_context(self._lock.acquire(timeout=max(0.0, begin + seconds - time.monotonic())))
            self._holder = threading.get_ident()
            try:
                remove_leftovers(*self._written())
                yield
            finally:
                self._holder = self._reading = None

    def _keep(self, before: _Reading) -> None:
        """Let what stands in the file also stand beside it, before the file is replaced."""
        if before.error is not None:
            keep_beside(self.path, self.corrupt_path, before.data, before.status)
            return
        with contextlib.suppress(OSError):  # a good file is worth more than its backup, and the old one still stands
            keep_beside(self.path, self.backup_path, before.data, before.status)

    def _read(self) -> _Reading | None:
        try:
            data, status = read_regular_file(self.path, MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            return _Reading(data, status, loads(data), None)
        except CorruptSaveFileError as error:
            path = os.fspath(self.path)
            return _Reading(data, status, None, CorruptSaveFileError(error.reason, path, self._recover(data)))

    def _recover(self, data: bytes) -> Snapshot | None:
        backup = b""
        with contextlib.suppress(OSError, CorruptSaveFileError):
            backup, _ = read_regular_file(self.backup_path, MAX_BYTES + 1)
            return loads(backup)
        user_id = readable_user_id(data) or readable_user_id(backup)
        return Snapshot(user_id=user_id) if user_id else None

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
