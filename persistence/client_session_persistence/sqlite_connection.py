"""A connection to a database file, shared by the threads of one process.

SQLite does not work across forks: a child would have its parent's view of the locks, but not the locks. Therefore,
connections are closed before each fork and opened again when needed. A child that was forked without Python's hooks
(by uWSGI, for example) while a database was open cannot use that database.

While a connection is open, nothing else opens the database file, unless it is corrupt: closing any descriptor of a file
releases all locks that the process has on it (man 2 fcntl). Then, another program may delete the write-ahead log, so
each use first checks that the connection's files are still in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import threading
import time
import weakref
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from client_session_persistence.atomic_file import sync_folder
from client_session_persistence.contexts import Finalizer, SafeContext
from client_session_persistence.deadline import NEVER, Wait, is_held
from client_session_persistence.forks import ForkAware, Stage, register
from client_session_persistence.snapshot import CorruptSaveFileError, StoreError
from client_session_persistence.sqlite_format import MIN_BYTES, SESSIONS_ID, STATES_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_session_persistence.forks import Lease

SCHEMA_VERSION = 1
TABLE = """\
CREATE TABLE sessions (
    name TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    session_id TEXT,
    previous_session_id TEXT,
    session_index INTEGER NOT NULL,
    storage_mechanism TEXT NOT NULL,
    first_event_id TEXT,
    first_event_timestamp TEXT,
    event_index INTEGER,
    last_activity TEXT,
    session_start TEXT,
    background INTEGER
) WITHOUT ROWID"""

MAX_VALUE_BYTES = 64 * 1024
"""The longest value that is read from a database."""
_CHECKPOINT_PAGES = 100
"""The size of the write-ahead log, in pages, from which on a save also writes it back to the database."""
_SETTINGS = (
    "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
)  # fmt: skip
_connect: Callable[[str], sqlite3.Connection] = partial(
    sqlite3.connect, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=16, uri=True
)

SqliteError = (sqlite3.Error, UnicodeDecodeError)
"""What the sqlite3 module raises. A message that quotes a corrupt schema may not be UTF-8."""
FileId = tuple[int, int]
"""A file's device and inode."""
Row = tuple[str | int | None, ...]

_opening = threading.RLock()
"""Held while a connection is being opened, and during forks."""
_inherited: set[FileId | None] = set()
"""The databases that the parent of this process had open when it forked without the hooks."""
_leaked: list[sqlite3.Connection] = []
"""Connections that must never be closed."""


_connections: dict[int, weakref.ref[SqliteConnection]] = {}
"""The objects whose connections may be open, by their ids."""


def in_uri(path: str, *options: str) -> str:
    """Return the URI that opens an existing database file with these options."""
    # Escaping every byte keeps the URI valid for any path, also one that is not UTF-8.
    escaped = "".join(f"%{byte:02x}" for byte in os.fsencode(path))
    return f"file:{'///' if os.name == 'nt' else ''}{escaped}?{'&'.join(options)}"


def identify(path: str) -> list[FileId | None]:
    """Return the ids of a database and of its write-ahead log, if any.

    Raise `FileNotFoundError` if the database does not exist or is empty, `OSError` if it is not a regular file, and
    `CorruptSaveFileError` if it is too short.
    """
    try:
        log_stat = os.lstat(f"{path}-wal")
        log = (log_stat.st_dev, log_stat.st_ino)
    except FileNotFoundError:
        log = None
    file_stat = os.lstat(path)
    if stat.S_ISDIR(file_stat.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(file_stat.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)
    if not file_stat.st_size:
        raise FileNotFoundError(errno.ENOENT, "The database is empty", path)
    if file_stat.st_size < MIN_BYTES:
        reason = f"{file_stat.st_size} bytes are too few for a database"
        raise CorruptSaveFileError(reason, path)
    return [(file_stat.st_dev, file_stat.st_ino), log]


class SqliteConnection(ForkAware):
    """A connection to one database file, opened when it is first needed. Thread-safe."""

    __slots__ = (
        "__weakref__", "_busy_timeout", "_files", "_finalizer", "_is_log_new", "_mutex", "_opened", "_path",
        "_timed_out_at", "has_leftovers",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        """Store the path of the database; nothing is opened yet."""
        self._path = path
        self._opened: list[sqlite3.Connection] = []
        """The open connection, if any."""
        self._files: list[FileId | None] = []
        """The ids of its database and, once that is open, of its write-ahead log."""
        self._finalizer = Finalizer(_no_connection)
        """Closes the connection when this object is deallocated, without running Python code."""
        self._busy_timeout = 0
        """How long SQLite waits for other programs, in milliseconds."""
        self._is_log_new = False
        """Whether the name of the write-ahead log may not be durable yet."""
        self._timed_out_at = NEVER
        """When a call last timed out waiting for another program."""
        self.has_leftovers = False
        """Whether the write-ahead log had contents when the database was opened. They may be a killed process's."""
        super().__init__()

    def renew(self) -> None:
        """Create a new mutex, as a forked child must."""
        self._mutex = threading.RLock()

    def run(
        self, statement: str, *values: str | int | None, lease: Lease | None = None, wait: bool = True
    ) -> list[Row]:
        """Run one statement, which is a transaction of its own, and return its rows.

        A statement that writes needs the lease of the lock's holder. It is durable when this returns.

        Raises:
            FileNotFoundError: the database does not exist or is empty.
            TimeoutError: another program has the database locked, and still did after 1 s or without ``wait``.
            CorruptSaveFileError: the file is not a database, or it is malformed.
            OSError: the database cannot be read or written.
            StoreError: the database belongs to another application or to a newer version, or SQLite failed otherwise.

        """
        self.renew_in_child()
        with self._held():
            while True:
                connection = None
                try:
                    connection = self._connection()
                    self._set_busy_timeout(connection, wait=wait)
                    if lease is None:
                        return read_rows(connection, statement, values)
                    if self._is_log_new:  # SQLite syncs the folder too, but ignores errors
                        sync_folder(os.path.dirname(self._path))
                        self._is_log_new = False
                    return lease.call(list, _read_rows(connection, statement, values))
                except SqliteError as error:
                    # If the connection was closed, a signal handler has forked.
                    was_closed = isinstance(error, sqlite3.ProgrammingError) and connection not in self._opened
                    if not was_closed:
                        raise self._failure(error) from error

    def close(self) -> None:
        """Close the connection if it is open; the next `run` opens it again."""
        with self._held():
            now: list[FileId | None] = []
            with contextlib.suppress(OSError, StoreError):
                now = identify(self._path)
            # Closing a database's last connection deletes the log by its name. SQLite does not do this if the database
            # has been replaced, but it does not notice if only the log has been.
            if len(self._files) > 1 and now[:1] == self._files[:1] and now != self._files:
                self.leak()
            self._finalizer.closed = True
            while self._opened:
                self._opened.pop().close()
            _connections.pop(id(self), None)

    def close_before(self, until: float) -> None:
        """Close the connection, unless another thread keeps using it until then (`time.monotonic`)."""
        mutex = self._mutex
        if mutex.acquire(timeout=max(0.0, until - time.monotonic())):
            try:
                self.close()
            finally:
                mutex.release()

    def leak(self) -> None:
        """Keep the connection open, even when the interpreter exits, and forget it."""
        import ctypes  # noqa: PLC0415  # rarely needed

        self._finalizer.closed = True
        while self._opened:
            _leaked.append(self._opened.pop())
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_leaked[-1]))

    def leak_in_child(self) -> None:
        """Leak a connection that this process has inherited, and remember that its database cannot be used."""
        if self._opened:
            _inherited.update(self._files[:1])
            self.leak()

    def _held(self) -> SafeContext[None]:
        mutex = self._mutex
        is_outermost = not is_held(mutex)

        def enter() -> None:
            if not mutex.acquire(timeout=Wait().seconds_left(NEVER, NEVER)):
                raise TimeoutError(errno.ETIMEDOUT, "Another thread is using the database", self._path)

        def leave() -> None:
            while is_outermost and is_held(mutex):
                mutex.release()

        return SafeContext(enter, leave)

    def _connection(self) -> sqlite3.Connection:
        """Return the open connection. If it is not open, or if its files have been replaced, open it."""
        files = identify(self._path)
        if self._opened and files == self._files:
            return self._opened[0]
        self.close()
        with _opening:
            try:
                return self._open(files)
            except SqliteError:
                raise
            except BaseException:
                self.close()
                raise

    def _open(self, files: list[FileId | None]) -> sqlite3.Connection:
        if files[0] in _inherited:
            message = "This process was forked without Python's fork hooks while the database was open"
            raise OSError(errno.ECANCELED, message, self._path)
        self._files[:], self._is_log_new = files[:1], files[1] is None  # opening the database may create the log
        _connections[id(self)] = weakref.ref(self)
        # No Python code runs in between, so no connection is lost.
        self._opened.extend(map(_connect, (in_uri(self._path, "mode=rw"),)))
        connection = self._opened[0]
        self._finalizer.close, self._finalizer.closed = connection.close, False
        self._busy_timeout = 0
        self._set_busy_timeout(connection)
        _check_path(connection, self._path, files[0])
        log_bytes = 0
        with contextlib.suppress(FileNotFoundError):
            log_bytes = os.lstat(f"{self._path}-wal").st_size
        prepare(connection, self._path)
        for setting in _SETTINGS:
            read_rows(connection, f"PRAGMA {setting}")
        self.has_leftovers = log_bytes > 0
        self._files[:] = identify(self._path)
        return connection

    def _failure(self, error: sqlite3.Error | UnicodeDecodeError) -> OSError | StoreError:
        """Return the error to raise instead of SQLite's, and close the connection, which may be what is locked."""
        failure = translated(error, self._path)
        if isinstance(failure, TimeoutError):
            self._timed_out_at = time.monotonic()
        self.close()
        return failure

    def _set_busy_timeout(self, connection: sqlite3.Connection, *, wait: bool = True) -> None:
        """Let SQLite wait for other programs as long as this thread's call may wait, to within 50 ms."""
        milliseconds = int(Wait().seconds_left(NEVER, self._timed_out_at) * 20) * 50 if wait else 0
        if milliseconds != self._busy_timeout:
            read_rows(connection, f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_timeout = milliseconds


def read_rows(connection: sqlite3.Connection, statement: str, values: Row = ()) -> list[Row]:
    """Run a statement and return its rows.

    No Python code runs between the statement's first step and its last one. Otherwise, a signal handler that raises
    could leave the statement's transaction open, and one that forks could not close the connection.
    """
    return list(_read_rows(connection, statement, values))


def _read_rows(connection: sqlite3.Connection, statement: str, values: Row) -> Iterator[Row]:
    return chain.from_iterable(map(connection.execute, (statement,), (values,)))


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Distrust a database, and check that it is one of ours.

    Raises:
        StoreError: it belongs to another application or to a newer version.
        CorruptSaveFileError: its table has been changed.

    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")  # what was invalid is rejected later
    read_rows(connection, "PRAGMA trusted_schema = OFF")
    read_rows(connection, "PRAGMA cell_size_check = ON")
    ((application_id,),) = read_rows(connection, "PRAGMA application_id")
    ((version,),) = read_rows(connection, "PRAGMA user_version")
    if application_id == STATES_ID:
        msg = f"{path} is a database of visitors' states (SqliteStates), not of sessions (SqliteStore)"
        raise StoreError(msg)
    if application_id != SESSIONS_ID:
        msg = f"{path} is the database of another application (application_id {application_id}, not {SESSIONS_ID})"
        raise StoreError(msg)
    if version != SCHEMA_VERSION:
        msg = f"{path} has schema version {version}, but this version of client-session can use only {SCHEMA_VERSION}"
        raise StoreError(msg)
    # A view in place of the table could compute forever, and a trigger could change what is saved.
    if read_rows(connection, "SELECT sql FROM sqlite_master WHERE tbl_name = 'sessions'") != [(TABLE,)]:
        reason = "the table sessions is not as it was created"
        raise CorruptSaveFileError(reason, path)


def translated(error: sqlite3.Error | UnicodeDecodeError, path: str) -> OSError | StoreError:  # noqa: PLR0911  # one for each kind
    """Return the `OSError` or `StoreError` that corresponds to an error of SQLite."""
    if isinstance(error, UnicodeDecodeError):
        return CorruptSaveFileError("its schema is not valid UTF-8", path)
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return TimeoutError(errno.ETIMEDOUT, "Another program has the database locked", path)
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        case sqlite3.SQLITE_IOERR:
            return OSError(errno.EIO, f"{os.strerror(errno.EIO)} ({error.sqlite_errorname})", path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        case sqlite3.SQLITE_CANTOPEN:
            if _is_readable(path):
                return OSError(errno.EIO, "SQLite cannot open the database, or its -wal and -shm files", path)
            return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_FORMAT:
            return CorruptSaveFileError(str(error), path)
        case _:
            return StoreError(f"{path}: SQLite failed: {error}")


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _check_path(connection: sqlite3.Connection, path: str, file: FileId | None) -> None:
    """Raise `PermissionError` if SQLite followed a link that was put in place of the database in the meantime."""
    connection.text_factory = os.fsdecode
    ((_, _, opened),) = read_rows(connection, "PRAGMA database_list")
    if identify(str(opened))[0] != file:
        raise PermissionError(errno.EACCES, "The database was replaced while it was being opened", path)


def _no_connection() -> None:
    """Close nothing."""


def _close_all(until: float) -> None:
    for key, reference in list(_connections.items()):
        connection = reference()
        if connection is None:
            _connections.pop(key, None)
        else:
            connection.close_before(until)


def _before_fork(until: float) -> None:
    _opening.acquire(timeout=max(0.0, until - time.monotonic()))
    _close_all(until)


def _after_fork_in_parent() -> None:
    if is_held(_opening):
        _opening.release()


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603  # the inherited lock is the parent's
    _opening = threading.RLock()
    for reference in list(_connections.values()):
        connection = reference()
        if connection is not None:
            connection.leak_in_child()
    _connections.clear()


register(
    Stage.FILES,
    before_fork=_before_fork,
    after_fork_in_parent=_after_fork_in_parent,
    after_fork_in_child=_after_fork_in_child,
    at_exit=_close_all,
)
