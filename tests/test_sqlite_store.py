"""SqliteStore on a real disk: named sessions, durability, corruption, other programs, forks, and forgetting.

Promises that it shares with XmlStore are tested in test_xml_store.py and test_ownership.py.

While a database is open, these tests never open it except through SQLite: closing a file releases the process's locks.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, SqliteStore, StoreError, dumps, sqlite_connection
from client_session_persistence.deadline import within_deadline
from client_session_persistence.snapshot import STORAGE_MECHANISMS
from client_session_persistence.sqlite_store import read_sessions
from event_ids import event_id
from torture.reentrancy import call_at_point
from torture.worker_pool import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=1)
NEW = Snapshot(user_id=event_id(7), session_id=event_id(2), session_index=2)
OTHER = Snapshot(user_id=event_id(8), session_id=event_id(3), session_index=3)
FULL = Snapshot(
    user_id="0123456789abcdef",
    session_id=event_id(1),
    previous_session_id=event_id(2).upper(),
    session_index=2**31 - 1,
    storage_mechanism="SQLITE",
    first_event_id=event_id(3),
    first_event_timestamp=datetime(2026, 11, 23, 9, 0, 0, 123456, UTC),
    event_index=0,
    last_activity=datetime(1, 1, 1, tzinfo=UTC),
    session_start=datetime.max.replace(tzinfo=UTC),
    background=False,
)

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions, FIFOs and links")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to switch users and change owners"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database in the test's temporary folder."""
    return tmp_path / "sessions.db"


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries."""
    return sorted(path.name for path in folder.iterdir())


def save(path: Path, snapshot: Snapshot, name: str = "default") -> None:
    """Save a snapshot, and close the database."""
    store = SqliteStore(path, name)
    store.save(snapshot)
    assert store.load() == snapshot


def run_sql(path: Path, *statements: str) -> list[Any]:
    """Run statements as a database administrator would, and return the rows of the last one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def bytes_in(folder: Path) -> bytes:
    """Return the contents of all files in a folder, read by another process."""
    program = """if True:
        import pathlib, sys
        for file in pathlib.Path(sys.argv[1]).iterdir():
            sys.stdout.buffer.write(file.read_bytes())
    """
    return subprocess.check_output([sys.executable, "-c", program, str(folder)])  # noqa: S603  # our own


def at_once(call: Callable[[], object]) -> None:
    """Make a call that does not wait for other programs."""
    within_deadline(call, patient=False)


# Named sessions


@pytest.mark.parametrize(
    "snapshot",
    [OLD, FULL, Snapshot(user_id=event_id(7)), *(attrs.evolve(FULL, storage_mechanism=m) for m in STORAGE_MECHANISMS)],
)
def test_every_snapshot_is_equal_when_loaded(path: Path, snapshot: Snapshot) -> None:
    """All fields survive, also in another process's store."""
    store = SqliteStore(path)
    store.save(snapshot)
    assert store.load() == SqliteStore(path).load() == read_sessions(path)["default"] == snapshot


def test_sessions_in_one_database_are_separate(path: Path) -> None:
    """Each name has its own user and session, and a name that has not been saved is an empty store."""
    stores = [SqliteStore(path, name) for name in ("default", "a/b", "名前", "x" * 50)]
    for number, store in enumerate(stores):
        assert store.load() is None
        store.save(attrs.evolve(OLD, session_index=number))
    assert [snapshot.session_index for store in stores if (snapshot := store.load())] == [0, 1, 2, 3]
    assert read_sessions(path).keys() == {store.name for store in stores}


def test_store_exposes_its_path_and_name(path: Path) -> None:
    """The repr shows the path and the name; the storage mechanism is one of the schema's."""
    store = SqliteStore(str(path), "worker")
    assert (store.path, store.name, store.corrupt_path) == (path, "worker", path.with_name("sessions.db.corrupt"))
    assert repr(store) == f"SqliteStore({str(path)!r}, 'worker')"
    assert store.storage_mechanism == "SQLITE"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((b"sessions.db",), TypeError, "path must be the path of a file"),
        (("",), ValueError, "path must be the path of a file"),
        (("folder/",), ValueError, "path must be the path of a file, not a folder: 'folder/'"),
        ((":memory:",), ValueError, "path must be the path of a file, not ':memory:'; use MemoryStore or MemoryStates"),
        (
            ("sqlite:///v.db",),
            ValueError,
            "path must be the path of a file, not the URL 'sqlite:///v.db'; pass",
        ),
        ((Path("sqlite:///v.db"),), ValueError, "path must be the path of a file, not the URL"),
        (("file:v.db?mode=ro",), ValueError, "path must be the path of a file, not the URL"),
        (("redis+unix://x",), ValueError, "path must be the path of a file, not the URL"),
        (("sessions.db", 7), TypeError, "name must be a str, not 7"),
        (("sessions.db", ""), ValueError, "name must be 1 to 50 bytes of printable characters in UTF-8, not ''"),
        (("sessions.db", "a\nb"), ValueError, "name must be 1 to 50 bytes"),
        (("sessions.db", "\ud800"), ValueError, "name must be 1 to 50 bytes"),
        (("sessions.db", "é" * 26), ValueError, "name must be 1 to 50 bytes"),
    ],
)
def test_invalid_argument_is_rejected(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    """The constructor says which argument is wrong, and why."""
    with pytest.raises(error, match=message):
        SqliteStore(*arguments)


def test_only_snapshots_are_saved(path: Path) -> None:
    """Any other object raises TypeError before anything is created."""
    with pytest.raises(TypeError, match="snapshot must be a Snapshot, not 'a'"):
        SqliteStore(path).save("a")  # type: ignore[arg-type]  # wrong on purpose
    assert names_in(path.parent) == []


def test_table_is_readable(path: Path) -> None:
    """An administrator sees text and numbers in columns named like the snapshot's fields."""
    save(path, FULL, "worker")
    ((kind, *row),) = run_sql(path, "SELECT typeof(background), * FROM sessions")
    assert kind == "integer"
    assert row == [
        "worker", "0123456789abcdef", event_id(1), event_id(2), 2**31 - 1, "SQLITE", event_id(3),
        "2026-11-23T09:00:00.123456Z", 0, "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999999Z", 0,
    ]  # fmt: skip


# Files


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_private(path: Path, umask: int) -> None:
    """The database and the files next to it have mode 0600 under any umask."""
    before = os.umask(umask)
    try:
        store = SqliteStore(path)
        store.save(OLD)
        store.save(NEW)
    finally:
        os.umask(before)
    assert {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.iterdir()} == {
        "sessions.db": "0o600",
        "sessions.db-shm": "0o600",
        "sessions.db-wal": "0o600",
        "sessions.db.lock": "0o600",
    }


@posix
def test_empty_file_keeps_its_mode(path: Path) -> None:
    """An empty file that an administrator has prepared becomes the database; its mode applies to all files."""
    path.touch()
    path.chmod(0o640)
    store = SqliteStore(path)
    assert store.load() is None
    store.save(OLD)
    assert store.load() == OLD
    assert {oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.iterdir()} == {"0o640"}


@needs_root
def test_root_does_not_change_the_owner(path: Path) -> None:
    """What root creates in a user's folder belongs to that user."""
    os.chown(path.parent, 65534, 65534)
    store = SqliteStore(path)
    store.save(OLD)
    store.save(NEW)
    assert {(file.stat().st_uid, file.stat().st_gid) for file in path.parent.iterdir()} == {(65534, 65534)}


def test_closing_the_last_store_leaves_one_file(path: Path) -> None:
    """When the last store is deallocated, the log is written back to the database and removed."""
    save(path, OLD)
    gc.collect()
    assert names_in(path.parent) == ["sessions.db", "sessions.db.lock"]


def test_path_may_contain_any_character(tmp_path: Path) -> None:
    """Characters that mean something in a URI do not, nor do bytes that are not UTF-8."""
    folder = tmp_path / "a?mode=memory#b%41 ü"
    for name in ("?cache=shared&vfs=none", "%2e%2e", *(["\udce9"] if os.name == "posix" else [])):
        save(folder / name, OLD)
        assert read_sessions(folder / name) == {"default": OLD}


@posix
def test_too_long_name_is_an_error(tmp_path: Path) -> None:
    """SQLite adds four characters to the database's name; if the system does not allow that, nothing is created."""
    limit = os.pathconf(tmp_path, "PC_NAME_MAX")
    save(tmp_path / ("x" * (limit - 4)), OLD)
    shutil.rmtree(tmp_path)
    store = SqliteStore(tmp_path / ("x" * (limit - 3)))
    with pytest.raises(OSError, match="File name too long") as caught:
        store.save(OLD)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert all(name.endswith(".lock") for name in names_in(tmp_path))


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins with ~ is in the user's home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(Path("~", "a", "sessions.db"), OLD)
    assert read_sessions(tmp_path / "a" / "sessions.db") == {"default": OLD}


@posix
@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock", ".tmp"])
def test_planted_link_next_to_the_database_is_not_followed(path: Path, suffix: str) -> None:
    """A link in place of one of the files next to the database never causes its target to change."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    save(path, OLD)
    path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.with_name(path.name + suffix).symlink_to(victim)
    store = SqliteStore(path)
    try:
        store.save(NEW)
    except OSError:
        assert suffix != ".tmp"
    assert victim.read_text() == "precious"


@posix
def test_link_planted_while_the_database_is_opened_is_not_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a link replaces the database right before SQLite opens it, the link's target is not used."""
    victim = path.with_name("victim.db")
    save(victim, OTHER)
    save(path, OLD)
    connect = sqlite_connection._connect  # noqa: SLF001  # right before it is called is the moment under test

    def plant_and_connect(uri: str) -> sqlite3.Connection:
        path.unlink()
        path.symlink_to(victim)
        return connect(uri)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_connection, "_connect", plant_and_connect)
        with pytest.raises(PermissionError, match="replaced while it was being opened"):
            SqliteStore(path).save(NEW)
    assert read_sessions(victim) == {"default": OTHER}
    assert not victim.with_name("victim.db-wal").exists()


@posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_special_file_is_never_overwritten(path: Path, kind: str) -> None:
    """With a FIFO, folder or device at the path, load and save raise OSError and leave it in place."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    store = SqliteStore("/dev/null" if kind == "device" else path)
    before = store.path.lstat()
    for attempt in (store.load, lambda: store.save(NEW)) if kind != "device" else (store.load,):
        with pytest.raises(OSError, match=r"Not a regular file|Is a directory"):
            attempt()
    after = store.path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


@needs_root
def test_folder_that_can_only_be_read(open_folder: Path) -> None:
    """In a folder without write permission, load() returns the snapshot, and save() raises PermissionError."""
    folder = open_folder / "read-only"
    folder.mkdir(mode=0o755)
    save(folder / "sessions.db", OLD)
    for file in folder.iterdir():
        file.chmod(0o644)
    program = """if True:
        import os, sys
        from client_session_persistence import Snapshot, SqliteStore
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        store = SqliteStore(sys.argv[1])
        print(store.load().session_id)
        try:
            store.save(store.load())
        except PermissionError as error:
            print(error.strerror)
    """
    before = names_in(folder)
    printed = subprocess.check_output(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(folder / "sessions.db")], env=environment(), text=True, timeout=60
    )
    assert printed == f"{event_id(1)}\nPermission denied\n"
    assert names_in(folder) == before


@needs_root
def test_unreadable_database_is_never_overwritten(open_folder: Path) -> None:
    """A database that the user may not read is left unchanged even in a writable folder."""
    path = open_folder / "sessions.db"
    save(path, OLD)
    (open_folder / "sessions.db.lock").unlink()
    before = path.read_bytes()
    program = """if True:
        import os, sys
        from client_session import ClientSession, SqliteStore
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        with ClientSession(store=SqliteStore(sys.argv[1])) as session:
            print(session.get_session_context("00000000-0000-4000-8000-000000000001").session_index)
            session.tick()
            print(type(session.save_error).__name__)
    """
    printed = subprocess.check_output(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(path)], env=environment(), text=True, timeout=60
    )
    assert printed == "1\nPermissionError\n"
    assert path.read_bytes() == before


def test_full_disk_is_reported(path: Path) -> None:
    """If the file system refuses more data, save() raises ENOSPC or EFBIG, and the old snapshot remains."""
    resource = pytest.importorskip("resource")
    store = SqliteStore(path)
    store.save(OLD)
    assert store.load() == OLD
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(OSError, match=r"Input/output error|No space left"):
            store.save(NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert store.load() == OLD
    store.save(NEW)
    assert SqliteStore(path).load() == NEW


# Other programs and versions


def test_database_of_another_application_is_refused(path: Path) -> None:
    """A database without our application id is neither used nor changed."""
    run_sql(path, "CREATE TABLE precious (value)", "INSERT INTO precious VALUES (42)")
    before = path.read_bytes()
    store = SqliteStore(path)
    store.corrupt_path.write_bytes(b"of that application")
    for attempt in (store.load, lambda: store.save(NEW), lambda: store.replace_user(NEW)):
        with pytest.raises(StoreError, match="is the database of another application"):
            attempt()
    assert path.read_bytes() == before
    assert store.corrupt_path.read_bytes() == b"of that application"
    with ClientSession(store=store, scheduler=ManualScheduler()) as session:
        assert session.get_session_context(event_id(1)).session_index == 1
    assert isinstance(session.save_error, StoreError)


@pytest.mark.parametrize(
    "data",
    [dumps(Snapshot(user_id=OLD.user_id)), dumps(OLD), dumps(OLD)[:-1], dumps(OLD)[:60], b"\0" * 50 + dumps(OLD)[50:]],
    ids=["user only", "session", "truncated", "truncated early", "overwritten"],
)
def test_save_file_is_refused(path: Path, data: bytes) -> None:
    """An XML save file, even a damaged one, is neither used nor changed, nor is what XmlStore keeps next to it."""
    path.write_bytes(data)
    for suffix in (".bak", ".corrupt"):
        path.with_name(path.name + suffix).write_bytes(dumps(OLD))
    store = SqliteStore(path)
    for attempt in (store.load, lambda: store.save(NEW), lambda: store.replace_user(NEW)):
        with pytest.raises(StoreError, match=r"sessions\.db is an XML save file, not an SQLite database; use XmlStore"):
            attempt()
    assert path.read_bytes() == data
    assert names_in(path.parent) == [path.name + suffix for suffix in ("", ".bak", ".corrupt", ".lock")]


def test_database_of_a_newer_version_is_refused(path: Path) -> None:
    """A database whose schema has a higher version is neither used nor changed."""
    save(path, OLD)
    run_sql(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    store = SqliteStore(path)
    for attempt in (store.load, lambda: store.save(NEW)):
        with pytest.raises(StoreError, match="has schema version 2, but this version of client-session can use only 1"):
            attempt()
    assert path.read_bytes() == before


def test_database_that_another_program_has_locked_is_a_timeout(path: Path) -> None:
    """A save waits for another program's transaction for as long as the call may wait, then raises TimeoutError."""
    store = SqliteStore(path)
    store.save(OLD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError, match="Another program has the database locked"):
            at_once(lambda: store.save(NEW))
        began = time.thread_time()
        with pytest.raises(TimeoutError):
            within_deadline(lambda: store.save(NEW), until=time.monotonic() + 0.05)
        assert time.thread_time() - began < 1
        assert store.load() == OLD
        other.execute("COMMIT")
    store.save(NEW)
    assert store.load() == NEW


def test_administrator_may_use_the_database_meanwhile(path: Path) -> None:
    """A change by another program is seen at the next load, and its open transaction does not prevent saving."""
    store = SqliteStore(path)
    store.save(OLD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE sessions SET session_index = 5")
        assert store.load() == attrs.evolve(OLD, session_index=5)
        other.execute("BEGIN")
        assert other.execute("SELECT session_index FROM sessions").fetchall() == [(5,)]
        store.save(NEW)
        assert other.execute("SELECT session_index FROM sessions").fetchall() == [(5,)]
    assert store.load() == NEW


def test_deleted_database_is_created_again(path: Path) -> None:
    """If someone deletes the files of an open database, the next save creates them, as for a missing file."""
    store = SqliteStore(path)
    for snapshot in (OLD, NEW, OTHER):
        store.save(snapshot)
        store.save(snapshot)
        for file in path.parent.iterdir():
            file.unlink()
        assert store.load() is None
    store.save(NEW)
    assert SqliteStore(path).load() == NEW


def test_deleted_log_is_noticed(path: Path) -> None:
    """If someone deletes the log of an open database, saves go to a new log rather than to the deleted one."""
    store = SqliteStore(path)
    store.save(OLD)
    save(path, OLD)
    assert store.load() == OLD
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    store.save(NEW)
    assert SqliteStore(path).load() == NEW


def test_log_of_a_deleted_database_is_not_applied_to_a_new_one(path: Path) -> None:
    """The log and the journal that a deleted database left behind do not damage the next one."""
    store = SqliteStore(path)
    store.save(OLD)
    store.save(OTHER)
    stale = path.with_name("copy")
    shutil.copyfile(f"{path}-wal", stale)  # the process has no locks on the log itself
    del store
    path.unlink()
    stale.rename(path.with_name("sessions.db-wal"))
    path.with_name("sessions.db-journal").write_bytes(b"\xd9\xd5\x05\xf9 \xa1c\xd7" * 512)
    save(path, NEW)
    assert read_sessions(path) == {"default": NEW}


# Corrupt databases


def truncate(path: Path) -> None:
    """Cut the database in half."""
    path.write_bytes(path.read_bytes()[:4096])


def erase(begin: int, end: int) -> Callable[[Path], None]:
    """Return a function that overwrites bytes of the database."""

    def overwrite(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])

    return overwrite


def sql(*statements: str) -> Callable[[Path], None]:
    """Return a function that runs statements in the database."""

    def execute(path: Path) -> None:
        run_sql(path, *statements)

    return execute


DAMAGE: dict[str, tuple[Callable[[Path], object], bool]] = {
    "not a database": (lambda path: path.write_bytes(b"not a database " * 100), False),
    "one byte": (lambda path: path.write_bytes(b"x"), False),
    "truncated": (truncate, False),
    "first page erased": (erase(0, 4096), True),
    "schema erased": (erase(100, 4096), True),
    "second page's header erased": (erase(4096, 4104), True),
    "trigger added": (sql("CREATE TRIGGER t AFTER INSERT ON sessions BEGIN DELETE FROM sessions; END"), True),
    "replaced by a view": (
        sql(
            "ALTER TABLE sessions RENAME TO s",
            "CREATE VIEW sessions AS WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r) SELECT * FROM r, s",
        ),
        True,
    ),
    "invalid index": (sql("UPDATE sessions SET session_index = 'x' WHERE name = 'default'"), True),
    "invalid time": (sql("UPDATE sessions SET last_activity = '2026-11-23' WHERE name = 'default'"), True),
    "huge value": (sql("UPDATE sessions SET session_id = hex(zeroblob(70000)) WHERE name = 'default'"), False),
    "not UTF-8": (sql("UPDATE sessions SET session_id = CAST(x'ff' AS TEXT) WHERE name = 'default'"), True),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_corrupt_database_is_kept_and_replaced(path: Path, kind: str) -> None:
    """load() raises with what can be recovered; the next save keeps the file and every session that can be read."""
    damage, is_recoverable = DAMAGE[kind]
    save(path, OTHER, "other")
    save(path, OLD)
    damage(path)
    corrupt = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(CorruptSaveFileError) as caught:
        store.load()
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(f"{path} is corrupt: ")
    assert (caught.value.recovered == Snapshot(user_id=OLD.user_id)) is is_recoverable
    store.save(NEW)
    assert store.load() == NEW
    assert store.corrupt_path.read_bytes() == corrupt
    other = SqliteStore(path, "other").load()
    assert (other is not None and other.user_id == OTHER.user_id) or not is_recoverable
    assert other == OTHER or not kind.startswith("invalid")
    assert run_sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_session_continues_with_the_recovered_user(path: Path) -> None:
    """A session that finds a corrupt database continues with its user and reports the damage once."""
    save(path, OLD)
    erase(0, 4096)(path)
    with ClientSession(store=SqliteStore(path), scheduler=ManualScheduler()) as session:
        assert session.user_id == OLD.user_id
        session.get_session_context(uuid.uuid4())
        session.save()
        assert session.save_error is None
    assert names_in(path.parent)[:2] == ["sessions.db", "sessions.db-shm"]


def test_corrupt_database_that_cannot_be_kept_is_not_overwritten(path: Path) -> None:
    """With a folder at the .corrupt path, saving raises instead of overwriting the only copy."""
    path.write_bytes(b"corrupt")
    (path.with_name("sessions.db.corrupt") / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|exists"):
        SqliteStore(path).save(NEW)
    assert path.read_bytes() == b"corrupt"


def test_log_of_a_corrupt_database_is_kept(path: Path) -> None:
    """The log is kept next to the corrupt copy, where SQLite looks for it, and is not applied to the new database."""
    save(path, OLD)
    path.write_bytes(b"corrupt")
    path.with_name("sessions.db-wal").write_bytes(b"log")
    store = SqliteStore(path)
    store.save(NEW)
    assert path.with_name("sessions.db.corrupt").read_bytes() == b"corrupt"
    assert path.with_name("sessions.db.corrupt-wal").read_bytes() == b"log"
    assert store.load() == NEW


def test_open_stores_follow_the_replaced_database(path: Path) -> None:
    """Stores that had the corrupt database open use the new one from then on."""
    stores = [SqliteStore(path, name) for name in ("default", "other")]
    for store in stores:
        store.save(OLD)
        assert store.load() == OLD
    run_sql(path, "UPDATE sessions SET session_index = 'x' WHERE name = 'default'")
    stores[0].save(NEW)
    stores[1].save(OTHER)
    assert read_sessions(path) == {"default": NEW, "other": OTHER}
    del stores
    gc.collect()
    assert read_sessions(path) == {"default": NEW, "other": OTHER}


@pytest.mark.parametrize("shard", range(4))
def test_flipped_bytes_never_cause_another_error(tmp_path: Path, shard: int) -> None:
    """A damaged byte leads to a snapshot, CorruptSaveFileError or StoreError; then a save works, or is refused."""
    good = tmp_path / "good.db"
    save(good, OLD)
    data = bytearray(good.read_bytes())
    used = [position for position, value in enumerate(data) if value]
    for position in used[shard * 3 :: 12]:
        path = tmp_path / f"{position}.db"
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        store = SqliteStore(path)
        try:
            store.load()
        except CorruptSaveFileError as error:
            assert error.recovered is None or error.recovered.user_id  # noqa: PT017  # not the only outcome
        except StoreError:
            with pytest.raises(StoreError):
                store.save(NEW)
            continue
        store.save(NEW)
        assert store.load() == NEW


# Processes and threads


def test_each_session_has_its_own_owner(path: Path) -> None:
    """A second run does not become the owner of a session, but it can own another session in the same database."""
    owner = SqliteStore(path).ownership()
    assert owner.own()
    assert not SqliteStore(path).ownership().own()
    for name in ("worker_1", "a/b", "名前"):
        assert SqliteStore(path, name).ownership().own()
    owner.release()
    assert SqliteStore(path).ownership().own()
    names = names_in(path.parent)
    assert len(names) == 4
    assert {"sessions.db.default.owner", "sessions.db.worker_1.owner"} < set(names)


def test_session_is_resumed(path: Path) -> None:
    """A run with continue_on_restart resumes the session of the same name, and no other one."""
    contexts = []
    for name in ("default", "other", "default"):
        store = SqliteStore(path, name)
        with ClientSession(store=store, continue_on_restart=True, scheduler=ManualScheduler()) as session:
            contexts.append(session.get_session_context(uuid.uuid4()))
            session.save()
    assert [(context.session_index, context.event_index) for context in contexts] == [(1, 1), (1, 1), (1, 2)]


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_forked_child_opens_its_own_connection(path: Path) -> None:
    """A parent and its child, which was forked while the database was open, see and keep each other's saves."""
    store = SqliteStore(path)
    store.save(OLD)
    assert store.load() == OLD
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for index in range(10, 60, 2):
                store.save(attrs.evolve(NEW, session_index=index))
                os.write(to_parent, b"x")
                os.read(from_parent, 1)
                assert store.load() == attrs.evolve(NEW, session_index=index + 1)
            status = 0
        finally:
            os._exit(status)
    for index in range(10, 60, 2):
        assert os.read(from_child, 1) == b"x"
        assert store.load() == attrs.evolve(NEW, session_index=index)
        store.save(attrs.evolve(NEW, session_index=index + 1))
        os.write(to_child, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert run_sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert SqliteStore(path).load() == attrs.evolve(NEW, session_index=59)
    for descriptor in (from_child, to_parent, from_parent, to_child):
        os.close(descriptor)


@needs_fork
def test_child_forked_in_c_cannot_use_an_open_database(path: Path) -> None:
    """A child that was forked without the hooks gets an error, and cannot harm its parent's database, even at exit."""
    program = """if True:
        import ctypes, os, sys
        from client_session_persistence import Snapshot, SqliteStore
        store, other = SqliteStore(sys.argv[1]), SqliteStore(sys.argv[1] + ".other")
        snapshot = Snapshot(user_id="0123456789abcdef")
        store.save(snapshot); store.load()
        if ctypes.PyDLL(None).fork() == 0:
            for call in (store.load, lambda: store.save(snapshot), SqliteStore(sys.argv[1]).load):
                try:
                    call()
                except OSError as error:
                    print(error.strerror)
            other.save(snapshot)
            print(other.load() == snapshot)
            sys.exit()
        os.wait()
        store.save(snapshot)
        print(sorted(os.listdir(os.path.dirname(sys.argv[1]))))
    """
    printed = subprocess.check_output(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(path)], env=environment(), text=True, timeout=60
    )
    message = "This process was forked without Python's fork hooks while the database was open\n"
    files = ["sessions.db", "sessions.db-shm", "sessions.db-wal", "sessions.db.lock", "sessions.db.other",
             "sessions.db.other.lock"]  # fmt: skip
    assert printed == f"{3 * message}True\n{files}\n"
    assert read_sessions(path) == {"default": Snapshot(user_id="0123456789abcdef")}


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_signal_handler_may_fork_between_statements(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a signal handler forks while a call is about to run a statement, the call completes in the parent."""
    store = SqliteStore(path)
    store.save(OLD)
    opened = sqlite_connection.SqliteConnection._connection  # noqa: SLF001  # right after it returns is the moment under test
    children: list[int] = []

    def opened_then_fork(connection: sqlite_connection.SqliteConnection) -> sqlite3.Connection:
        result = opened(connection)
        if not children:
            children.append(os.fork())
            if not children[0]:
                os._exit(0)
        return result

    monkeypatch.setattr(sqlite_connection.SqliteConnection, "_connection", opened_then_fork)
    store.save(NEW)
    assert os.waitpid(children[0], 0)[1] == 0
    assert store.load() == NEW


def test_interrupted_load_leaves_no_transaction_open(path: Path) -> None:
    """Wherever a load is interrupted, another program can truncate the log while the exception exists."""
    store = SqliteStore(path)
    store.save(OLD)
    store.load()

    def interrupt() -> None:
        raise KeyboardInterrupt

    for point in range(call_at_point(store.load, lambda: None, -1, raising=True)):
        with pytest.raises(KeyboardInterrupt) as caught:
            call_at_point(store.load, interrupt, point, raising=True)
        assert run_sql(path, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)], f"at point {point}"
        assert caught.value is not None
    assert store.load() == OLD


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_forked_during_a_load_sees_its_parents_saves(path: Path) -> None:
    """Wherever a signal handler forks during a load, the child completes the load, and later sees the newest one."""
    store = SqliteStore(path)
    from_parent, to_child = os.pipe()
    children: list[int] = []
    for point in range(0, 1000, 10):
        store.save(OLD)
        call_at_point(store.load, lambda: children.append(os.fork()), point)
        if not children:
            break  # the load has fewer points
        child = children.pop()
        if child == 0:
            os.read(from_parent, 1)
            os._exit(0 if store.load() == NEW else 1)
        store.save(NEW)
        os.write(to_child, b"x")
        assert os.waitpid(child, 0)[1] == 0, f"at point {point}"
    assert point > 30  # Python 3.13 has fewer points than 3.11
    os.close(from_parent)
    os.close(to_child)


def test_killed_process_leaves_a_usable_database(path: Path) -> None:
    """The log that a killed process leaves behind is applied, and then written back, by the next run."""
    program = """if True:
        import os, signal, sys
        from client_session_persistence import Snapshot, SqliteStore
        store = SqliteStore(sys.argv[1])
        for index in range(5):
            store.save(Snapshot(user_id="0123456789abcdef", session_index=index))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment(), check=False, timeout=60)  # noqa: S603  # our own
    assert done.returncode == -signal.SIGKILL
    log = path.with_name("sessions.db-wal")
    assert log.stat().st_size > 0
    expected = Snapshot(user_id="0123456789abcdef", session_index=4)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert read_sessions(path) == {"default": expected}
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    store = SqliteStore(path)
    assert store.load() == expected
    assert log.stat().st_size == 0


# Forgetting


def test_replaced_user_leaves_no_trace(path: Path) -> None:
    """Nothing of the old user's ids remains in the database, its log, or the corrupt copy; other sessions remain."""
    store, other = SqliteStore(path), SqliteStore(path, "other")
    other.save(OTHER)
    for number in range(200):  # more than fits into the log
        store.save(attrs.evolve(FULL, user_id=event_id(7), session_index=number, session_id=event_id(1000 + number)))
    shutil.copy(store.path.with_name("sessions.db.lock"), store.corrupt_path)
    store.corrupt_path.write_text(event_id(7))
    assert event_id(7).encode() in bytes_in(path.parent)
    store.replace_user(Snapshot(user_id=event_id(9)))
    contents = bytes_in(path.parent)
    assert event_id(7).encode() not in contents
    assert b"00000000-0000-4000-8000-00000000" in contents
    assert b"00000000-0000-4000-8000-000000001" not in contents
    assert names_in(path.parent) == ["sessions.db", "sessions.db-shm", "sessions.db-wal", "sessions.db.lock"]
    assert (store.load(), other.load()) == (Snapshot(user_id=event_id(9)), OTHER)
    other.save(OTHER)
    assert event_id(7).encode() not in bytes_in(path.parent)


@pytest.mark.parametrize("before", ["missing", "no row", "corrupt", "corrupt with a log"])
def test_replace_user_works_in_any_database(path: Path, before: str) -> None:
    """If there is no database, it is created; a corrupt one is not kept, but other sessions' users are."""
    if before != "missing":
        save(path, OTHER, "other")
    if before.startswith("corrupt"):
        save(path, OLD)
        erase(0, 4096)(path)
        if before.endswith("log"):
            path.with_name("sessions.db-wal").write_text(event_id(7))
    store = SqliteStore(path)
    store.replace_user(NEW := Snapshot(user_id=event_id(9)))  # noqa: N806  # like the others
    assert store.load() == NEW
    assert event_id(7).encode() not in bytes_in(path.parent)
    other = SqliteStore(path, "other").load()
    assert (other is None) if before == "missing" else (other is not None and other.user_id == OTHER.user_id)
    assert not store.corrupt_path.exists()


@pytest.fixture
def reader(path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a program which keeps reading the database until it is killed."""
    program = """if True:
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN")
        print(connection.execute("SELECT session_index FROM sessions").fetchall(), flush=True)
        sys.stdin.read()
    """
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "[(1,)]\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("log", ["empty", "in use"])
def test_reader_that_blocks_forgetting_makes_it_raise(
    path: Path, reader: Callable[[], subprocess.Popen[str]], log: str
) -> None:
    """While another program reads the old user, replace_user() raises TimeoutError and changes nothing."""
    store = SqliteStore(path)
    store.save(OLD)
    store.save(OLD)
    if log == "empty":
        run_sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    process = reader()
    store.save(attrs.evolve(OLD, event_index=1)) if log == "in use" else None
    expected = store.load()
    with pytest.raises(TimeoutError, match="Another program is reading the database"):
        at_once(lambda: store.replace_user(OTHER))
    assert store.load() == SqliteStore(path).load() == expected
    process.kill()
    process.communicate()
    store.replace_user(OTHER)
    assert store.load() == OTHER
    assert event_id(7).encode() not in bytes_in(path.parent)


@pytest.mark.parametrize("call", ["load", "lock"])
def test_killed_replacement_is_completed_by_the_next_start(path: Path, call: str) -> None:
    """If the process is killed once the new user is in the log, the next load or lock removes the old one for good."""
    program = """if True:
        import os, signal, sys
        from client_session_persistence import Snapshot, SqliteStore
        class Killed(SqliteStore):
            purges = 0
            def _purge(self, *arguments, **options):
                self.purges += 1
                if self.purges == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                super()._purge(*arguments, **options)
        store = Killed(sys.argv[1])
        store.save(Snapshot(user_id=sys.argv[2]))
        store.replace_user(Snapshot(user_id=sys.argv[3]))
    """
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(path), event_id(7), event_id(9)], env=environment(), check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert event_id(7).encode() in bytes_in(path.parent)
    store = SqliteStore(path)
    if call == "load":
        store.load()
    else:
        with store.lock():
            store.load()
        with store.lock():
            pass
    assert event_id(7).encode() not in bytes_in(path.parent)
    assert store.load() == Snapshot(user_id=event_id(9))
