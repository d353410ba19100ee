"""The save file on a real disk: atomic, durable, private, shared, and never overwritten when it cannot be read."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from filelock import FileLock

from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, dumps, loads
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=1)
NEW = Snapshot(user_id=event_id(7), session_id=event_id(2), session_index=2)

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, FIFOs and links as POSIX has them")


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def any_umask() -> Iterator[None]:
    """Let everybody in, where a program does not say otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_no_file_is_nothing(save_path: Path) -> None:
    """A store whose file is not there yet is empty, and makes nothing."""
    assert XmlStore(save_path).load() is None
    assert names(save_path.parent) == []


def test_keeps_what_it_is_given(tmp_path: Path) -> None:
    """The file holds the snapshot in the save file's format; parent folders are made."""
    path = tmp_path / "a" / "b" / "session.xml"
    store = XmlStore(path)
    store.save(OLD)
    store.save(NEW)
    assert store.load() == XmlStore(str(path)).load() == loads(path.read_bytes()) == NEW


def test_the_last_good_file_is_the_backup(save_path: Path) -> None:
    """Beside the file stand its backup and its lock, and nothing else."""
    store = XmlStore(save_path)
    store.save(OLD)
    assert names(save_path.parent) == ["session.xml", "session.xml.lock"]
    store.save(NEW)
    store.save(NEW)
    store.save(OLD)
    assert names(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]
    assert loads(save_path.with_name("session.xml.bak").read_bytes()) == NEW


def refuse(*_: object, **__: object) -> None:
    """Stand for `os.link` on a file system without hard links."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_without_hard_links_there_is_a_backup_too(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses links gets a copy."""
    monkeypatch.setattr(os, "link", refuse)
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert loads(save_path.with_name("session.xml.bak").read_bytes()) == OLD
    assert names(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]


@posix
@pytest.mark.usefixtures("any_umask")
def test_files_are_private(save_path: Path) -> None:
    """Save, backup and lock are 0600 under any umask."""
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
def test_no_umask_takes_the_file_from_its_owner(save_path: Path, umask: int) -> None:
    """Save, backup and lock are 0600 even where a program denies itself everything."""
    before = os.umask(umask)
    try:
        store = XmlStore(save_path)
        store.save(OLD)
        store.save(NEW)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in save_path.parent.iterdir()} == {0o600}


@posix
@pytest.mark.usefixtures("any_umask")
def test_a_folder_that_is_made_is_private(tmp_path: Path) -> None:
    """Nobody else can plant a name in it, under any umask."""
    XmlStore(tmp_path / "a" / "b" / "session.xml").save(OLD)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give files away")
def test_root_leaves_the_file_to_its_owner(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's file that root rewrites stays the user's, and so does its backup, with or without hard links."""
    save_path.write_bytes(dumps(OLD))
    os.chown(save_path, 65534, 65534)
    XmlStore(save_path).save(NEW)
    monkeypatch.setattr(os, "link", refuse)
    XmlStore(save_path).save(OLD)
    for path in (save_path, save_path.with_name("session.xml.bak")):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


@posix
def test_an_existing_file_keeps_its_mode(save_path: Path) -> None:
    """Who may read the file is the user's to say."""
    save_path.write_bytes(dumps(OLD))
    save_path.chmod(0o640)
    XmlStore(save_path).save(NEW)
    assert stat.S_IMODE(save_path.stat().st_mode) == 0o640


@posix
def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    """A save path that is a link is followed; the link stays."""
    target, link = tmp_path / "real" / "session.xml", tmp_path / "link.xml"
    target.parent.mkdir()
    link.symlink_to(target)
    XmlStore(link).save(OLD)
    XmlStore(link).save(NEW)
    assert link.is_symlink()
    assert loads(target.read_bytes()) == NEW
    assert names(tmp_path) == ["link.xml", "real"]


@posix
@pytest.mark.parametrize("call", ["lstat", "readlink"])
def test_a_link_is_never_replaced_because_it_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A link that fails at construction is an error of load and save, nothing else, and followed once it can be."""
    target, link = tmp_path / "real" / "session.xml", tmp_path / "link.xml"
    XmlStore(target).save(OLD)
    link.symlink_to(target)

    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        store = XmlStore(link)
        for attempt in (store.load, lambda: store.save(NEW)):
            with pytest.raises(OSError, match="Input/output error"):
                attempt()
    store.save(NEW)
    assert link.is_symlink()
    assert loads(target.read_bytes()) == NEW
    assert names(tmp_path) == ["link.xml", "real"]


@posix
def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    """They are told of by load and save, not by the constructor."""
    link = tmp_path / "link.xml"
    link.symlink_to(link)
    store = XmlStore(link)
    for attempt in (store.load, lambda: store.save(NEW)):
        with pytest.raises(OSError, match="symbolic links"):
            attempt()


@posix
def test_a_current_folder_that_is_gone_is_an_error_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means something again as soon as there is a current folder, and from then on the same file."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    store = XmlStore("session.xml")
    with pytest.raises(FileNotFoundError):
        store.save(OLD)
    monkeypatch.chdir(tmp_path)
    store.save(OLD)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.save(NEW)
    assert loads((tmp_path / "session.xml").read_bytes()) == NEW


@posix
def test_a_planted_link_harms_no_victim(save_path: Path) -> None:
    """A symbolic link under the temporary file's name is removed, not followed."""
    victim = save_path.with_name("victim")
    victim.write_text("precious")
    save_path.with_name("session.xml.tmp").symlink_to(victim)
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert victim.read_text() == "precious"
    assert store.load() == NEW


@posix
def test_a_planted_backup_is_not_opened(save_path: Path) -> None:
    """A symbolic link under the backup's name chooses neither what is read nor what is written."""
    victim = save_path.with_name("victim")
    victim.write_bytes(dumps(NEW))
    save_path.write_bytes(b"ruin")
    save_path.with_name("session.xml.bak").symlink_to(victim)
    store = XmlStore(save_path)
    with pytest.raises(CorruptSaveFileError) as caught:
        store.load()
    assert caught.value.recovered is None
    store.save(OLD)
    store.save(OLD)
    assert victim.read_bytes() == dumps(NEW)
    assert not save_path.with_name("session.xml.bak").is_symlink()


def test_a_backup_that_cannot_be_kept_prevents_no_save(save_path: Path) -> None:
    """A folder in the backup's place stays, and the file is saved without a backup."""
    store = XmlStore(save_path)
    store.save(OLD)
    (save_path.with_name("session.xml.bak") / "inside").mkdir(parents=True)
    store.save(NEW)
    assert store.load() == NEW
    assert names(save_path.parent) == ["session.xml", "session.xml.bak", "session.xml.lock"]


def test_a_ruin_that_cannot_be_kept_is_not_overwritten(save_path: Path) -> None:
    """A folder in the place of the corrupt file's name is an error: the evidence is there but once."""
    save_path.write_bytes(b"ruin")
    (save_path.with_name("session.xml.corrupt") / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        XmlStore(save_path).save(NEW)
    assert save_path.read_bytes() == b"ruin"


@posix
def test_a_link_under_the_locks_name_is_refused(save_path: Path) -> None:
    """A planted lock is an error, and its victim is as it was."""
    victim = save_path.with_name("victim")
    victim.write_text("precious")
    save_path.with_name("session.xml.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        XmlStore(save_path).save(OLD)
    assert victim.read_text() == "precious"
    assert not save_path.exists()


def test_what_a_killed_writer_left_is_removed(save_path: Path) -> None:
    """The next one who holds the lock clears up."""
    save_path.with_name("session.xml.tmp").write_bytes(b"half")
    with XmlStore(save_path).lock():
        assert names(save_path.parent) == ["session.xml.lock"]


def test_reading_clears_up_unless_a_writer_is_at_work(save_path: Path) -> None:
    """A start that need not write removes a dead writer's file as well, at once, and never a live one's."""
    XmlStore(save_path).save(OLD)
    leftover = save_path.with_name("session.xml.tmp")
    leftover.write_bytes(b"half")
    start = time.monotonic()
    with XmlStore(save_path).lock():
        leftover.write_bytes(b"being written")
        assert XmlStore(save_path).load() == OLD
        assert leftover.exists()
    assert time.monotonic() - start < 0.9
    assert XmlStore(save_path).load() == OLD
    assert names(save_path.parent) == ["session.xml", "session.xml.lock"]


def test_the_order_makes_it_durable(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced before the name is replaced, and the folder after."""
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_sync(descriptor)

    def replace(source: Any, target: Any, **options: Any) -> None:  # noqa: ANN401  # as os.replace
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
def test_the_folders_that_it_makes_are_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of each new folder is synced in its own parent, before there is anything in it."""
    synced: list[tuple[int, list[str]]] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append((os.fstat(descriptor).st_ino, os.listdir(descriptor)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    path = tmp_path / "a" / "b" / "session.xml"
    with XmlStore(path).lock():
        assert synced == [(tmp_path.stat().st_ino, ["a"]), ((tmp_path / "a").stat().st_ino, ["b"])]


@posix
def test_a_folder_that_cannot_be_synced_is_no_failure(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and virtual file systems have no fsync for folders; what can be done is done there, as elsewhere."""
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    store = XmlStore(save_path)
    store.save(NEW)
    assert store.load() == NEW


@pytest.mark.parametrize("call", ["fsync", "write", "replace", "open"])
def test_a_failing_call_leaves_the_file_as_it_was(save_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The error is raised, the old file stands, and no temporary file is left."""
    store = XmlStore(save_path)
    store.save(OLD)
    real = getattr(os, call)

    def fail(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        if call == "open" and not str(arguments[0]).endswith(".tmp"):
            return real(*arguments, **options)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.save(NEW)
    assert not [name for name in names(save_path.parent) if name.endswith(".tmp")]
    assert store.load() == OLD
    store.save(NEW)
    assert store.load() == NEW


def test_what_would_not_read_back_is_refused_before_the_file_is_touched(save_path: Path) -> None:
    """A snapshot whose validation was got round is a ValueError; the file is as it was, and nothing is beside it."""
    XmlStore(save_path).save(OLD)
    save_path.with_name("session.xml.lock").unlink()
    for broken in ("&", "<a/>", "é", "\ud800", "x" * 70_000):
        snapshot = attrs.evolve(NEW)
        object.__setattr__(snapshot, "session_id", broken)
        with pytest.raises(ValueError):  # noqa: PT011  # which of its kinds is the codec's affair
            XmlStore(save_path).save(snapshot)
        assert names(save_path.parent) == ["session.xml"]
        assert save_path.read_bytes() == dumps(OLD)


def fail_to_sync_folders(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let fsync of a folder fail."""
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)


@posix
def test_a_folder_that_could_not_be_synced_is_an_error(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the new name would survive a power cut is unknown, and told."""
    with monkeypatch.context() as patch:
        fail_to_sync_folders(patch, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            XmlStore(save_path).save(NEW)


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_at_all_is_none(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A file system that knows no fsync of folders (some network and FUSE ones) is not an error for ever."""
    with monkeypatch.context() as patch:
        fail_to_sync_folders(patch, code)
        XmlStore(save_path).save(NEW)
    assert XmlStore(save_path).load() == NEW


def test_short_writes_are_continued(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are written, however few the system takes at a time."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    XmlStore(save_path).save(NEW)
    assert save_path.read_bytes() == dumps(NEW)


# Corrupt and unreadable files


@pytest.mark.parametrize("ruin", [b"", b"not XML", dumps(NEW)[:-1], b"\0" * 70_000])
def test_a_corrupt_file_is_kept_and_the_backup_gives_what_it_has(save_path: Path, ruin: bytes) -> None:
    """load() names file and reason and holds what the backup gives; the next save keeps the ruin and the backup."""
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    save_path.write_bytes(ruin)
    with pytest.raises(CorruptSaveFileError) as caught:
        store.load()
    assert caught.value.path == str(save_path)
    assert str(caught.value) == f"{save_path} is corrupt: {caught.value.reason}"
    assert caught.value.recovered == OLD
    store.save(NEW)
    assert store.load() == NEW
    assert save_path.with_name("session.xml.corrupt").read_bytes() == ruin[: 64 * 1024 + 1] or len(ruin) > 65537
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
def test_without_a_good_backup_the_readable_user_counts(
    save_path: Path, main: bytes, backup: bytes | None, expected: Snapshot | None
) -> None:
    """The user id that can still be seen in the file, or else in its backup, is recovered; or nothing is."""
    save_path.write_bytes(main)
    if backup is not None:
        save_path.with_name("session.xml.bak").write_bytes(backup)
    with pytest.raises(CorruptSaveFileError) as caught:
        XmlStore(save_path).load()
    assert caught.value.recovered == expected


def test_the_error_can_be_pickled(save_path: Path) -> None:
    """Its facts survive a trip to another process."""
    save_path.write_bytes(dumps(NEW)[:-1])
    with pytest.raises(CorruptSaveFileError) as caught:
        XmlStore(save_path).load()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own bytes
    assert attrs.astuple(copy.recovered) == attrs.astuple(Snapshot(user_id=NEW.user_id))
    assert (copy.path, copy.reason, str(copy)) == (caught.value.path, caught.value.reason, str(caught.value))


@posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_never_overwritten(save_path: Path, kind: str) -> None:
    """A FIFO, a folder or a device in the file's place is an OSError at once, on load and on save, and stays."""
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


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_file_of_somebody_else_is_never_overwritten(open_folder: Path) -> None:
    """What may not be read is left alone, though the folder would allow replacing it; the session goes on."""
    path = open_folder / "session.xml"  # so that only the file is in the way
    path.write_bytes(dumps(NEW))
    path.chmod(0o600)
    program = (
        "import os, sys; from client_session import ClientSession; from client_session_persistence import XmlStore;"
        "os.setgid(65534); os.setuid(65534);"
        "s = ClientSession(sys.argv[1]);"
        "c = s.get_session_context('00000000-0000-4000-8000-000000000001'); s.tick(); s.close();"
        "print(type(s.save_error).__name__, c.session_index, flush=True)"
    )
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "PermissionError 1\n", done.stderr
    assert path.read_bytes() == dumps(NEW)


# The lock


def hold(path: str, held: Any, release: Any) -> None:  # noqa: ANN401  # multiprocessing's events
    """Hold a store's lock until told."""
    with XmlStore(path).lock():
        held.set()
        release.wait(60)


def test_a_hanging_holder_delays_a_second(save_path: Path) -> None:
    """While another process holds the lock, saving ends with TimeoutError after a second; then it works."""
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(save_path), held, release))
    holder.start()
    assert held.wait(60)
    store = XmlStore(save_path)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        store.save(NEW)
    assert 0.9 < time.monotonic() - start < 3
    assert store.load() is None
    release.set()
    holder.join(60)
    store.save(NEW)
    assert store.load() == NEW


def count_up(path: str, times: int, together: Any) -> None:  # noqa: ANN401  # multiprocessing's barrier
    """Count the session index up, reading and writing under the lock, or trying again."""
    store = XmlStore(path)
    together.wait(60)
    while times:
        try:
            with store.lock():
                kept = store.load() or Snapshot(user_id=event_id(7))
                store.save(attrs.evolve(kept, session_index=kept.session_index + 1))
            times -= 1
        except TimeoutError:
            pass


def test_no_update_is_lost(save_path: Path) -> None:
    """Six processes that read, decide and save at the same time count without a miss."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(6)
    writers = [context.Process(target=count_up, args=(str(save_path), 20, together)) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert loads(save_path.read_bytes()).session_index == 120


@posix
def test_a_lock_that_could_not_be_unlocked_is_not_held_for_ever(
    save_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is told, and the next use, on any thread, unlocks it for the others."""
    import fcntl  # noqa: PLC0415  # there is none on Windows

    real = fcntl.flock

    def fail(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor, operation)

    store = XmlStore(save_path)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.save(OLD)
    thread = threading.Thread(target=store.save, args=(NEW,))
    thread.start()
    thread.join(60)
    assert store.load() == NEW
    XmlStore(save_path).save(OLD)


def test_threads_take_turns(save_path: Path) -> None:
    """While another thread is in a store's lock, saving ends with TimeoutError after a second; then it works."""
    store = XmlStore(save_path)
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


def test_its_lock_can_be_entered_again(save_path: Path) -> None:
    """Saving within the lock needs no second one."""
    store = XmlStore(save_path)
    with store.lock(), store.lock():
        store.save(OLD)
        assert store.load() == OLD
        store.save(NEW)
    assert store.load() == NEW


def test_the_lock_is_taken_without_a_log_line(save_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No log handler of the host's runs while a session's locks are held; other locks log as ever."""
    caplog.set_level(logging.DEBUG)
    XmlStore(save_path).save(Snapshot(user_id="0123456789abcdef"))
    assert caplog.records == []
    with FileLock(save_path.with_name("other.lock")):
        pass
    assert caplog.records != []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_a_child_forked_under_the_lock_saves_nothing_that_was_decided_there(save_path: Path) -> None:
    """It is refused, since it is the parent's to save, until the child has the lock itself."""
    store, ours, theirs = XmlStore(save_path), Snapshot(user_id=event_id(8)), Snapshot(user_id=event_id(9))
    with store.lock():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(OSError, match="Forked") as raised:
                    store.save(theirs)
                assert raised.value.errno == errno.ECANCELED
                with store.lock():  # once the parent has left it
                    assert store.load() == ours
                    store.save(theirs)
                with pytest.raises(OSError, match="Forked"):
                    store.save(ours)
                status = 0
            finally:
                os._exit(status)
        store.save(ours)
    assert os.waitpid(child, 0)[1] == 0
    assert store.load() == theirs
