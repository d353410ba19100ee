"""The lock file is compatible with other processes that use the `filelock` package."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from typing import TYPE_CHECKING

import filelock
import pytest

from client_session_persistence import lock_file
from client_session_persistence.deadline import within_deadline
from client_session_persistence.lock_file import LockFile, ProcessLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import ManualTime

needs_posix = pytest.mark.skipif(
    os.name != "posix", reason="needs POSIX file modes and the ability to remove open files"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a lock file that does not exist yet."""
    return tmp_path / "session.xml.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[LockFile]:
    """Yield a lock that is released after the test."""
    lock = LockFile(os.fspath(path))
    yield lock
    lock.drop()


def lock_now(lock: LockFile) -> None:
    """Lock the file without waiting."""
    lock.lock(lambda: 0.0)


def is_free(path: Path) -> bool:
    """Return whether filelock.FileLock can acquire the lock now."""
    try:
        with filelock.FileLock(path, timeout=0):
            return True
    except TimeoutError:
        return False


def test_held_lock_excludes_filelock(lock: LockFile, path: Path) -> None:
    """filelock.FileLock cannot acquire our lock until we have released it."""
    lock_now(lock)
    lock_now(lock)
    assert lock.is_locked
    assert not is_free(path)
    lock.unlock()
    assert not lock.is_locked
    assert is_free(path)


def test_waiting_for_a_lock_held_by_filelock_times_out(lock: LockFile, path: Path) -> None:
    """Waiting for a lock that FileLock holds times out with an error that names the file."""
    with filelock.FileLock(path):
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="Another process holds the lock") as caught:
            lock.lock(lambda: max(0.0, start + 0.05 - time.monotonic()))
        assert time.monotonic() - start >= 0.05
        assert caught.value.filename == os.fspath(path)
        assert not lock.is_locked
    lock_now(lock)


def test_waiting_process_sees_the_lock_change_hands(lock: LockFile, path: Path) -> None:
    """Each time the lock changes hands, a waiting process notices; so does it if the holder shows progress."""
    waiting = LockFile(os.fspath(path))
    seen: list[float] = []
    tries = itertools.count()

    def seconds_left() -> float:
        if waiting.changed_at not in seen:
            seen.append(waiting.changed_at)
        if len(seen) < 4:
            lock.unlock()
            lock_now(lock)
        elif len(seen) < 6:
            lock.show_progress()
        else:
            lock.unlock()
        return 1.0 if next(tries) < 200 else 0.0

    lock_now(lock)
    waiting.lock(seconds_left)
    assert waiting.is_locked
    assert len(seen) == 6


def test_longest_waiting_process_is_next(lock: LockFile, path: Path) -> None:
    """A process that finds the lock free lets another go first that has waited longer."""
    early, late = LockFile(os.fspath(path)), LockFile(os.fspath(path))
    late_seconds = iter((1.0, 0.0))
    calls = 0

    def seconds_left() -> float:
        nonlocal calls
        calls += 1
        if calls == 2:  # after the first try, which failed
            lock.unlock()
            with pytest.raises(TimeoutError):
                late.lock(lambda: next(late_seconds))
        return 1.0

    lock_now(lock)
    early.lock(seconds_left)
    assert early.is_locked


def test_process_that_stopped_waiting_is_not_waited_for(lock: LockFile, path: Path) -> None:
    """A process that waited longer but no longer exists does not keep others from locking the file."""
    gone, late = LockFile(os.fspath(path)), LockFile(os.fspath(path))
    seconds = iter((1.0, 0.0))
    lock_now(lock)
    with pytest.raises(TimeoutError):
        gone.lock(lambda: next(seconds))
    lock.unlock()
    late.lock(lambda: 1.0)
    assert late.is_locked


@needs_posix
@pytest.mark.parametrize("content", ["precious", "", "x" * 17])
def test_planted_hard_link_is_not_written_to(lock: LockFile, path: Path, content: str) -> None:
    """A hard link to another file, planted as the lock file, does not change that file."""
    target_file = path.with_name("target")
    target_file.write_text(content)
    os.link(target_file, path)
    lock_now(lock)
    lock.show_progress()
    lock.unlock()
    assert target_file.read_text() == content


@needs_posix
def test_lock_on_a_removed_file_is_not_acquired(lock: LockFile, path: Path) -> None:
    """If the file is removed while it is being locked, the lock is not considered acquired."""
    path.touch()

    def remove_and_lock(descriptor: int, *, blocking: bool) -> bool:
        if path.exists():
            path.unlink()
        return filelock.lock_descriptor(descriptor, blocking=blocking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", remove_and_lock)
        with pytest.raises(TimeoutError):
            lock_now(lock)
    lock_now(lock)
    assert not is_free(path)


def test_lock_file_created_by_another_process_is_used(lock: LockFile, path: Path) -> None:
    """If another process creates the file between our attempts to open and create it, that file is locked."""
    open_file = os.open

    def open_after_creation(name: str, flags: int, mode: int = 0o777) -> int:
        try:
            return open_file(name, flags, mode)
        except FileNotFoundError:
            path.touch()
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_after_creation)
        lock.lock(lambda: 1.0)
    assert not is_free(path)


def test_failed_unlock_is_retried_by_the_next_use(lock: LockFile, path: Path) -> None:
    """If unlocking fails, the error is raised and the file stays locked; the next use of the lock unlocks it."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    lock_now(lock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "unlock_descriptor", fail)
        with pytest.raises(OSError, match="Input/output error"):
            lock.unlock()
    assert lock.is_locked
    assert not is_free(path)
    lock_now(lock)
    lock.unlock()
    assert is_free(path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP])
def test_file_system_without_locks_is_accepted(lock: LockFile, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Locking succeeds on file systems without lock support, such as some network mounts; other errors are raised."""

    def refuse(_: int, **__: bool) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_file, "lock_descriptor", refuse)
    monkeypatch.setattr(lock_file, "unlock_descriptor", refuse)
    lock_now(lock)
    lock.unlock()
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        lock_now(lock)
    assert not lock.is_locked


def test_reentrant_locking_fails_immediately(path: Path, manual_time: ManualTime) -> None:
    """A signal handler that interrupts locking and tries to lock gets an error; the interrupted call gets the lock."""
    lock = ProcessLock(os.fspath(path))
    errors: list[str] = []

    def lock_reentrantly(descriptor: int, *, blocking: bool) -> bool:
        locked = filelock.lock_descriptor(descriptor, blocking=blocking)
        with pytest.raises(TimeoutError, match="This thread is already acquiring") as caught, lock.held():
            pass
        assert manual_time.slept == 0.0
        errors.append(str(caught.value))
        return locked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", lock_reentrantly)
        with lock.held():
            assert not is_free(path)
    assert len(errors) == 1
    with lock.held():
        assert not is_free(path)
    assert is_free(path)


@needs_posix
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_lock_file_is_private_from_creation(lock: LockFile, path: Path, umask: int) -> None:
    """A new lock file has mode 0600 under any umask, and an existing one keeps its mode."""
    before = os.umask(umask)
    try:
        lock_now(lock)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.unlock()
    path.chmod(0o640)
    lock_now(lock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@needs_posix
@pytest.mark.parametrize("target", ["target", "missing"])
def test_symbolic_link_as_lock_file_is_rejected(lock: LockFile, path: Path, target: str) -> None:
    """A planted symbolic link is rejected immediately, wherever it points, and its target is not opened."""
    target_file = path.with_name("target")
    target_file.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic link|File exists"):
        lock.lock(lambda: 1.0)
    assert target_file.read_text() == "precious"
    assert not path.with_name("missing").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_does_not_keep_the_parents_lock(lock: LockFile, path: Path) -> None:
    """A forked child neither releases the lock that it inherited nor holds it after the parent dies."""
    lock_now(lock)
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_child[1])
        os.write(to_parent[1], b"1" if lock.is_locked else b"0")
        os.read(to_child[0], 1)
        os._exit(0)
    assert os.read(to_parent[0], 1) == b"0"
    assert not is_free(path)
    lock.drop()  # as if the parent had died without unlocking
    assert is_free(path)
    os.write(to_child[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (*to_child, *to_parent):
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_forked_during_locking_does_not_unlock(lock: LockFile, path: Path) -> None:
    """A child forked right after the locking system call does not get the lock, and does not release its parent's."""
    children: list[int] = []
    errors: list[OSError] = []

    def lock_and_fork(descriptor: int, *, blocking: bool) -> bool:
        locked = filelock.lock_descriptor(descriptor, blocking=blocking)
        children.append(os.fork())
        return locked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_file, "lock_descriptor", lock_and_fork)
        try:
            lock_now(lock)
        except OSError as error:
            errors.append(error)
    if children == [0]:
        lock.unlock()
        os._exit(0 if [error.errno for error in errors] == [errno.ECANCELED] and not lock.is_locked else 1)
    assert not errors
    assert os.waitpid(children[0], 0)[1] == 0
    assert not is_free(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_forked_during_locking_still_waits_for_its_parent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child forked while its parent locks the file does not get the lock, but the same call can wait for it."""
    lock, children, locked_by = ProcessLock(os.fspath(path)), list[int](), ""
    from_child, to_parent = os.pipe()
    new_stamp = LockFile._new_stamp  # noqa: SLF001  # called right after the file has been locked

    def fork(file: LockFile) -> int:
        if not children:
            children.append(os.fork())
        return new_stamp(file)

    monkeypatch.setattr(LockFile, "_new_stamp", fork)

    def lock_until_locked() -> str:
        try:
            with lock.held():
                os.read(from_child, 1)
                return "parent"
        except OSError as error:
            os.write(to_parent, b"x")
            with lock.held():
                return "child" if error.errno == errno.ECANCELED else str(error)

    try:
        locked_by = within_deadline(lock_until_locked)
    finally:
        if children == [0]:
            os._exit(0 if locked_by == "child" else 1)
    assert locked_by == "parent"
    assert os.waitpid(children[0], 0)[1] == 0
    os.close(from_child)
    os.close(to_parent)
