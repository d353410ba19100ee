"""Visitors' states in an SQLite database, which the processes of one machine can share.

SQLite does not work across forks: a child would have its parent's view of the locks, but not the locks. Therefore,
connections are closed before each fork and opened again when needed. A child that was forked without Python's hooks
(by uWSGI, for example) while a database was open cannot use that database.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from client_session_persistence.forks import ForkAware, Stage, register
from client_session_persistence.path_argument import path_of_no_folder
from client_session_persistence.snapshot import StoreError
from client_session_persistence.sqlite_format import MIN_BYTES, SESSIONS_ID, STATES_ID
from client_session_persistence.states import CALL_SECONDS, microseconds, now_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence.states import ReadResult, SwapResult

Result = TypeVar("Result")

_SCHEMA_VERSION = 1
_TABLE = """\
CREATE TABLE states (
    key TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    expires_at INTEGER NOT NULL  -- microseconds since 1970
) WITHOUT ROWID"""
_READ = "SELECT value FROM states WHERE key = ? AND expires_at > ?"
_INSERT = """\
INSERT INTO states (value, expires_at, key) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at WHERE expires_at <= ?"""
_UPDATE = "UPDATE states SET value = ?, expires_at = ? WHERE key = ? AND expires_at > ? AND value = ?"
_DELETE = "DELETE FROM states WHERE key = ?"
_BATCH_END = "SELECT max(key) FROM (SELECT key FROM states WHERE key > ? ORDER BY key LIMIT 1000)"
_PURGE = "DELETE FROM states WHERE key > ? AND key <= ? AND expires_at <= ?"

_MAX_PAUSE = 0.002
"""The longest time in seconds between two attempts to lock the database. Swaps hold the lock for much less."""

_databases: weakref.WeakSet[_Database] = weakref.WeakSet()
_paused: list[_Database] = []
"""The databases that wait for the end of a fork."""
_inherited: set[tuple[int, int]] = set()
"""The device and inode of each database that the parent of this process had open when it forked without the hooks."""


class SqliteStates:
    """A state store in an SQLite database. All processes of one machine may share it, and all threads of a process.

    The database is created when it is first needed, readable by this user only, with missing folders. It must be on a
    local file system. SQLite keeps the files ``<name>-wal`` and ``<name>-shm`` next to it. The store's time is the
    machine's clock.

    A swap is safe if the process is killed. It does not wait until the disk has it, so a power cut may lose the newest
    swaps; what remains is consistent, as it was at some earlier moment.

    Expired values stay in the file until `purge` deletes them. The database remains open until `close`, the store's
    deallocation or the interpreter's exit, except during forks.
    """

    __slots__ = ("__weakref__", "_database")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Store the path of the database; nothing is opened yet.

        A ``~`` or ``~user`` at the beginning of the path stands for that user's home folder.

        Raises:
            TypeError: ``path`` is not a ``str`` or `os.PathLike` path.
            ValueError: ``path`` cannot be the path of a file, or is a folder's.

        """
        self._database = _Database(os.path.abspath(path_of_no_folder("path", path)))
        weakref.finalize(self, self._database.close)

    def __repr__(self) -> str:
        """Show the path."""
        return f"SqliteStates({self._database.path!r})"

    @property
    def is_local(self) -> bool:
        """``True``: calls cost no round trip, so hosts read a value before they swap it."""
        return True

    def read(self, key: str) -> ReadResult:
        """Return the stored value (``None``: absent), and the machine's time in microseconds since 1970.

        Raises:
            TimeoutError: other threads or processes kept the database locked for a second.
            OSError: the database cannot be opened, read or written.
            StoreError: the file is not a database of this class or of a newer version, or SQLite failed otherwise.

        """
        return self._database.run(partial(_read, key))

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Replace the value if it equals ``old`` (``None``: absent), and keep the new one for ``keep`` seconds.

        Return whether it was replaced, the value that is now stored, and the machine's time in microseconds. Raise the
        same errors as `read`, and `ValueError` if ``keep`` is not more than 0 and at most a century.
        """
        return self._database.run(partial(_swap, key, old, new, microseconds(keep)))

    def delete(self, key: str) -> None:
        """Delete the value, if any. Raise the same errors as `read`."""
        self._database.run(lambda connection: connection.execute(_DELETE, (key,)))

    def purge(self) -> int:
        """Delete the expired values and return how many there were.

        This goes through the whole table, a thousand values at a time, so that other calls need not wait. Raise the
        same errors as `read`.
        """
        deleted, key = 0, ""
        while (end := self._database.run(partial(_batch_end, key))) is not None:
            deleted += self._database.run(partial(_purge, key, end))
            key = end
        return deleted

    def close(self) -> None:
        """Close the database. The next call opens it again."""
        self._database.close()


class _Database(ForkAware):
    """The connection to a database, opened when it is first needed. Thread-safe."""

    __slots__ = ("__weakref__", "_connections", "_lock", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._connections: list[sqlite3.Connection] = []
        super().__init__()
        _databases.add(self)

    def renew(self) -> None:
        """Create a new lock, as a forked child must."""
        self._lock = threading.RLock()

    def pause(self, until: float) -> bool:
        """Close the database before a fork, and keep it closed; return False if it is in use until ``until``."""
        is_paused = self._lock.acquire(timeout=max(0.0, until - time.monotonic()))
        if is_paused:
            self._close()
        return is_paused

    def close(self) -> None:
        """Close the connection if it is open; the next `run` opens it again."""
        self.renew_in_child()
        with self._lock:
            self._close()

    def _close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def resume(self) -> None:
        """Let calls open the database again after a fork."""
        self._lock.release()

    def abandon(self) -> None:
        """In a forked child, keep a connection that was not closed before the fork, but never use or close it."""
        import ctypes  # noqa: PLC0415  # rarely needed

        while self._connections:
            _inherited.add(_file_id(self.path))
            # The reference is never released, so that the connection is not closed when the interpreter exits either.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connections.pop()))

    def run(self, operation: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run an operation on the open connection; while the database is locked, retry it for a second."""
        self.renew_in_child()
        until = time.monotonic() + CALL_SECONDS
        lock = self._lock
        if not lock.acquire(timeout=CALL_SECONDS):
            raise TimeoutError(errno.ETIMEDOUT, "Other threads are using the database", self.path)
        try:
            while True:
                try:
                    return operation(self._opened())
                except sqlite3.Error as error:
                    failure = self._translated(error)
                    # A signal handler on this thread that forks or calls close() closes the connection.
                    can_retry = isinstance(failure, TimeoutError) or isinstance(error, sqlite3.ProgrammingError)
                    if not can_retry:
                        self._close()
                    if not can_retry or time.monotonic() >= until:
                        raise failure from error
                # SQLite's own waiting is unfair: its pauses grow to a tenth of a second.
                time.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311  # not for cryptography
        finally:
            lock.release()

    def _opened(self) -> sqlite3.Connection:
        # No call in between, so no signal handler can close the connection.
        connection = self._connections[0] if self._connections else None
        if connection is not None:
            return connection
        try:
            return self._open()
        except BaseException:
            self._close()
            raise

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            # If the file exists, this does not open it. Closing a descriptor of it would release SQLite's locks.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if _file_id(self.path) in _inherited:
            message = "This process was forked without Python's fork hooks while the database was open"
            raise OSError(errno.ECANCELED, message, self.path)
        if 0 < (size := os.path.getsize(self.path)) < MIN_BYTES:
            msg = f"{self.path} is not a database of SqliteStates: it has {size} bytes, fewer than any database"
            raise StoreError(msg)
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        connection.execute("PRAGMA trusted_schema = OFF")
        found = _identity(connection)
        if found == (0, 0, None):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if _identity(connection) == found:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA application_id = {STATES_ID}")
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("COMMIT")
            found = _identity(connection)
        if found[0] == SESSIONS_ID:
            msg = f"{self.path} is a database of sessions (SqliteStore), not of visitors' states (SqliteStates)"
            raise StoreError(msg)
        if found != (STATES_ID, _SCHEMA_VERSION, _TABLE):
            msg = (
                f"{self.path} is not a database of SqliteStates, or of another version: its application_id is "
                f"{found[0]}, not {STATES_ID}, its user_version is {found[1]}, not {_SCHEMA_VERSION}, "
                f"or its table is not as it was created"
            )
            raise StoreError(msg)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = FAST")
        return connection

    def _translated(self, error: sqlite3.Error) -> OSError | StoreError:
        """Return the `OSError` or `StoreError` that corresponds to an error of SQLite."""
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
                return TimeoutError(errno.ETIMEDOUT, "Other processes kept the database locked", self.path)
            case sqlite3.SQLITE_FULL:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.path)
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
                return OSError(errno.EIO, f"{os.strerror(errno.EIO)} ({error.sqlite_errorname})", self.path)
            case _:
                return StoreError(f"{self.path}: SQLite failed: {error}")


def _read(key: str, connection: sqlite3.Connection) -> ReadResult:
    now = now_us()
    rows = connection.execute(_READ, (key, now)).fetchall()
    return (rows[0][0] if rows else None), now


def _swap(key: str, old: bytes | None, new: bytes, lifetime: int, connection: sqlite3.Connection) -> SwapResult:
    while True:
        now = now_us()
        expires_at = now + lifetime
        # Each statement is a transaction of its own, so a signal handler may call the store between any two of them.
        if old is None:
            cursor = connection.execute(_INSERT, (new, expires_at, key, now))
        else:
            cursor = connection.execute(_UPDATE, (new, expires_at, key, now, old))
        if cursor.rowcount:
            return True, new, now
        value, now = _read(key, connection)
        if value != old:
            return False, value, now


def _batch_end(key: str, connection: sqlite3.Connection) -> str | None:
    ((end,),) = connection.execute(_BATCH_END, (key,)).fetchall()
    return None if end is None else str(end)


def _purge(key: str, end: str, connection: sqlite3.Connection) -> int:
    return connection.execute(_PURGE, (key, end, now_us())).rowcount


def _identity(connection: sqlite3.Connection) -> tuple[int, int, str | None]:
    """Return a database's application id, its schema's version, and the SQL of its schema (``None`` if it is empty)."""
    # In one transaction, since another process may be creating the table.
    is_own = not connection.in_transaction
    if is_own:
        connection.execute("BEGIN")
    ((application_id,),) = connection.execute("PRAGMA application_id").fetchall()
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    ((schema,),) = connection.execute("SELECT group_concat(sql) FROM sqlite_master").fetchall()
    if is_own:
        connection.execute("COMMIT")
    return application_id, version, schema


def _file_id(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _before_fork(until: float) -> None:
    _paused.extend(database for database in list(_databases) if database.pause(until))


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().resume()


def _after_fork_in_child() -> None:
    _paused.clear()
    for database in list(_databases):
        database.abandon()


register(
    Stage.FILES,
    before_fork=_before_fork,
    after_fork_in_parent=_after_fork_in_parent,
    after_fork_in_child=_after_fork_in_child,
)
