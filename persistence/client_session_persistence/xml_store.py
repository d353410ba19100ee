"""The save file: one XML file shared by any number of processes."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session_persistence.atomic_file import (
    follow_links,
    keep_beside,
    make_folder,
    read_regular_file,
    sync_folder,
    write_durably,
)
from client_session_persistence.codec import MAX_BYTES, dumps, loads, readable_user_id
from client_session_persistence.errors import CorruptSaveFileError
from client_session_persistence.process_lock import ProcessLock
from client_session_persistence.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from client_session_persistence.forks import Hold
    from client_session_persistence.writer_thread import Saver


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

    With ``background=True`` nothing but `flush` waits for the disk or for another process, as an event loop needs it.
    `save` hands the snapshot to a worker thread, which keeps the lock until it is durable; what is killed meanwhile
    loses that snapshot, and no older one. `lock` tries once. The interpreter's exit waits for the worker; that of a
    `multiprocessing` child which was forked does not, so call `flush` there.
    """

    __slots__ = ("__weakref__", "_followed", "_known", "_lock", "_path", "_reading", "_saver")

    _known: tuple[bytes, Snapshot] | None
    """What was last written, and so need not be parsed when it is read again."""
    _reading: _Reading | None
    """What `load` found in the lock's context, for `save`."""

    def __init__(self, path: str | os.PathLike[str], *, background: bool = False) -> None:
        """Keep the path; nothing is read or made yet, and nothing raised."""
        self._saver: Saver | None = None
        if background:
            from client_session_persistence.writer_thread import Saver  # noqa: PLC0415  # a thread, which few programs need

            self._saver = Saver()
        self._followed = False
        self._stand_at(os.fspath(path))
        with contextlib.suppress(OSError):
            self._follow_links()

    def __repr__(self) -> str:
        """Name the path."""
        return f"XmlStore({self._path!r})"

    @property
    def path(self) -> Path:
        """The file itself."""
        return Path(self._path)

    @property
    def backup_path(self) -> Path:
        """The last good file before it."""
        return Path(self._path + ".bak")

    @property
    def corrupt_path(self) -> Path:
        """The last file that was no save file."""
        return Path(self._path + ".corrupt")

    def load(self) -> Snapshot | None:
        """Return what the file holds, or ``None`` if there is no file; remove what a killed writer left beside it.

        What this object has handed over is what the file is about to hold.

        Raises:
            CorruptSaveFileError: it is no save file. ``recovered`` is the backup's snapshot, or else the user id that
                is still readable in the file or its backup.
            OSError: it cannot be read. Its attribute ``recovered`` is what the backup gives, as above.

        """
        try:
            self._follow_links()
            if self._saver is not None and self._lock.is_kept:
                return self._saver.newest
            if self._lock.mine is not None:
                reading = self._reading = self._read()
            else:
                self._clear_up()
                reading = self._read()
        except OSError as error:
            # The system's error stays what it is, so that callers can catch it as any other.
            error.recovered = self._recover(b"")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            raise
        if reading is None:
            return None
        if reading.error is not None:
            raise reading.error
        return reading.snapshot

    def save(self, snapshot: Snapshot) -> Future[None] | None:
        """Write the file, wholly or not at all, and return when it would survive a power cut.

        In the background, return at once, with the future of that, which has what goes wrong with the file.

        A good file that stood there becomes the backup, if that can be; a corrupt one is kept as ``<name>.corrupt``.

        Raises:
            OSError: it cannot be written, or what stands there cannot be read, or the lock was not free for 1 s
                (`TimeoutError`). The file is as it was; only if syncing the folder failed, it may be the new one.
            ValueError: the snapshot would not read back equal; nothing was touched.

        """
        data = dumps(snapshot)
        if loads(data) != snapshot:
            msg = f"{snapshot!r} does not read back equal, and was not written"
            raise ValueError(msg)
        # In a child that was forked amid the caller's hold, what the caller decided on under it must not be saved.
        mine = self._lock.mine
        with self._locked() if mine is None else contextlib.nullcontext(mine) as hold:
            if self._saver is not None:
                return hold.do(self._saver.add, self._lock, snapshot, partial(self._write, hold, data, snapshot))
            self._write(hold, data, snapshot)
        return None

    def flush(self) -> None:
        """Wait until the last snapshot that was handed over is durable; without ``background`` it is.

        Raises:
            OSError: it could not be written.

        """
        if self._saver is not None:
            self._saver.wait()

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that no other thread or process can be in meanwhile, by ``<name>.lock``.

        Entering it makes the parent folders, waits for at most 1 s (then `TimeoutError`; in the background, other
        processes are not waited for), and removes what a killed writer left. Within a
        `client_session_persistence.deadline.deadline` block, the second is the whole call's.
        """
        return self._locked()

    @contextlib.contextmanager
    def _locked(self, *, wait: bool = True) -> Generator[Hold]:
        self._follow_links()
        mine = self._lock.mine
        if mine is not None and not mine.is_void:
            yield mine
            return
        make_folder(os.path.dirname(self._path), sync=sync_folder if self._saver is None else self._saver.sync_later)
        with self._lock.held(wait=wait, wait_for_processes=self._saver is None) as hold:
            self._reading = None  # a forked child inherits its parent's
            try:
                if self._saver is None or not self._lock.is_kept:  # else the worker is writing
                    with contextlib.suppress(OSError):
                        hold.do(os.unlink, self._temporary)
                yield hold
            finally:
                self._reading = None

    def _write(self, hold: Hold, data: bytes, snapshot: Snapshot) -> None:
        before = self._reading or self._read()
        if before is not None:
            self._keep(hold, before)
        self._reading = None
        write_durably(hold, self._path, self._temporary, data, None if before is None else before.status)
        sync_folder(os.path.dirname(self._path))
        self._known = data, snapshot

    def _stand_at(self, path: str) -> None:
        self._path = path
        self._lock = ProcessLock(path + ".lock")
        self._reading = self._known = None

    def _follow_links(self) -> None:
        if not self._followed:
            path = follow_links(self._path)
            if path != self._path:
                self._stand_at(path)
            self._followed = True

    @property
    def _temporary(self) -> str:
        """What is written before it gets its name; one file at a time, under the lock."""
        return self._path + ".tmp"

    def _clear_up(self) -> None:
        """Remove what a killed writer left. If the lock is taken, it may be that of a writer who is at work."""
        if os.path.lexists(self._temporary):
            with contextlib.suppress(OSError), self._locked(wait=False):
                pass

    def _keep(self, hold: Hold, before: _Reading) -> None:
        """Let what stands in the file also stand beside it, before the file is replaced."""
        if before.error is not None:
            keep_beside(hold, self._path, self._path + ".corrupt", self._temporary, (before.data, before.status))
            return
        with contextlib.suppress(OSError):  # a good file is worth more than its backup, and the old one still stands
            keep_beside(hold, self._path, self._path + ".bak", self._temporary, (before.data, before.status))

    def _read(self) -> _Reading | None:
        try:
            data, status = read_regular_file(self._path, MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        if self._known is not None and self._known[0] == data:
            return _Reading(data, status, self._known[1], None)
        try:
            return _Reading(data, status, loads(data), None)
        except CorruptSaveFileError as error:
            return _Reading(data, status, None, CorruptSaveFileError(error.reason, self._path, self._recover(data)))

    def _recover(self, data: bytes) -> Snapshot | None:
        backup = b""
        with contextlib.suppress(OSError, CorruptSaveFileError):
            backup, _ = read_regular_file(self._path + ".bak", MAX_BYTES + 1)
            return loads(backup)
        user_id = readable_user_id(data) or readable_user_id(backup)
        return Snapshot(user_id=user_id) if user_id else None
