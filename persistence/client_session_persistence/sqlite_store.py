"""Sessions in an SQLite database, which any number of processes can share."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from client_session_persistence import atomic_file
from client_session_persistence.atomic_file import path_next_to
from client_session_persistence.codec import resembles_save_file
from client_session_persistence.file_store import FileStore
from client_session_persistence.path_argument import file_path
from client_session_persistence.snapshot import CorruptSaveFileError, Snapshot, StoreError, iso_time, shown
from client_session_persistence.sqlite_connection import (
    SCHEMA_VERSION,
    TABLE,
    SqliteConnection,
    SqliteError,
    identify,
    in_uri,
    prepare,
    read_rows,
    translated,
)
from client_session_persistence.sqlite_format import HEADER, SESSIONS_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session_persistence.forks import Lease
    from client_session_persistence.sqlite_connection import Row
    from client_session_persistence.store import Owner

if not hasattr(sqlite3.Connection, "serialize"):  # pragma: no cover - Python was built with another SQLite
    msg = f"SqliteStore needs SQLite 3.36 or later, or sqlite3_serialize() in SQLite {sqlite3.sqlite_version}"
    raise ImportError(msg)

MAX_NAME_BYTES = 50
"""The longest name of a session, in UTF-8."""
_MAX_SEARCHED_BYTES = 1024 * 1024
"""How much of a corrupt database is searched for user ids."""

_NOT_OPENED = (errno.EACCES, errno.EIO)
"""The errors if SQLite cannot create its files, because a folder or a disk can only be read."""

_FIELDS = tuple(field.name for field in attrs.fields(Snapshot))
_TIMES = frozenset({"first_event_timestamp", "last_activity", "session_start"})
_PLACES = ", ".join("?" * (1 + len(_FIELDS)))
_COLUMNS = ", ".join(("name", *_FIELDS))
_SELECT_ALL = f"SELECT {_COLUMNS} FROM sessions"  # noqa: S608  # constants
_SELECT_SOME = f"{_SELECT_ALL} LIMIT 1000"
_SELECT = f"{_SELECT_ALL} WHERE name = ?"
_REPLACE = f"REPLACE INTO sessions ({_COLUMNS}) VALUES ({_PLACES})"  # noqa: S608  # constants
_DELETE = "DELETE FROM sessions WHERE name = ?"
_PURGE = "PRAGMA wal_checkpoint(TRUNCATE)"

_HEADER_BYTES = len(_FIELDS) + 2
_RECORD = re.compile(rb"(?=%c(?P<name>[\x0f-\x71])(?P<user>[-U])[\x00-\x55]{%d})" % (_HEADER_BYTES, len(_FIELDS) - 1))
"""Matches the header of a row in the database: its size, then the type and size of each column, one byte each
(https://www.sqlite.org/fileformat2.html#record_format). The values follow, beginning with the name and the user id."""
_FIRST_TEXT_TYPE = 13


class SqliteStore(FileStore):
    """Keeps the snapshots of several named sessions in one SQLite database, atomically and durably.

    The sessions are the rows of the table ``sessions``; each store reads and writes one of them. SQLite keeps the files
    ``<name>-wal`` and ``<name>-shm`` next to the database while it is open. Next to it are also ``<name>.lock`` (locked
    during each read-modify-write) and ``<name>.corrupt`` (the last corrupt database, if any). Missing folders are
    created when first needed; the innermost one is private. If the path is a symbolic link, it is resolved once, as
    early as possible. A link that another user may have planted is not followed. The database must be on a local file
    system. Any method may be called from any thread of any process.

    The database is open from the first use until the store is deallocated, except during forks. If a process is forked
    without Python's fork hooks (by uWSGI, for example) while a database is open, the child cannot use that database.
    """

    __slots__ = ("_connection", "_corrupt", "_corrupt_log", "_name", "_saved")

    _saved: tuple[Row, Snapshot] | None
    """The last row saved and its snapshot, so that the row can be read back without being validated."""

    def __init__(self, path: str | os.PathLike[str], name: str = "default") -> None:
        """Store the path and the session's name, without reading or creating any files. No file error is raised here.

        A ``~`` or ``~user`` at the beginning of the path stands for that user's home folder.

        Raises:
            TypeError: ``path`` is not a ``str`` or `os.PathLike` path, or ``name`` is not a ``str``.
            ValueError: ``path`` cannot be the path of a file, or ``name`` is empty, not printable, or longer than 50
                bytes in UTF-8.

        """
        path = file_path("path", path)
        if not isinstance(name, str):
            msg = f"name must be a str, not {shown(name)}"
            raise TypeError(msg)
        if not _is_name(name):
            msg = f"name must be 1 to {MAX_NAME_BYTES} bytes of printable characters in UTF-8, not {shown(name)}"
            raise ValueError(msg)
        self._name = name
        super().__init__(path)

    def __repr__(self) -> str:
        """Show the path and the name."""
        return f"SqliteStore({self._path!r}, {self._name!r})"

    @property
    def name(self) -> str:
        """The name of the session."""
        return self._name

    @property
    def storage_mechanism(self) -> str:
        """The storage mechanism of sessions that are kept here."""
        return "SQLITE"

    def load(self) -> Snapshot | None:
        """Return the session's snapshot, or ``None`` if there is none; complete an interrupted `replace_user`.

        Raises:
            CorruptSaveFileError: the file is not a valid database. ``recovered`` is a snapshot with the user id, if
                that could be recovered.
            OSError: the database cannot be read.
            StoreError: the database belongs to another application or to a newer version of this package, or the file
                is an XML save file.

        """
        self._resolve()
        try:
            snapshot = self._read()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NOT_OPENED:
                with contextlib.suppress(OSError, StoreError):
                    return read_sessions(self._path).get(self._name)
            raise
        if self._connection.has_leftovers:
            with contextlib.suppress(OSError), self._locked(wait=False):
                pass
        return snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Replace the session's snapshot, and return once the new one would survive a power failure.

        If the database is corrupt, it is kept as ``<name>.corrupt``, and replaced by one with everything that can be
        recovered.

        Raises:
            OSError: writing failed, the database cannot be read, or the lock could not be acquired (`TimeoutError`, see
                `lock`). The snapshot is unchanged, unless the only failure was the fsync of its folder.
            StoreError: the snapshot would not be equal when read back, the database belongs to another application or
                to a newer version, or the file is an XML save file; nothing was written.

        """
        row = self._checked_row(snapshot)
        # In a child forked while the caller held the lock, the inherited lease is void: this save is up to the parent.
        own_lease = self._lock.own_lease
        with self._locked() if own_lease is None else contextlib.nullcontext(own_lease) as lease:
            try:
                self._read()
                self._connection.run(_REPLACE, *row, lease=lease)
            except FileNotFoundError:
                self._create(lease, [row])
            except CorruptSaveFileError:
                rows = self._recover()
                self._keep_corrupt(lease)
                self._create(lease, [*rows.values(), row])

    def replace_user(self, snapshot: Snapshot) -> None:
        """Replace the session's snapshot by that of another user, so that nothing of the previous user remains.

        Delete ``<name>.corrupt``, overwrite the row, and write the log back to the database. Other sessions in the
        database do not change. If the process is killed meanwhile, either nothing has changed, or the next `load` or
        `lock` completes this. Acquires the lock, unless this thread holds it.

        Raises:
            TimeoutError: another program was reading the database for one second, or holds the lock.
            OSError: the database, or a file next to it, cannot be read, written or deleted.
            StoreError: as in `save`.

        In each case, the snapshot has not changed.

        """
        row = self._checked_row(snapshot)
        with self._locked() as lease:
            with contextlib.suppress(FileNotFoundError, CorruptSaveFileError):
                self._read()  # fails before anything is deleted if the file is another application's
            self._delete(lease, self._corrupt, self._corrupt_log, self._temporary)
            try:
                self._overwrite(lease, row)
            except FileNotFoundError:
                self._create(lease, [row])
            except CorruptSaveFileError:
                self._create(lease, [*self._recover().values(), row])

    def ownership(self) -> Owner:
        """Return the lock on the saved session, ``<path>.<name>.owner``, for the run that continues it.

        If the session's name has characters other than ASCII letters, digits, hyphens and underscores, the lock's name
        has a hash of it. Create the folder.

        Raises:
            OSError: the folder cannot be created.

        """
        is_plain = self._name.isascii() and self._name.replace("-", "").replace("_", "").isalnum()
        return self._owner(f".{self._name if is_plain else '~' + _hash(self._name)}.owner")

    def _set_path(self, path: str) -> None:
        super()._set_path(path)
        self._connection = SqliteConnection(path)
        self._saved = None
        self._corrupt, self._corrupt_log = path_next_to(path, ".corrupt"), path_next_to(path, ".corrupt-wal")

    def _on_acquired(self, lease: Lease) -> None:
        super()._on_acquired(lease)
        if self._connection.has_leftovers:  # a killed process may have replaced the user, but not in the database yet
            with contextlib.suppress(OSError, StoreError):
                self._purge(lease, wait=False)

    def _checked_row(self, snapshot: Snapshot) -> Row:
        """Return the row of a snapshot that will be equal when read back."""
        if not isinstance(snapshot, Snapshot):
            msg = f"snapshot must be a Snapshot, not {shown(snapshot)}"
            raise TypeError(msg)
        row = _row(self._name, snapshot)
        with contextlib.suppress(CorruptSaveFileError):
            if _snapshot(row) == snapshot:
                self._saved = row, snapshot
                return row
        msg = f"{shown(snapshot)} is not equal when read back, and was not written"
        raise StoreError(msg)

    def _read(self) -> Snapshot | None:
        try:
            rows = self._connection.run(_SELECT, self._name)
            if rows and self._saved is not None and rows[0] == self._saved[0]:
                return self._saved[1]
            return _snapshot(rows[0]) if rows else None
        except CorruptSaveFileError as error:
            row = self._recover().get(self._name)
            raise CorruptSaveFileError(error.reason, self._path, None if row is None else _snapshot(row)) from None

    def _overwrite(self, lease: Lease, row: Row) -> None:
        """Replace the row, and every copy of the old one in the database and its log."""
        self._read()
        before = self._connection.run(_SELECT, self._name)
        self._purge(lease)  # fails before anything has changed if another program is reading
        self._connection.has_leftovers = True
        self._connection.run(_REPLACE, *row, lease=lease)
        try:
            self._purge(lease)
        except (OSError, StoreError):
            if before:
                self._connection.run(_REPLACE, *before[0], lease=lease)
            else:
                self._connection.run(_DELETE, self._name, lease=lease)
            raise

    def _purge(self, lease: Lease, *, wait: bool = True) -> None:
        """Write the log back to the database, and empty it."""
        (is_blocked, *_), *_ = self._connection.run(_PURGE, lease=lease, wait=wait)
        if is_blocked:
            raise TimeoutError(errno.ETIMEDOUT, "Another program is reading the database", self._path)
        self._connection.has_leftovers = False

    def _create(self, lease: Lease, rows: list[Row]) -> None:
        """Replace the file by a new database with these rows; of several rows with the same name, the last one."""
        self._connection.close()
        like = None
        with contextlib.suppress(FileNotFoundError):
            like = os.lstat(self._path)
        # SQLite would apply the log or journal of another database to the new one.
        self._delete(lease, *(f"{self._path}{suffix}" for suffix in ("-wal", "-shm", "-journal")))
        atomic_file.write_durably(lease, self._path, self._temporary, (_new_database(rows), like))
        self._lock.show_progress()
        atomic_file.sync_folder(os.path.dirname(self._path))

    def _delete(self, lease: Lease, *paths: str) -> None:
        """Delete these files durably, if they exist."""
        if existing := [path for path in paths if os.path.lexists(path)]:
            for path in existing:
                lease.call(os.unlink, path)
            atomic_file.sync_folder(os.path.dirname(self._path))

    def _keep_corrupt(self, lease: Lease) -> None:
        """Keep the database and its log as ``<name>.corrupt`` and ``<name>.corrupt-wal``."""
        self._connection.close()
        self._delete(lease, self._corrupt_log)
        for path, copy in ((f"{self._path}-wal", self._corrupt_log), (self._path, self._corrupt)):
            with contextlib.suppress(FileNotFoundError):
                content = atomic_file.read_regular_file(path, _MAX_SEARCHED_BYTES)
                atomic_file.keep_copy(lease, path, copy, self._temporary, content)

    def _recover(self) -> dict[str, Row]:
        """Return the valid rows of a corrupt database, by name, and rows with only a user for those not readable.

        Raise `StoreError` if it is an XML save file.
        """
        found: list[Row] = []
        with contextlib.suppress(OSError, StoreError):
            found = self._connection.run(_SELECT_SOME)
        self._connection.close()
        data = log = b""
        with contextlib.suppress(OSError):
            data, _ = atomic_file.read_regular_file(self._path, _MAX_SEARCHED_BYTES)
        if not data.startswith(HEADER) and resembles_save_file(data):
            msg = f"{self._path} is an XML save file, not an SQLite database; use XmlStore for save files"
            raise StoreError(msg) from None
        with contextlib.suppress(OSError):
            log, _ = atomic_file.read_regular_file(f"{self._path}-wal", _MAX_SEARCHED_BYTES)
        rows = {name: _row(name, Snapshot(user_id=user_id)) for name, user_id in _readable_users(data + log).items()}
        for row in found:
            with contextlib.suppress(CorruptSaveFileError):
                _snapshot(row)
                rows[str(row[0])] = row
        return rows


def is_sqlite(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins as SQLite databases do. Any other file, or one that cannot be read, does not."""
    with contextlib.suppress(OSError):
        data, _ = atomic_file.read_regular_file(atomic_file.follow_links(file_path("path", path)), len(HEADER))
        return data == HEADER
    return False


def read_sessions(path: str | os.PathLike[str]) -> dict[str, Snapshot]:
    """Return the snapshot of each session in a database, by name. No file is changed or created next to it.

    Raises:
        CorruptSaveFileError: the file is not a valid database, or a row is not valid.
        OSError: the database cannot be read, or does not exist.
        StoreError: the database belongs to another application or to a newer version of this package.

    """
    path = atomic_file.follow_links(file_path("path", path))
    identify(path)
    log, index = f"{path}-wal", f"{path}-shm"
    database, options = (
        path,
        ["mode=ro", "immutable=1"],
    )  # nothing needs to be locked, since no program has written to a log
    with contextlib.ExitStack() as stack:
        if os.path.lexists(log) and os.path.getsize(log):
            options = ["mode=ro", "readonly_shm=1"]
            if not os.path.lexists(index):  # no program has the database open, and SQLite would create the index
                import shutil  # noqa: PLC0415  # rarely needed
                import tempfile  # noqa: PLC0415

                folder = stack.enter_context(tempfile.TemporaryDirectory())
                database = os.path.join(folder, "copy")
                shutil.copyfile(path, database)
                shutil.copyfile(log, f"{database}-wal")
                options = ["mode=rw"]
        try:
            connection = sqlite3.connect(in_uri(database, *options), uri=True)
            stack.enter_context(contextlib.closing(connection))
            prepare(connection, path)
            return {str(row[0]): _snapshot(row, path) for row in read_rows(connection, _SELECT_ALL)}
        except SqliteError as error:
            raise translated(error, path) from error


def _is_name(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= MAX_NAME_BYTES


def _hash(name: str) -> str:
    import hashlib  # noqa: PLC0415  # few names need it

    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _row(name: str, snapshot: Snapshot) -> Row:
    """Return a snapshot as a row: times in ISO 8601, so that people can read them, and booleans as 0 and 1."""
    values = (getattr(snapshot, field) for field in _FIELDS)
    return name, *(iso_time(each) if isinstance(each, datetime) else each for each in values)


def _snapshot(row: Row, path: str | None = None) -> Snapshot:
    """Return a row's snapshot; raise `CorruptSaveFileError` if a value is not valid."""
    values: dict[str, Any] = dict(zip(_FIELDS, row[1:], strict=True))
    try:
        for field in _TIMES:
            text = values[field]
            if text is not None:
                values[field] = datetime.fromisoformat(text)
                if iso_time(values[field]) != text:
                    msg = f"{field} must be a time like 2026-11-23T09:00:00.000Z, not {shown(text)}"
                    raise ValueError(msg)  # noqa: TRY301  # reported like the others
        if type(values["background"]) is int and values["background"] in (0, 1):
            values["background"] = bool(values["background"])
        return Snapshot(**values)
    except (TypeError, ValueError) as error:
        reason = f"session {shown(row[0])}: {error}"
        raise CorruptSaveFileError(reason, path) from error


def _readable_users(data: bytes) -> dict[str, str]:
    """Return the user id of each session whose rows in the bytes of a corrupt database all have the same user id."""
    users: dict[str, set[str]] = {}
    for match in _RECORD.finditer(data):
        begin = match.start() + _HEADER_BYTES
        middle = begin + (match["name"][0] - _FIRST_TEXT_TYPE) // 2
        end = middle + (match["user"][0] - _FIRST_TEXT_TYPE) // 2
        with contextlib.suppress(ValueError):
            name, user_id = data[begin:middle].decode(), data[middle:end].decode()
            if _is_name(name) and Snapshot(user_id=user_id):
                users.setdefault(name, set()).add(user_id)
    return {name: found.pop() for name, found in users.items() if len(found) == 1}


def _new_database(rows: Iterable[Row]) -> bytes:
    """Return the bytes of a database with these rows."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {SESSIONS_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(TABLE)
        connection.executemany(_REPLACE, {row[0]: row for row in rows}.values())  # a replaced row would leave traces
        data = connection.serialize()
    # A database in memory cannot have a log, but two bytes of the header make it have one when it is opened.
    return data[:18] + b"\2\2" + data[20:]
