"""SqliteStates: the database file, processes, forks, and what can go wrong."""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from client_session_persistence import Snapshot, SqliteStates, SqliteStore, StoreError, dumps, sqlite_states
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
needs_modes = pytest.mark.skipif(os.name == "nt", reason="needs POSIX file modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database that does not exist yet."""
    return tmp_path / "folder" / "states.db"


@pytest.fixture
def states(path: Path) -> Iterator[SqliteStates]:
    """Yield a store."""
    opened = SqliteStates(path)
    yield opened
    opened.close()


def run_python(program: str, *arguments: object) -> str:
    """Run a program in another process and return what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: S603  # our own interpreter


def child_exit_code(child: int) -> int:
    """Wait for a forked child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_nothing_is_created_before_the_first_call(path: Path) -> None:
    """Creating the object touches no file, and its repr shows the path."""
    assert repr(SqliteStates(path)) == f"SqliteStates({str(path)!r})"
    assert not path.parent.exists()


@needs_modes
def test_database_is_private(states: SqliteStates, path: Path) -> None:
    """The database, SQLite's files next to it, and a new folder are accessible to this user only."""
    states.swap("key", None, b"value", 60)
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ~ in the path is the home folder, and the path is fixed when the object is created."""
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path))
    assert str(tmp_path) in repr(SqliteStates("~/states.db"))
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in repr(SqliteStates("states.db"))


@pytest.mark.parametrize("value", [None, b"states.db", 1, "", "folder/", ".", "a\0b", ":memory:", "file:v.db"])
def test_bad_paths_are_refused(value: object) -> None:
    """A path that is not a file's raises TypeError or ValueError that names the argument."""
    with pytest.raises((TypeError, ValueError), match="path must be"):
        SqliteStates(value)  # type: ignore[arg-type]


def test_values_survive_closing(states: SqliteStates, path: Path) -> None:
    """After close(), the next call opens the database again; other processes see the values."""
    states.swap("key", None, b"value", 60)
    states.close()
    states.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert states.read("key")[0] == b"value"
    program = (
        "import sys; from client_session_persistence import SqliteStates as S; print(S(sys.argv[1]).read('key')[0])"
    )
    assert run_python(program, path) == "b'value'\n"


def test_swap_survives_a_kill(states: SqliteStates, path: Path) -> None:
    """What was swapped before a process is killed is still there."""
    program = (
        "import os, signal, sys; from client_session_persistence import SqliteStates as S\n"
        "S(sys.argv[1]).swap('key', None, b'value', 60); os.kill(os.getpid(), signal.SIGKILL)"
    )
    if os.name == "nt":
        pytest.skip("needs SIGKILL")
    with pytest.raises(subprocess.CalledProcessError):
        run_python(program, path)
    assert states.read("key")[0] == b"value"


def test_deallocated_store_is_closed(path: Path) -> None:
    """A store that is dropped without close() closes its database."""
    states = SqliteStates(path)
    states.swap("key", None, b"value", 60)
    del states
    gc.collect()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_applications_database_is_refused(path: Path) -> None:
    """A database with other tables is left alone, and so is one of a newer version."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (a)")
    for statement in ("PRAGMA user_version = 0", f"PRAGMA application_id = {0x436C5374}", "PRAGMA user_version = 2"):
        connection.execute(statement)
        connection.commit()
        before = path.read_bytes()
        with pytest.raises(StoreError, match="is not a database of SqliteStates"):
            SqliteStates(path).read("key")
        assert path.read_bytes() == before
    connection.close()


def test_file_that_is_not_a_database_is_refused(path: Path) -> None:
    """A file of another format is not overwritten."""
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        SqliteStates(path).swap("key", None, b"value", 60)
    assert path.read_bytes() == b"not a database" * 100


def test_database_of_sessions_is_refused(tmp_path: Path) -> None:
    """The error says that the database belongs to SqliteStore, and the other way around."""
    SqliteStore(tmp_path / "sessions.db").save(Snapshot(user_id=event_id(7)))
    with pytest.raises(
        StoreError, match=r"is a database of sessions \(SqliteStore\), not of visitors' states \(Sqlite"
    ):
        SqliteStates(tmp_path / "sessions.db").read("key")
    SqliteStates(tmp_path / "states.db").swap("key", None, b"value", 60)
    with pytest.raises(
        StoreError, match=r"is a database of visitors' states \(SqliteStates\), not of sessions \(Sqlite"
    ):
        SqliteStore(tmp_path / "states.db").load()


@pytest.mark.parametrize("data", [b"x", dumps(Snapshot(user_id=event_id(7)))])
def test_small_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """A file that is too small for a database, such as a save file, is not taken for an empty database."""
    path = tmp_path / "states.db"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"states\.db is not a database of SqliteStates: it has {len(data)} bytes"):
        SqliteStates(path).swap("key", None, b"value", 60)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [data]


def test_folder_and_missing_permissions_are_os_errors(tmp_path: Path) -> None:
    """A folder in place of the database, and a file in place of the folder, raise OSError."""
    states = SqliteStates(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="SQLITE_CANTOPEN"):
        states.read("key")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError if os.name != "nt" else OSError):
        SqliteStates(tmp_path / "file" / "states.db").read("key")


def test_locked_database_is_a_timeout(states: SqliteStates, path: Path) -> None:
    """If another program keeps the database locked, a swap raises TimeoutError after a second; reads continue."""
    states.swap("key", None, b"value", 60)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="kept the database locked"):
        states.swap("key", b"value", b"new", 60)
    assert time.monotonic() - start >= 1
    assert states.read("key")[0] == b"value"
    other.close()
    assert states.swap("key", b"value", b"new", 60)[:2] == (True, b"new")


@needs_fork
def test_parent_and_child_share_the_database(states: SqliteStates, path: Path) -> None:
    """After a fork, both processes use the database, and the child's exit does not disturb the parent."""
    states.swap("key", None, b"0", 60)
    child = os.fork()
    if not child:
        os._exit(0 if states.swap("key", b"0", b"1", 60)[0] else 1)
    assert child_exit_code(child) == 0
    assert states.swap("key", b"1", b"2", 60)[0]
    assert SqliteStates(path).read("key")[0] == b"2"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's libc")
def test_child_forked_without_hooks_is_refused(path: Path) -> None:
    """If C code forks while the database is open, the child cannot use it; the parent is not disturbed."""
    program = """
import ctypes, os, sys
from client_session_persistence import SqliteStates
states = SqliteStates(sys.argv[1])
states.swap("key", None, b"0", 60)
child = ctypes.PyDLL(None).fork()
if not child:
    for each in (states, SqliteStates(sys.argv[1])):
        try:
            each.read("key")
            os._exit(1)
        except OSError as error:
            assert "forked without" in str(error)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(states.swap("key", b"0", b"1", 60)[:2])
"""
    assert run_python(program, path) == "(True, b'1')\n"


def fork_and_read(states: SqliteStates) -> None:
    """Fork a child that reads a value; check that it could."""
    child = os.fork()
    if not child:
        sys.settrace(None)
        code = 1
        try:
            code = 0 if states.read("other")[0] == b"0" else 1
        finally:
            os._exit(code)
    assert child_exit_code(child) == 0


ACTIONS: dict[str, Callable[[SqliteStates], object]] = {
    "swap": lambda states: states.swap("other", b"0", b"0", 60),
    "close": SqliteStates.close,
    "fork": fork_and_read,
}


@needs_fork
@pytest.mark.parametrize("action", ACTIONS)
def test_calls_can_be_interrupted_by_others(states: SqliteStates, action: str) -> None:
    """At every line of a swap, a signal handler may swap another value, close the store, or fork: no swap is lost."""
    states.swap("other", None, b"0", 60)
    states.swap("key", None, b"0", 60)
    line = number = 0
    has_interrupted = True
    while has_interrupted:
        line += 1
        remaining = line
        has_interrupted = False

        def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401  # a trace function
            nonlocal remaining, has_interrupted
            if frame.f_code.co_filename != sqlite_states.__file__:
                return None
            remaining -= event == "line"
            if not remaining and not has_interrupted:
                has_interrupted = True
                ACTIONS[action](states)
            return trace

        old, new = b"%d" % number, b"%d" % (number + 1)
        number += 1
        sys.settrace(trace)
        try:
            result = states.swap("key", old, new, 60)
        finally:
            sys.settrace(None)
        # A swap whose connection was closed is repeated, and then finds its own value.
        assert result[:2] == (True, new) or (action != "swap" and result[:2] == (False, new))
    assert line > 15
    assert states.read("key")[0] == b"%d" % number
