"""The save file: one XML file, which any number of processes can share."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs

from client_session_persistence import atomic_file, sqlite_format
from client_session_persistence.atomic_file import path_next_to
from client_session_persistence.codec import MAX_BYTES, dumps, loads, readable_user_id
from client_session_persistence.file_store import FileStore
from client_session_persistence.path_argument import file_path
from client_session_persistence.snapshot import CorruptSaveFileError, Snapshot, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from client_session_persistence.forks import Lease
    from client_session_persistence.lock_file import Hold, ProcessLock
    from client_session_persistence.store import Owner
    from client_session_persistence.writer_thread import PendingWrites


def _verified_dump(snapshot: Snapshot) -> bytes:
    """Return a snapshot's save file; raise `StoreError` if it would not be equal when read back."""
    data = dumps(snapshot)
    if loads(data) != snapshot:
        msg = f"{snapshot!r} is not equal when read back, and was not written"
        raise StoreError(msg)
    return data


@attrs.frozen
class _Content:
    """The contents of the file; ``error`` is set if they are corrupt."""

    data: bytes
    stat: os.stat_result
    snapshot: Snapshot | None
    error: CorruptSaveFileError | None


class XmlStore(FileStore):
    """Keeps the snapshot in an XML file, atomically and durably, in the .NET tracker's format.

    Next to ``<name>`` are ``<name>.bak`` (the last good file), ``<name>.lock`` (locked during each read-modify-write)
    and ``<name>.corrupt`` (the last corrupt file, if any). If such a name is too long for the file system, it is
    replaced by the first 20 characters of ``<name>``, ``~``, a hash of ``<name>``, and the suffix. Missing folders are
    created when first needed; the innermost one is private. If the path is a symbolic link, it is resolved once, as
    early as possible, and the link is kept. A link that another user may have planted is not followed. Any method may
    be called from any thread of any process.

    With ``background=True`` (for event loops), only `flush` waits for the disk. `save` queues the snapshot for a worker
    thread, which keeps the file locked until the snapshot is durable. If the process is killed before then, this
    snapshot is lost, but older ones are not. `lock` waits for other processes as it always does. The interpreter waits
    for the worker thread at exit, but a forked `multiprocessing` child does not: call `flush` there.
    """

    __slots__ = ("_content", "_pending", "_written")

    _written: tuple[bytes, Snapshot] | None
    """The last data written and its snapshot, so that the data can be read back without being parsed."""
    _content: _Content | None
    """The contents that `load` read while holding the lock, for `save` to use."""

    def __init__(self, path: str | os.PathLike[str], *, background: bool = False) -> None:
        """Store the path, without reading or creating any files. File system errors are not raised here.

        A ``~`` or ``~user`` at the beginning of the path stands for that user's home folder.

        Raises:
            TypeError: ``path`` is not a ``str`` or `os.PathLike` path, or ``background`` is not a ``bool``.
            ValueError: ``path`` cannot be the path of a file.

        """
        path = file_path("path", path)
        if not isinstance(background, bool):
            msg = f"background must be True or False, not {background!r}"
            raise TypeError(msg)
        self._pending: PendingWrites | None = None
        if background:
            from client_session_persistence.writer_thread import PendingWrites  # noqa: PLC0415  # few programs need it

            self._pending = PendingWrites()
        super().__init__(path)

    def __repr__(self) -> str:
        """Show the path."""
        return f"XmlStore({self._path!r})"

    @property
    def backup_path(self) -> Path:
        """The path of the backup, which is the previous good save file."""
        return Path(path_next_to(self._path, ".bak"))

    def load(self, *, read_only: bool = False) -> Snapshot | None:
        """Return the file's snapshot, or ``None`` if there is no file; delete any leftover temporary file.

        If this object has queued a snapshot, return that snapshot. With ``read_only``, nothing is deleted or created.

        Raises:
            CorruptSaveFileError: the file is not valid. ``recovered`` is the backup's snapshot, or a snapshot
                with a user id recovered from the file or its backup, or ``None``.
            OSError: the file cannot be read. Its ``recovered`` attribute is set as above, but only from the backup.
            StoreError: the file is an SQLite database.

        """
        try:
            self._resolve()
            if self._pending is not None and self._lock.is_retained and self._pending.newest is not None:
                return self._pending.newest
            is_locked = self._lock.own_lease is not None
            # Delete a killed writer's temporary file. If the lock is held, the file may belong to an active writer.
            if not read_only and not is_locked and os.path.lexists(self._temporary):
                with contextlib.suppress(OSError), self._locked(wait=False):
                    pass
            content = self._read()
            if is_locked:
                self._content = content
        except OSError as error:
            # Keep the system's exception type, so that callers can catch it as usual.
            error.recovered = self._recover(b"")  # type: ignore[attr-defined]
            raise
        if content is not None and content.error is not None:
            raise content.error
        return None if content is None else content.snapshot

    def save(self, snapshot: Snapshot) -> Future[None] | None:
        """Replace the file, and return once the new one would survive a power failure.

        With ``background``, queue the snapshot and return a future for the outcome. A good old
        file becomes the backup if possible; a corrupt one is kept as ``<name>.corrupt``.

        Raises:
            OSError: writing failed, the old file cannot be read, or the lock could not be acquired (`TimeoutError`, see
                `lock`). The file is unchanged, unless the only failure was the fsync of its folder.
            StoreError: the snapshot would not be equal when read back, or the file is an SQLite database; nothing was
                written.

        """
        data = _verified_dump(snapshot)
        with self._leased() as lease:
            write = partial(self._write, lease, data, snapshot)
            return write() if self._pending is None else lease.call(self._pending.add, self._lock, snapshot, write)

    def replace_user(self, snapshot: Snapshot) -> None:
        """Replace the file with a new user's, and delete ``<name>.corrupt``, ``<name>.bak`` and any temporary file.

        Return once both would survive a power failure, even with ``background``; a queued snapshot is written first.
        The file always has its complete old or new contents, and as soon as it has the new ones, no other file has any
        old ones. If one of the names is a symbolic link, the link is deleted, not its target.

        No copy of a corrupt file is kept. If a user can be recovered from it or its backup, it is repaired first, so
        that a failure does not lose that user.

        Raises:
            OSError: a file could not be deleted (perhaps it is a folder), writing failed, the old file cannot be read
                or is a mount point, or the lock could not be acquired (`TimeoutError`, see `lock`). The file still has
                the old user, unless the only failure was to make the rename durable or to release the lock. The backup
                and the corrupt copy may be gone.
            StoreError: as in `save`.

        """
        data = _verified_dump(snapshot)
        with self._leased() as lease:
            write = partial(self._write_new_user, lease, data, snapshot)
            if self._pending is None:
                write()
            else:
                self._pending.replace_user(self._lock, lease, snapshot, write)

    def flush(self) -> None:
        """Wait until the last queued snapshot is durable; without ``background``, return at once.

        Raises:
            OSError: the snapshot could not be written.

        """
        if self._pending is not None:
            self._pending.wait()

    def ownership(self) -> Owner:
        """Return the lock on the saved session, ``<name>.owner``, for the run that continues it; create its folder.

        Raises:
            OSError: the folder cannot be created.

        """
        return self._owner(".owner")

    def _leased(self) -> AbstractContextManager[Lease]:
        """Return a context manager that holds the lock, unless this thread already does.

        In a child forked while the caller held the lock, the inherited lease is void: the write is up to the parent.
        """
        own_lease = self._lock.own_lease
        return self._locked() if own_lease is None else contextlib.nullcontext(own_lease)

    def _leave(self, entered: list[tuple[ProcessLock, Hold]]) -> None:
        if entered:
            self._content = None
        super()._leave(entered)

    def _on_acquired(self, lease: Lease) -> None:
        self._content = None  # a forked child inherits its parent's cached content
        if self._pending is None or not self._lock.is_retained:  # otherwise, the worker thread may be using the file
            super()._on_acquired(lease)

    def _sync_new_folder(self, parent: str) -> None:
        if self._pending is None:
            super()._sync_new_folder(parent)
        else:
            self._pending.unsynced.append(parent)

    def _write(self, lease: Lease, data: bytes, snapshot: Snapshot) -> None:
        before = self._content or self._read()
        if before is not None:
            suffix, ignored = (".corrupt", ()) if before.error else (".bak", (OSError,))
            with contextlib.suppress(*ignored):  # saving matters more than the backup, and the old backup still exists
                atomic_file.keep_copy(
                    lease,
                    self._path,
                    path_next_to(self._path, suffix),
                    self._temporary,
                    (before.data, before.stat),
                )
        try:
            self._replace(lease, data, snapshot, before)
        except OSError as error:
            if error.errno == errno.EBUSY and before is not None and before.error:
                # A mount point cannot be replaced. If it has no snapshot of its own, the next run finds this one.
                backup = path_next_to(self._path, ".bak")
                atomic_file.write_durably(lease, backup, self._temporary, (data, before.stat))
            raise

    def _write_new_user(self, lease: Lease, data: bytes, snapshot: Snapshot) -> None:
        before = self._content or self._read()
        recovered = before.error.recovered if before is not None and before.error is not None else None
        if recovered is not None:
            self._write(lease, dumps(recovered), recovered)
        # The backup comes last: if the other file cannot be deleted, the backup remains.
        self._replace(lease, data, snapshot, before, [path_next_to(self._path, each) for each in (".corrupt", ".bak")])

    def _replace(
        self, lease: Lease, data: bytes, snapshot: Snapshot, before: _Content | None, delete: Sequence[str] = ()
    ) -> None:
        self._content = None
        like = None if before is None else before.stat
        atomic_file.write_durably(lease, self._path, self._temporary, (data, like), delete)
        self._written = data, snapshot
        self._lock.show_progress()
        atomic_file.sync_folder(os.path.dirname(self._path))

    def _set_path(self, path: str) -> None:
        super()._set_path(path)
        self._content = self._written = None

    def _read(self) -> _Content | None:
        # If this process has a database open, closing another descriptor of it releases SQLite's locks (man 2 fcntl).
        if os.path.lexists(f"{self._path}-wal"):
            self._refuse_database("it has a -wal file")
        try:
            data, file_stat = atomic_file.read_regular_file(self._path, MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        if self._written is not None and self._written[0] == data:
            return _Content(data, file_stat, self._written[1], None)
        if data.startswith(sqlite_format.HEADER):
            self._refuse_database("its first bytes say so")
        try:
            return _Content(data, file_stat, loads(data), None)
        except CorruptSaveFileError as error:
            return _Content(data, file_stat, None, CorruptSaveFileError(error.reason, self._path, self._recover(data)))

    def _refuse_database(self, reason: str) -> NoReturn:
        msg = f"{self._path} is an SQLite database ({reason}), not an XML save file; use SqliteStore for databases"
        raise StoreError(msg)

    def _recover(self, data: bytes) -> Snapshot | None:
        backup = b""
        with contextlib.suppress(OSError, CorruptSaveFileError):
            backup, _ = atomic_file.read_regular_file(path_next_to(self._path, ".bak"), MAX_BYTES + 1)
            return loads(backup)
        user_id = readable_user_id(data) or readable_user_id(backup)
        return Snapshot(user_id=user_id) if user_id else None
