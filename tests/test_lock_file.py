"""The lock file: it agrees with the `filelock` package's, and with whoever uses that."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

import filelock
import pytest

from client_session_persistence import lock_file
from client_session_persistence.lock_file import LockFile
from client_session_persistence.process_lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="modes and removing open files as POSIX has them")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a lock file that is not there yet."""
    return tmp_path / "session.xml.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[LockFile]:
    """Return a lock that is unlocked in the end."""
    lock = LockFile(os.fspath(path))
    yield lock
    lock.drop()


def is_free(path: Path) -> bool:
    """Tell whether filelock's own lock can be had."""
    try:
        with filelock.FileLock(path, timeout=0):
            return True
    except TimeoutError:
        return False


def test_it_keeps_filelocks_own_out(lock: LockFile, path: Path) -> None:
    """What this package locks, filelock's FileLock finds locked; unlocked as often as it was locked, it is free."""
    lock.lock(0)
    lock.lock(0)
    assert lock.is_locked
    assert not is_free(path)
    lock.unlock()
    assert not is_free(path)
    lock.unlock()
    assert not lock.is_locked
    assert is_free(path)


def test_filelocks_own_keeps_it_out(lock: LockFile, path: Path) -> None:
    """What FileLock has locked is waited for as long as told, and named."""
    with filelock.FileLock(path):
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="Another process holds the lock") as caught:
            lock.lock(0.05)
        assert time.monotonic() - begin >= 0.05
        assert caught.value.filename == os.fspath(path)
        assert not lock.is_locked
    lock.lock(0)


@posix
def test_a_lock_file_that_was_removed_keeps_nobody_out(lock: LockFile, path: Path) -> None:
    """The file that stands under the name counts, not one that was removed while it was being locked."""
    path.touch()

    def remove_and_lock(descriptor: int, *, blocking: bool) -> bool:
        if path.exists():
            path.unlink()
        return filelock.lock_descriptor(descriptor, blocking=blocking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", remove_and_lock)
        with pytest.raises(TimeoutError):
            lock.lock(0)
    lock.lock(0)
    assert not is_free(path)


def test_what_cannot_be_unlocked_stays_locked_until_it_can(lock: LockFile, path: Path) -> None:
    """A failing unlock is raised, and the next use makes up for it."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    lock.lock(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "unlock_descriptor", fail)
        with pytest.raises(OSError, match="Input/output error"):
            lock.unlock()
    assert lock.is_locked
    assert not is_free(path)
    lock.lock(0)
    lock.unlock()
    assert is_free(path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP])
def test_where_there_are_no_locks_it_is_as_if_alone(lock: LockFile, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file system without locks (some network and FUSE ones) keeps nobody from saving; any other error is one."""

    def refuse(_: int, **__: bool) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_file, "lock_descriptor", refuse)
    monkeypatch.setattr(lock_file, "unlock_descriptor", refuse)
    lock.lock(0)
    lock.unlock()
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        lock.lock(0)
    assert not lock.is_locked


def test_who_comes_between_a_threads_own_locking_is_told_at_once(path: Path) -> None:
    """A signal handler's call amid the locking of its own thread neither waits for itself nor unlocks what is got."""
    lock = ProcessLock(os.fspath(path))
    told: list[str] = []

    def come_between(descriptor: int, *, blocking: bool) -> bool:
        got = filelock.lock_descriptor(descriptor, blocking=blocking)
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="This thread is already acquiring") as caught, lock.held():
            pass
        assert time.monotonic() - begin < 0.5
        told.append(str(caught.value))
        return got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", come_between)
        with lock.held():
            assert not is_free(path)
    assert len(told) == 1
    with lock.held():
        assert not is_free(path)
    assert is_free(path)


@posix
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_it_is_private_from_its_making(lock: LockFile, path: Path, umask: int) -> None:
    """The lock file is 0600 under any umask, and one that stands already keeps its mode."""
    before = os.umask(umask)
    try:
        lock.lock(0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.unlock()
    path.chmod(0o640)
    lock.lock(0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_link_in_its_place_is_refused(lock: LockFile, path: Path, target: str) -> None:
    """A planted link is an error at once, wherever it leads, and its victim is not even opened."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic link|File exists"):
        lock.lock(1)
    assert victim.read_text() == "precious"
    assert not path.with_name("nowhere").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_keep_its_parents_lock(lock: LockFile, path: Path) -> None:
    """A forked child has no part in the lock that it inherits: it is not unlocked by it, nor outlived in it."""
    lock.lock(0)
    go, gone = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go[1])
        os.write(gone[1], b"1" if lock.is_locked else b"0")
        os.read(go[0], 1)
        os._exit(0)
    assert os.read(gone[0], 1) == b"0"
    assert not is_free(path)
    lock.drop()  # as if the parent had died: no unlocking
    assert is_free(path)
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (*go, *gone):
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_amid_the_locking_does_not_unlock_it(lock: LockFile, path: Path) -> None:
    """A fork between the system's lock and its note: the child, which shares it, closes it and no more."""
    children: list[int] = []

    def fork_amid(descriptor: int, *, blocking: bool) -> bool:
        got = filelock.lock_descriptor(descriptor, blocking=blocking)
        children.append(os.fork())
        return got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", fork_amid)
        lock.lock(0)
    if children == [0]:
        lock.unlock()
        os._exit(1 if lock.is_locked else 0)
    assert os.waitpid(children[0], 0)[1] == 0
    assert not is_free(path)
