"""Replacing the user: nothing of the old user remains in any file, or nothing has changed."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from client_session_persistence import (
    CorruptSaveFileError,
    MemoryStore,
    Snapshot,
    StoreError,
    XmlStore,
    dumps,
    loads,
    writer_thread,
)
from client_session_persistence.forks import wait_for
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))
OLDER = attrs.evolve(OLD, session_index=40)
NEW = Snapshot(user_id=event_id(17), session_id=event_id(18), session_index=1)
NEXT = attrs.evolve(NEW, session_index=2)

COPIES = (".corrupt", ".bak", ".tmp")
WAIT_SECONDS = 60.0

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and links")
both_modes = pytest.mark.parametrize("background", [False, True], ids=["direct", "background"])


def next_to(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to the save file."""
    return path.with_name(path.name + suffix)


def fill(path: Path, data: bytes | None = None) -> None:
    """Create the old user's save file, backup, corrupt copy and half-written temporary file."""
    path.write_bytes(dumps(OLD) if data is None else data)
    next_to(path, ".bak").write_bytes(dumps(OLDER))
    next_to(path, ".corrupt").write_bytes(dumps(OLD)[:-1])
    next_to(path, ".tmp").write_bytes(dumps(OLD)[:-9])


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries."""
    return sorted(path.name for path in folder.iterdir())


def files_with_old_ids(folder: Path) -> list[str]:
    """Return the names of the files in a folder that contain one of the old user's ids."""
    ids = [str(each).encode() for each in (OLD.user_id, OLD.session_id, OLD.previous_session_id)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(each in path.read_bytes() for each in ids)]


def check_replaced(path: Path) -> None:
    """Check that another process would load the new user, and that nothing of the old one remains."""
    assert XmlStore(path).load() == NEW
    assert files_with_old_ids(path.parent) == []
    assert names_in(path.parent) == [path.name, f"{path.name}.lock"]


@contextlib.contextmanager
def failing(call: str, error: OSError, fails: Callable[[Any], bool] = lambda _: True) -> Iterator[None]:
    """Make a function of `os` fail if ``fails`` returns true for its last positional argument."""
    real = getattr(os, call)

    def fail(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # like the real function
        if fails(arguments[-1]):
            raise error
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fail)
        yield


# What is deleted


@both_modes
def test_nothing_of_the_old_user_remains(save_path: Path, *, background: bool) -> None:
    """The file has only the new user, and the backup, corrupt copy and temporary file are deleted."""
    fill(save_path)
    store = XmlStore(save_path, background=background)
    store.replace_user(NEW)
    check_replaced(save_path)
    assert store.load() == NEW


def test_memory_store_keeps_only_the_new_user() -> None:
    """MemoryStore has no copies, so it replaces its snapshot."""
    store = MemoryStore()
    store.save(OLD)
    with store.lock():
        store.replace_user(NEW)
    assert store.load() == NEW


@both_modes
def test_next_backup_is_the_new_users(save_path: Path, *, background: bool) -> None:
    """Neither the next save by the same store nor one by another store brings the old user back."""
    fill(save_path)
    other, store = XmlStore(save_path), XmlStore(save_path, background=background)
    assert other.load() == store.load() == OLD
    store.replace_user(NEW)
    store.save(NEXT)
    store.flush()
    assert loads(store.backup_path.read_bytes()) == NEW
    other.save(NEW)
    assert loads(store.backup_path.read_bytes()) == NEXT
    assert files_with_old_ids(save_path.parent) == []


def test_files_with_shortened_names_are_deleted(save_path: Path) -> None:
    """If the save file's name is too long for a suffix, its backup has a shortened name and is deleted, too."""
    path = save_path.with_name("s" * 252)
    store = XmlStore(path)
    store.save(OLDER)
    store.save(OLD)
    assert len(names_in(path.parent)) == 3
    store.replace_user(NEW)
    assert files_with_old_ids(path.parent) == []
    assert len(names_in(path.parent)) == 2


def test_missing_file_is_created(tmp_path: Path) -> None:
    """If there is no file yet, not even its folder, the new user's file is created."""
    path = tmp_path / "new" / "session.xml"
    XmlStore(path).replace_user(NEW)
    check_replaced(path)


@posix
def test_file_keeps_its_mode(save_path: Path) -> None:
    """The new user's file has the mode of the old one."""
    fill(save_path)
    save_path.chmod(0o640)
    XmlStore(save_path).replace_user(NEW)
    assert stat.S_IMODE(save_path.stat().st_mode) == 0o640


@posix
def test_links_are_deleted_but_not_their_targets(save_path: Path) -> None:
    """A link in place of a copy is deleted; its target is not the store's. A link at the save path is followed."""
    target = save_path.with_name("target.txt")
    target.write_text("precious")
    for suffix in COPIES:
        next_to(save_path, suffix).symlink_to(target)
    save_path.write_bytes(dumps(OLD))
    link = save_path.with_name("link.xml")
    link.symlink_to(save_path)
    XmlStore(link).replace_user(NEW)
    assert target.read_text() == "precious"
    assert names_in(save_path.parent) == ["link.xml", "session.xml", "session.xml.lock", "target.txt"]
    assert link.is_symlink()
    assert loads(save_path.read_bytes()) == NEW


def test_copies_are_gone_for_good_before_the_file_is_replaced(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system calls are in the order that durability requires: no power cut leaves a copy next to the new file."""
    calls: list[str] = []

    def record(call: str, describe: Callable[..., str]) -> None:
        real = getattr(os, call)

        def recorded(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # like the real function
            result = real(*arguments, **options)
            calls.append(describe(*arguments))
            return result

        monkeypatch.setattr(os, call, recorded)

    fill(save_path)
    store = XmlStore(save_path)
    with store.lock():
        record("fsync", lambda descriptor: "sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        record("replace", lambda _, target: f"replace {Path(target).name}")
        record("unlink", lambda path: f"delete {Path(path).name}")
        store.replace_user(NEW)
        assert calls == [
            "sync file",
            "delete session.xml.corrupt",
            "delete session.xml.bak",
            "sync folder",
            "replace session.xml",
            "sync folder",
        ]


# Failures


@both_modes
@pytest.mark.parametrize("suffix", COPIES)
def test_copy_that_cannot_be_deleted_prevents_replacement(save_path: Path, suffix: str, *, background: bool) -> None:
    """With a folder in place of a copy, the error names it, and the file and its backup are unchanged."""
    fill(save_path)
    obstacle = next_to(save_path, suffix)
    obstacle.unlink()
    (obstacle / "inside").mkdir(parents=True)
    store = XmlStore(save_path, background=background)
    with store.lock():
        with pytest.raises(OSError, match=r"session\.xml\.\w+'$") as caught:
            store.replace_user(NEW)
        assert store.load() == OLD
    assert caught.value.filename == str(obstacle)
    assert save_path.read_bytes() == dumps(OLD)
    assert suffix == ".bak" or next_to(save_path, ".bak").read_bytes() == dumps(OLDER)
    assert suffix == ".tmp" or not next_to(save_path, ".tmp").exists()
    shutil.rmtree(obstacle)
    store.replace_user(NEW)
    check_replaced(save_path)


@both_modes
@pytest.mark.parametrize("call", ["open", "write", "fsync", "unlink", "replace"])
def test_failing_system_call_leaves_the_file_unchanged(save_path: Path, call: str, *, background: bool) -> None:
    """If a system call fails, replace_user() raises its error, and the store still has the old user."""
    fill(save_path)
    store = XmlStore(save_path, background=background)
    with store.lock():
        with failing(call, OSError(errno.EIO, "Input/output error")), pytest.raises(OSError, match="Input/output"):
            store.replace_user(NEW)
        assert store.load() == OLD
    assert save_path.read_bytes() == dumps(OLD)
    store.replace_user(NEW)
    check_replaced(save_path)


def test_full_disk_does_not_cost_the_backup(save_path: Path) -> None:
    """The new file is written before anything is deleted, so a full disk changes nothing."""
    fill(save_path)
    with failing("write", OSError(errno.ENOSPC, "No space left on device")), pytest.raises(OSError, match="No space"):
        XmlStore(save_path).replace_user(NEW)
    assert save_path.read_bytes() == dumps(OLD)
    assert next_to(save_path, ".bak").read_bytes() == dumps(OLDER)


def test_snapshot_that_cannot_be_read_back_is_rejected(save_path: Path) -> None:
    """A snapshot that bypassed validation raises StoreError or ValueError before anything is deleted."""
    fill(save_path)
    snapshot = attrs.evolve(NEW)
    object.__setattr__(snapshot, "session_id", "&")
    before = names_in(save_path.parent)
    with pytest.raises((StoreError, ValueError)):
        XmlStore(save_path).replace_user(snapshot)
    assert names_in(save_path.parent) == before


def test_file_that_cannot_be_read_is_not_replaced(save_path: Path) -> None:
    """A folder at the save path raises OSError, and no copies are deleted."""
    fill(save_path)
    save_path.unlink()
    save_path.mkdir()
    with pytest.raises(OSError, match=r"Not a regular file|Is a directory|Permission denied"):
        XmlStore(save_path).replace_user(NEW)
    assert save_path.is_dir()
    assert next_to(save_path, ".bak").read_bytes() == dumps(OLDER)


@both_modes
def test_corrupt_file_is_not_kept(save_path: Path, *, background: bool) -> None:
    """No copy of a corrupt file is kept: it may contain the old user's ids."""
    for corrupt in (dumps(OLD)[:-1], b""):
        fill(save_path, corrupt)
        XmlStore(save_path, background=background).replace_user(NEW)
        check_replaced(save_path)
    for copy in COPIES:
        next_to(save_path, copy).unlink(missing_ok=True)
    save_path.write_bytes(b"no user can be recovered")
    XmlStore(save_path, background=background).replace_user(NEW)
    check_replaced(save_path)


def test_failure_does_not_lose_a_corrupt_files_user(save_path: Path) -> None:
    """If the backup is deleted but a corrupt file cannot be replaced, the file has the user from the backup."""
    fill(save_path, b"corrupt")
    store = XmlStore(save_path)

    def is_last(target: object) -> bool:
        return target == str(save_path) and not store.backup_path.exists()

    with failing("replace", OSError(errno.EIO, "Input/output error"), is_last), pytest.raises(OSError, match="Input"):
        store.replace_user(NEW)
    assert not store.backup_path.exists()
    assert store.load() == OLDER


def test_error_is_raised_if_only_the_last_folder_sync_fails(save_path: Path) -> None:
    """If the replacement may not survive a power cut, replace_user() raises, and the store has the new user."""
    fill(save_path)
    store = XmlStore(save_path)

    def is_last(_: object) -> bool:
        return save_path.read_bytes() == dumps(NEW)

    with failing("fsync", OSError(errno.EIO, "Input/output error"), is_last), pytest.raises(OSError, match="Input"):
        store.replace_user(NEW)
    assert store.load() == NEW
    assert files_with_old_ids(save_path.parent) == []


MOUNTED = """
import subprocess, sys
from pathlib import Path
from client_session_persistence import Snapshot, XmlStore
source, target, user = sys.argv[1:]
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", source, target], check=True)
try:
    XmlStore(target).replace_user(Snapshot(user_id=user))
except OSError as error:
    print(error)
print(Path(target).read_bytes() == Path(source).read_bytes())
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount a file")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_mount_point_cannot_be_replaced(tmp_path: Path) -> None:
    """If the save file is a mount point, the error says what to mount instead, and the file is unchanged."""
    source, target = tmp_path / "source.xml", tmp_path / "data" / "session.xml"
    source.write_bytes(dumps(OLD))
    target.parent.mkdir()
    target.touch()
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:  # noqa: S607  # unshare(1)
        pytest.skip("needs a private mount namespace")
    command = ["unshare", "-m", sys.executable, "-c", MOUNTED, str(source), str(target), NEW.user_id]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # our own program
    assert f"if it is a mount point, mount its folder ({target.parent}) instead" in done.stdout
    assert done.stdout.endswith("True\n")
    assert source.read_bytes() == dumps(OLD)


# The lock, other processes and forks


def test_lock_is_reentrant(save_path: Path) -> None:
    """A caller that holds the lock can replace the user; a caller that does not must wait for the lock."""
    fill(save_path)
    store = XmlStore(save_path)
    with store.lock():
        with pytest.raises(TimeoutError):
            XmlStore(save_path).replace_user(NEW)
        assert store.load() == OLD
        store.replace_user(NEW)
        assert store.load() == NEW
    check_replaced(save_path)


def increment_index(path: str, times: int, barrier: Any) -> None:  # noqa: ANN401  # multiprocessing's barrier
    """Increment the stored session index a given number of times while holding the lock; retry after timeouts."""
    store = XmlStore(path)
    barrier.wait(WAIT_SECONDS)
    while times:
        with contextlib.suppress(TimeoutError), store.lock():
            snapshot = store.load()
            assert snapshot is not None
            store.save(attrs.evolve(snapshot, session_index=snapshot.session_index + 1))
            times -= 1


def test_other_processes_do_not_bring_the_old_user_back(save_path: Path) -> None:
    """While other processes keep saving what they load, replacing the user removes the old one from all files."""
    fill(save_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    savers = [context.Process(target=increment_index, args=(str(save_path), 50, barrier)) for _ in range(2)]
    for saver in savers:
        saver.start()
    barrier.wait(WAIT_SECONDS)
    XmlStore(save_path).replace_user(NEW)
    assert files_with_old_ids(save_path.parent) == []
    for saver in savers:
        saver.join(WAIT_SECONDS)
        assert saver.exitcode == 0
    assert loads(save_path.read_bytes()).user_id == NEW.user_id
    assert files_with_old_ids(save_path.parent) == []


@both_modes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_child_forked_under_the_lock_cannot_replace_the_user(save_path: Path, *, background: bool) -> None:
    """In a child forked while the lock is held, replace_user() raises and changes nothing."""
    fill(save_path)
    store = XmlStore(save_path, background=background)
    with store.lock():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(OSError, match="Forked"):
                    store.replace_user(NEW)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert store.load() == OLD
        assert store.backup_path.exists()
        store.replace_user(NEW)
    check_replaced(save_path)


# Background saves


class Disk:
    """A disk whose fsync waits until the test allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Block every fsync."""
        self.requested, self.unblocked = threading.Event(), threading.Event()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        """Wait until the disk is unblocked, then sync."""
        self.requested.set()
        assert self.unblocked.wait(WAIT_SECONDS)
        self._fsync(descriptor)


def interrupt_wait(monkeypatch: pytest.MonkeyPatch, handle: Callable[[], object]) -> None:
    """Call a function whenever this thread is about to wait for the writer thread, as a signal handler might be."""

    def interrupted_wait(future: Any, process: int) -> bool:  # noqa: ANN401  # a future
        handle()
        return wait_for(future, process)

    monkeypatch.setattr(writer_thread, "wait_for", interrupted_wait)


def test_running_and_queued_saves_do_not_land_afterward(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save of the old user that is being written, and one that is queued, are complete before the replacement."""
    store = XmlStore(save_path, background=True)
    disk = Disk(monkeypatch)
    saves = [store.save(OLDER)]
    assert disk.requested.wait(WAIT_SECONDS)
    saves.append(store.save(OLD))
    interrupt_wait(monkeypatch, disk.unblocked.set)
    store.replace_user(NEW)
    assert all(save is not None and save.done() for save in saves)
    check_replaced(save_path)
    assert store.load() == NEW


def test_replacement_is_durable_when_it_returns(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With background=True, replace_user() waits for the disk although save() does not."""
    fill(save_path)
    store = XmlStore(save_path, background=True)
    disk = Disk(monkeypatch)
    replacing = threading.Thread(target=store.replace_user, args=(NEW,))
    replacing.start()
    assert disk.requested.wait(WAIT_SECONDS)
    assert replacing.is_alive()
    assert loads(save_path.read_bytes()) == OLD
    disk.unblocked.set()
    replacing.join(WAIT_SECONDS)
    check_replaced(save_path)


def test_reentrant_save_does_not_supersede_the_replacement(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a signal handler queues another save while replace_user() waits, both are written, in order."""
    fill(save_path)
    store, other = XmlStore(save_path, background=True), XmlStore(save_path.with_name("other.xml"), background=True)
    disk = Disk(monkeypatch)
    other.save(NEW)
    assert disk.requested.wait(WAIT_SECONDS)  # the writer thread is busy, so the next two saves wait together

    def save_again() -> None:
        if not disk.unblocked.is_set():
            assert store.load() == NEW
            store.save(NEXT)
            disk.unblocked.set()

    interrupt_wait(monkeypatch, save_again)
    store.replace_user(NEW)
    store.flush()
    assert loads(save_path.read_bytes()) == NEXT
    assert loads(store.backup_path.read_bytes()) == NEW
    assert files_with_old_ids(save_path.parent) == []


def test_failed_save_of_the_old_user_does_not_prevent_replacement(save_path: Path) -> None:
    """The error of a queued save is reported by its future, not by replace_user()."""
    fill(save_path)
    store = XmlStore(save_path, background=True)
    with store.lock():
        with failing("write", OSError(errno.EIO, "Input/output error")):
            future = store.save(OLDER)
            assert future is not None
            assert isinstance(future.exception(WAIT_SECONDS), OSError)
        store.replace_user(NEW)
    check_replaced(save_path)


def test_corrupt_file_error_is_raised_after_a_failed_replacement(save_path: Path) -> None:
    """After a failed replacement in the background, load() reads the file again."""
    save_path.write_bytes(b"corrupt")
    (next_to(save_path, ".bak") / "inside").mkdir(parents=True)
    store = XmlStore(save_path, background=True)
    with store.lock():
        with pytest.raises(OSError, match=r"\.bak"):
            store.replace_user(NEW)
        with pytest.raises(CorruptSaveFileError):
            store.load()
