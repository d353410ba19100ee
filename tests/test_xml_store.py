"""XmlStore on a real disk: atomic, durable and private saves, locking, and files that are never overwritten.

Tests of promises that SqliteStore makes too run on both.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from filelock import FileLock

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import (
    CorruptSaveFileError,
    Snapshot,
    SqliteStates,
    SqliteStore,
    StoreError,
    XmlStore,
    dumps,
    loads,
)
from client_session_persistence.atomic_file import create_folder
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import ManualTime

    FileStoreClass = type[XmlStore | SqliteStore]

OLD = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=1)
NEW = Snapshot(user_id=event_id(7), session_id=event_id(2), session_index=2)

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions, FIFOs and links")


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def zero_umask() -> Iterator[None]:
    """Set the umask to 0, so that files are private only if the store makes them private."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_missing_file_is_an_empty_store(save_path: Path, file_store: FileStoreClass) -> None:
    """Loading from a missing file returns None and does not create any files."""
    assert file_store(save_path).load() is None
    assert names_in(save_path.parent) == []


def test_saved_snapshot_can_be_loaded(tmp_path: Path, file_store: FileStoreClass) -> None:
    """The snapshot can be loaded, also by another store, and missing parent folders are created."""
    path = tmp_path / "a" / "b" / "session.xml"
    store = file_store(path)
    store.save(OLD)
    store.save(NEW)
    assert store.load() == file_store(str(path)).load() == NEW


def test_last_good_file_is_the_backup(save_path: Path) -> None:
    """The backup and the lock file are the only files next to the save file."""
    store = XmlStore(save_path)
    store.save(OLD)
    assert names_in(save_path.parent) == ["session.xml", "session.xml.lock"]
    store.save(NEW)
    store.save(NEW)
    store.save(OLD)
    assert names_in(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]
    assert loads(save_path.with_name("session.xml.bak").read_bytes()) == NEW


def test_store_exposes_its_paths(save_path: Path) -> None:
    """The store exposes the paths of the save file, backup and last corrupt file, and its repr shows the save path."""
    store = XmlStore(str(save_path))
    assert (store.path, store.backup_path) == (save_path, save_path.with_name("session.xml.bak"))
    assert store.corrupt_path == save_path.with_name("session.xml.corrupt")
    assert repr(store) == f"XmlStore({str(save_path)!r})"


def test_flush_returns_at_once_without_the_writer_thread(save_path: Path) -> None:
    """A save is durable when it returns, so flush() returns immediately."""
    store = XmlStore(save_path)
    store.flush()
    store.save(NEW)
    store.flush()
    assert store.load() == NEW


def fail_to_link(*_: object, **__: object) -> None:
    """Raise the error that `os.link` raises on a file system without hard links."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_backup_is_copied_without_hard_links(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file system does not support hard links, the backup is a copy."""
    monkeypatch.setattr(os, "link", fail_to_link)
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert loads(save_path.with_name("session.xml.bak").read_bytes()) == OLD
    assert names_in(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]


@posix
@pytest.mark.usefixtures("zero_umask")
def test_files_are_private(save_path: Path) -> None:
    """The save file, backup and lock file have mode 0600 under a umask of 0."""
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in save_path.parent.iterdir()} == {
        "session.xml": "0o600",
        "session.xml.bak": "0o600",
        "session.xml.lock": "0o600",
    }


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_umask_does_not_lock_out_the_owner(save_path: Path, umask: int) -> None:
    """The save file, backup and lock file have mode 0600 even under a umask of 0777."""
    before = os.umask(umask)
    try:
        store = XmlStore(save_path)
        store.save(OLD)
        store.save(NEW)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in save_path.parent.iterdir()} == {0o600}


@posix
@pytest.mark.usefixtures("zero_umask")
def test_created_folder_is_private(tmp_path: Path, file_store: FileStoreClass) -> None:
    """A folder that the store creates has mode 0700 under any umask, so that other users cannot plant files in it."""
    file_store(tmp_path / "a" / "b" / "session.xml").save(OLD)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to change the owner of a file")
def test_root_does_not_change_the_owner(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When root rewrites a user's file, the user still owns the file and its backup, with or without hard links."""
    save_path.write_bytes(dumps(OLD))
    os.chown(save_path, 65534, 65534)
    XmlStore(save_path).save(NEW)
    monkeypatch.setattr(os, "link", fail_to_link)
    XmlStore(save_path).save(OLD)
    for path in (save_path, save_path.with_name("session.xml.bak")):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


@posix
def test_existing_file_keeps_its_mode(save_path: Path) -> None:
    """Saving does not change a file mode that the user has set."""
    save_path.write_bytes(dumps(OLD))
    save_path.chmod(0o640)
    XmlStore(save_path).save(NEW)
    assert stat.S_IMODE(save_path.stat().st_mode) == 0o640


@posix
def test_symbolic_link_is_followed(tmp_path: Path, file_store: FileStoreClass) -> None:
    """A symbolic link at the save path is followed, not replaced."""
    target, link = tmp_path / "real" / "session.xml", tmp_path / "link.xml"
    target.parent.mkdir()
    link.symlink_to(target)
    file_store(link).save(OLD)
    file_store(link).save(NEW)
    assert link.is_symlink()
    assert file_store(target).load() == NEW
    assert names_in(tmp_path) == ["link.xml", "real"]


@posix
@pytest.mark.parametrize("call", ["lstat", "readlink"])
def test_unreadable_link_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, file_store: FileStoreClass
) -> None:
    """While a link is unreadable, load() and save() raise, but the constructor does not; later, saves follow it."""
    target, link = tmp_path / "real" / "session.xml", tmp_path / "link.xml"
    file_store(target).save(OLD)
    link.symlink_to(target)

    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        store = file_store(link)
        for attempt in (store.load, lambda: store.save(NEW)):
            with pytest.raises(OSError, match="Input/output error"):
                attempt()
    store.save(NEW)
    assert link.is_symlink()
    assert file_store(target).load() == NEW
    assert names_in(tmp_path) == ["link.xml", "real"]


@posix
def test_circular_links_are_an_error(tmp_path: Path, file_store: FileStoreClass) -> None:
    """With a link loop at the save path, load() and save() raise, but the constructor does not."""
    link = tmp_path / "link.xml"
    link.symlink_to(link)
    store = file_store(link)
    for attempt in (store.load, lambda: store.save(NEW)):
        with pytest.raises(OSError, match="symbolic links"):
            attempt()


@posix
def test_missing_current_folder_is_an_error_on_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_store: FileStoreClass
) -> None:
    """A relative path is resolved once the current folder exists; a later chdir() does not change the resolved path."""
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    store = file_store("session.xml")
    with pytest.raises(FileNotFoundError):
        store.save(OLD)
    monkeypatch.chdir(tmp_path)
    store.save(OLD)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    store.save(NEW)
    assert file_store(tmp_path / "session.xml").load() == NEW


@posix
def test_planted_temporary_link_is_not_followed(save_path: Path) -> None:
    """A symbolic link at the temporary file's path is removed."""
    target = save_path.with_name("target.txt")
    target.write_text("precious")
    save_path.with_name("session.xml.tmp").symlink_to(target)
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert target.read_text() == "precious"
    assert store.load() == NEW


@posix
def test_planted_backup_link_is_not_followed(save_path: Path) -> None:
    """The store neither reads nor writes through a symbolic link at the backup path."""
    target = save_path.with_name("target.txt")
    target.write_bytes(dumps(NEW))
    save_path.write_bytes(b"corrupt")
    save_path.with_name("session.xml.bak").symlink_to(target)
    store = XmlStore(save_path)
    with pytest.raises(CorruptSaveFileError) as caught:
        store.load()
    assert caught.value.recovered is None
    store.save(OLD)
    store.save(OLD)
    assert target.read_bytes() == dumps(NEW)
    assert not save_path.with_name("session.xml.bak").is_symlink()


def test_save_succeeds_without_a_backup(save_path: Path) -> None:
    """A folder at the backup path is left in place, and the file is saved without a backup."""
    store = XmlStore(save_path)
    store.save(OLD)
    (save_path.with_name("session.xml.bak") / "inside").mkdir(parents=True)
    store.save(NEW)
    assert store.load() == NEW
    assert names_in(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]


def test_corrupt_file_that_cannot_be_kept_is_not_overwritten(save_path: Path) -> None:
    """With a folder at the .corrupt path, saving raises instead of overwriting the only copy of the corrupt file."""
    save_path.write_bytes(b"corrupt")
    (save_path.with_name("session.xml.corrupt") / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        XmlStore(save_path).save(NEW)
    assert save_path.read_bytes() == b"corrupt"


@posix
def test_planted_lock_link_is_rejected(save_path: Path, file_store: FileStoreClass) -> None:
    """A symbolic link at the lock file's path causes an error, and the link's target is left unchanged."""
    target = save_path.with_name("target.txt")
    target.write_text("precious")
    save_path.with_name("session.xml.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        file_store(save_path).save(OLD)
    assert target.read_text() == "precious"
    assert not save_path.exists()


def test_leftover_temporary_file_is_removed(save_path: Path, file_store: FileStoreClass) -> None:
    """The next process that acquires the lock removes the temporary file that a killed writer left behind."""
    save_path.with_name("session.xml.tmp").write_bytes(b"half")
    with file_store(save_path).lock():
        assert names_in(save_path.parent) == ["session.xml.lock"]


def test_load_removes_leftovers_but_not_a_live_writers_file(save_path: Path, manual_time: ManualTime) -> None:
    """Loading removes a temporary file left behind by a killed writer, but not one whose writer holds the lock."""
    XmlStore(save_path).save(OLD)
    leftover = save_path.with_name("session.xml.tmp")
    leftover.write_bytes(b"half")
    with XmlStore(save_path).lock():
        leftover.write_bytes(b"being written")
        assert XmlStore(save_path).load() == OLD
        assert leftover.exists()
    assert manual_time.slept == 0.0
    assert XmlStore(save_path).load() == OLD
    assert names_in(save_path.parent) == ["session.xml", "session.xml.lock"]


def test_file_is_synced_before_the_rename_and_the_folder_after(
    save_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save makes its system calls in the order that durability requires."""
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_sync(descriptor)

    def replace(source: Any, target: Any, **options: Any) -> None:  # noqa: ANN401  # like os.replace
        calls.append(f"replace {Path(target).name}")
        real_replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    store = XmlStore(save_path)
    store.save(OLD)
    assert calls == ["sync file", "replace session.xml", "sync folder"]
    calls.clear()
    store.save(NEW)
    assert calls == ["replace session.xml.bak", "sync file", "replace session.xml", "sync folder"]


@posix
def test_created_folders_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a folder is created, its parent is synced before anything is created in the new folder."""
    synced: list[tuple[int, list[str]]] = []
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append((os.fstat(descriptor).st_ino, os.listdir(descriptor)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    path = tmp_path / "a" / "b" / "session.xml"
    with XmlStore(path).lock():
        assert synced == [(tmp_path.stat().st_ino, ["a"]), ((tmp_path / "a").stat().st_ino, ["b"])]


@posix
def test_folder_without_fsync_support_is_accepted(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and virtual file systems do not support fsync for folders, but saving still works there."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    store = XmlStore(save_path)
    store.save(NEW)
    assert store.load() == NEW


@pytest.mark.parametrize("call", ["fsync", "write", "replace", "open"])
def test_failing_system_call_leaves_the_file_unchanged(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """If a system call fails, save() raises its error, keeps the old file, and leaves no temporary file behind."""
    store = XmlStore(save_path)
    store.save(OLD)
    real_call = getattr(os, call)

    def fail(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # like the real call
        if call == "open" and not str(arguments[0]).endswith(".tmp"):
            return real_call(*arguments, **options)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.save(NEW)
    assert not [name for name in names_in(save_path.parent) if name.endswith(".tmp")]
    assert store.load() == OLD
    store.save(NEW)
    assert store.load() == NEW


def test_snapshot_that_cannot_be_read_back_is_rejected(save_path: Path) -> None:
    """A snapshot that bypassed validation raises ValueError before the file is touched."""
    XmlStore(save_path).save(OLD)
    save_path.with_name("session.xml.lock").unlink()
    for session_id in ("&", "<a/>", "é", "\ud800", "x" * 70_000):
        snapshot = attrs.evolve(NEW)
        object.__setattr__(snapshot, "session_id", session_id)
        with pytest.raises(ValueError):  # noqa: PT011  # depends on the codec
            XmlStore(save_path).save(snapshot)
        assert names_in(save_path.parent) == ["session.xml"]
        assert save_path.read_bytes() == dumps(OLD)


class PreciseTime(datetime):
    """A time with nanoseconds, like a pandas timestamp; it never equals a time without nanoseconds."""

    __hash__ = datetime.__hash__

    def __eq__(self, other: object) -> bool:
        """Compare by identity, as if no two times had the same nanoseconds."""
        return self is other


def test_snapshot_that_reads_back_differently_is_rejected(save_path: Path, file_store: FileStoreClass) -> None:
    """A time that is more precise than the save file format allows raises ValueError before anything is written."""
    snapshot = attrs.evolve(NEW)
    object.__setattr__(snapshot, "last_activity", PreciseTime(2026, 11, 23, tzinfo=UTC))  # past the converter
    with pytest.raises(StoreError, match="is not equal when read back, and was not written"):
        file_store(save_path).save(snapshot)
    assert names_in(save_path.parent) == []


def make_folder_syncs_fail(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Make fsync fail for folders."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)


@posix
def test_failed_folder_sync_is_an_error(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, file_store: FileStoreClass
) -> None:
    """If syncing the folder fails, save() raises, since the new name might not survive a power failure."""
    with monkeypatch.context() as patch:
        make_folder_syncs_fail(patch, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            file_store(save_path).save(NEW)


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_unsupported_folder_sync_is_not_an_error(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, file_store: FileStoreClass
) -> None:
    """A file system that does not support fsync on folders (some network and FUSE ones) can still save."""
    with monkeypatch.context() as patch:
        make_folder_syncs_fail(patch, code)
        file_store(save_path).save(NEW)
    assert file_store(save_path).load() == NEW


def test_short_writes_are_continued(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are written, even if the system accepts only a few at a time."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    XmlStore(save_path).save(NEW)
    assert save_path.read_bytes() == dumps(NEW)


def test_short_reads_are_continued(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are read, even if the system returns only a few at a time."""
    XmlStore(save_path).save(NEW)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, limit, offset: pread(descriptor, min(limit, 7), offset))
    assert XmlStore(save_path).load() == NEW


def test_folder_may_be_created_concurrently(tmp_path: Path) -> None:
    """If another process creates the folder after the check, the folder is used; if it creates a file, saving fails."""
    folder, file = tmp_path / "a" / "b", tmp_path / "c" / "d"
    create_folder(str(folder), sync=lambda _: folder.mkdir(exist_ok=True))
    assert folder.is_dir()
    with pytest.raises(FileExistsError):
        create_folder(str(file), sync=lambda _: file.touch())


# Corrupt and unreadable files


@pytest.mark.parametrize("corrupt", [b"", b"not XML", dumps(NEW)[:-1], b"\0" * 70_000])
def test_corrupt_file_is_kept_and_the_backup_recovered(save_path: Path, corrupt: bytes) -> None:
    """load() raises an error with the path, the reason and the backup's snapshot; the next save keeps both files."""
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    save_path.write_bytes(corrupt)
    with pytest.raises(CorruptSaveFileError) as caught:
        store.load()
    assert caught.value.path == str(save_path)
    assert str(caught.value) == f"{save_path} is corrupt: {caught.value.reason}"
    assert caught.value.recovered == OLD
    store.save(NEW)
    assert store.load() == NEW
    assert save_path.with_name("session.xml.corrupt").read_bytes() == corrupt[: 64 * 1024 + 1] or len(corrupt) > 65537
    assert loads(save_path.with_name("session.xml.bak").read_bytes()) == OLD


@pytest.mark.parametrize(
    ("main", "backup", "expected"),
    [
        (dumps(NEW)[:-1], None, Snapshot(user_id=NEW.user_id)),
        (b"", dumps(NEW)[:-1], Snapshot(user_id=NEW.user_id)),
        (b"", b"", None),
        (b"", None, None),
    ],
)
def test_user_id_is_recovered_without_a_good_backup(
    save_path: Path, main: bytes, backup: bytes | None, expected: Snapshot | None
) -> None:
    """The user id is recovered from the file or, if that fails, from the backup."""
    save_path.write_bytes(main)
    if backup is not None:
        save_path.with_name("session.xml.bak").write_bytes(backup)
    with pytest.raises(CorruptSaveFileError) as caught:
        XmlStore(save_path).load()
    assert caught.value.recovered == expected


def test_corrupt_file_error_can_be_pickled(save_path: Path) -> None:
    """The error's attributes survive pickling."""
    save_path.write_bytes(dumps(NEW)[:-1])
    with pytest.raises(CorruptSaveFileError) as caught:
        XmlStore(save_path).load()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own bytes
    assert attrs.astuple(copy.recovered) == attrs.astuple(Snapshot(user_id=NEW.user_id))
    assert (copy.path, copy.reason, str(copy)) == (caught.value.path, caught.value.reason, str(caught.value))


@posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_special_file_is_never_overwritten(save_path: Path, kind: str) -> None:
    """With a FIFO, folder or device at the save path, load and save raise OSError and leave it in place."""
    if kind == "fifo":
        os.mkfifo(save_path)
    elif kind == "folder":
        save_path.mkdir()
    else:
        save_path.symlink_to("/dev/zero")
    save_path.with_name("session.xml.bak").write_bytes(dumps(OLD))
    before = save_path.lstat()
    store = XmlStore(save_path) if kind != "device" else XmlStore("/dev/zero")
    for attempt in (store.load, lambda: store.save(NEW)) if kind != "device" else (store.load,):
        with pytest.raises(OSError, match=r"Not a regular file|Is a directory"):
            attempt()
    after = save_path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


READ_STATE = """
import sys
from client_session_persistence import SqliteStates
print(SqliteStates(sys.argv[1]).read("key")[0])
"""


@pytest.mark.parametrize("owner", ["SqliteStore", "SqliteStates", "another program"])
def test_database_is_never_overwritten(save_path: Path, owner: str) -> None:
    """With an SQLite database at the save path, load, save and replace_user raise StoreError and change no file."""
    if owner == "SqliteStore":
        SqliteStore(save_path).save(OLD)
    elif owner == "SqliteStates":
        SqliteStates(save_path).swap("key", None, b"value", 60)
    else:
        with closing(sqlite3.connect(save_path)) as connection:
            connection.execute("CREATE TABLE precious (value)")
    save_path.with_name("session.xml.corrupt").write_bytes(b"older")
    names, data = {*names_in(save_path.parent), "session.xml.lock"}, save_path.read_bytes()
    store = XmlStore(save_path)
    for attempt in (store.load, lambda: store.save(NEW), lambda: store.replace_user(NEW)):
        with pytest.raises(StoreError, match=r"session\.xml is an SQLite database \(.*\), not an XML save file"):
            attempt()
    queued = XmlStore(save_path, background=True).save(NEW)
    assert queued is not None
    assert isinstance(queued.exception(60), StoreError)
    with ClientSession(store=store, scheduler=ManualScheduler()) as session:
        assert session.get_session_context(event_id(1)).session_index == 1
        with pytest.raises(StoreError, match="is an SQLite database"):
            session.forget_user()
    assert isinstance(session.save_error, StoreError)
    assert ({*names_in(save_path.parent)}, save_path.read_bytes()) == (names, data)


@posix
def test_database_that_this_process_uses_is_not_opened(save_path: Path) -> None:
    """Closing a descriptor of the database would release its locks, and then others would delete its log."""
    states = SqliteStates(save_path)
    states.swap("key", None, b"1", 60)
    with pytest.raises(StoreError, match="is an SQLite database"):
        XmlStore(save_path).load()
    for value in (b"1", b"2"):
        read = subprocess.check_output([sys.executable, "-c", READ_STATE, save_path], text=True, timeout=60)  # noqa: S603  # our own interpreter
        assert read.strip() == repr(value)
        states.swap("key", value, b"2", 60)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to change the user")
def test_another_users_file_is_never_overwritten(open_folder: Path) -> None:
    """An unreadable file is left unchanged even in a writable folder, and the session continues."""
    path = open_folder / "session.xml"  # the folder is accessible, but the file is not
    path.write_bytes(dumps(NEW))
    path.chmod(0o600)
    program = (
        "import os, sys; from client_session import ClientSession; from client_session_persistence import XmlStore;"
        "os.setgid(65534); os.setuid(65534);"
        "s = ClientSession(sys.argv[1]);"
        "c = s.get_session_context('00000000-0000-4000-8000-000000000001'); s.tick(); s.close();"
        "print(type(s.save_error).__name__, c.session_index, flush=True)"
    )
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "PermissionError 1\n", result.stderr
    assert path.read_bytes() == dumps(NEW)


# The lock


def hold_lock(file_store: FileStoreClass, path: str, held: Any, release: Any) -> None:  # noqa: ANN401  # events
    """Hold a store's lock until an event is set."""
    with file_store(path).lock():
        held.set()
        release.wait(60)


def test_hung_lock_holder_delays_a_save_by_one_second(
    save_path: Path, manual_time: ManualTime, file_store: FileStoreClass
) -> None:
    """While another process holds the lock, a save raises TimeoutError after one second; afterward, saving works."""
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold_lock, args=(file_store, str(save_path), held, release))
    holder.start()
    assert held.wait(60)
    store = file_store(save_path)
    with pytest.raises(TimeoutError):
        store.save(NEW)
    assert manual_time.slept == pytest.approx(1.0, abs=0.01)
    assert store.load() is None
    release.set()
    holder.join(60)
    store.save(NEW)
    assert store.load() == NEW


def increment_index(file_store: FileStoreClass, path: str, times: int, barrier: Any) -> None:  # noqa: ANN401  # a barrier
    """Increment the session index a given number of times while holding the lock; retry after timeouts."""
    store = file_store(path)
    barrier.wait(60)
    while times:
        try:
            with store.lock():
                snapshot = store.load() or Snapshot(user_id=event_id(7))
                store.save(attrs.evolve(snapshot, session_index=snapshot.session_index + 1))
            times -= 1
        except TimeoutError:
            pass


def test_concurrent_updates_are_not_lost(save_path: Path, file_store: FileStoreClass) -> None:
    """Six processes that read, increment and save at the same time do not lose updates."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    writers = [
        context.Process(target=increment_index, args=(file_store, str(save_path), 20, barrier)) for _ in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    saved = file_store(save_path).load()
    assert saved is not None
    assert saved.session_index == 120


@posix
def test_failed_unlock_is_retried_by_the_next_use(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, file_store: FileStoreClass
) -> None:
    """If unlocking fails, save() raises, and the next use of the store, on any thread, releases the lock."""
    import fcntl  # noqa: PLC0415  # not on Windows

    flock = fcntl.flock

    def fail(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.EIO, "Input/output error")
        flock(descriptor, operation)

    store = file_store(save_path)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.save(OLD)
    thread = threading.Thread(target=store.save, args=(NEW,))
    thread.start()
    thread.join(60)
    assert store.load() == NEW
    file_store(save_path).save(OLD)


def test_lock_held_by_another_thread_times_out(save_path: Path, file_store: FileStoreClass) -> None:
    """While another thread holds the lock, a save raises TimeoutError after one second; afterward, saving works."""
    store = file_store(save_path)
    errors: list[Exception] = []

    def save() -> None:
        try:
            store.save(NEW)
        except TimeoutError as error:
            errors.append(error)

    with store.lock():
        store.save(OLD)
        thread = threading.Thread(target=save)
        thread.start()
        thread.join(60)
    assert [str(error) for error in errors] == [
        f"[Errno {errno.ETIMEDOUT}] Another thread holds the lock: '{save_path}.lock'"
    ]
    assert store.load() == OLD
    save()
    assert store.load() == NEW


def test_lock_is_reentrant(save_path: Path, file_store: FileStoreClass) -> None:
    """A caller that holds the lock can save, even though saving acquires the lock again."""
    store = file_store(save_path)
    with store.lock(), store.lock():
        store.save(OLD)
        assert store.load() == OLD
        store.save(NEW)
    assert store.load() == NEW


def test_locking_does_not_log(save_path: Path, caplog: pytest.LogCaptureFixture, file_store: FileStoreClass) -> None:
    """Log handlers never run while a session holds its lock, but filelock still logs the locks of other code."""
    caplog.set_level(logging.DEBUG)
    file_store(save_path).save(Snapshot(user_id="0123456789abcdef"))
    assert caplog.records == []
    with FileLock(save_path.with_name("other.lock")):
        pass
    assert caplog.records != []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_child_forked_under_the_lock_cannot_save(save_path: Path, file_store: FileStoreClass) -> None:
    """A child forked while the lock is held cannot save until it acquires the lock itself."""
    store, parents_snapshot, childs_snapshot = (
        file_store(save_path),
        Snapshot(user_id=event_id(8)),
        Snapshot(user_id=event_id(9)),
    )
    with store.lock():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(OSError, match="Forked") as caught:
                    store.save(childs_snapshot)
                assert caught.value.errno == errno.ECANCELED
                with store.lock():  # waits until the parent releases it
                    assert store.load() == parents_snapshot
                    store.save(childs_snapshot)
                with pytest.raises(OSError, match="Forked"):
                    store.save(parents_snapshot)
                status = 0
            finally:
                os._exit(status)
        store.save(parents_snapshot)
    assert os.waitpid(child, 0)[1] == 0
    assert store.load() == childs_snapshot
