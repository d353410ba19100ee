"""Saving on the writer thread: events do not wait for the disk, and saves are as safe as without the thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession
from client_session.ticking.asyncio import AsyncioScheduler
from client_session_persistence import CorruptSaveFileError, MemoryStore, Snapshot, XmlStore
from client_session_persistence.writer_thread import MAX_FILES, WRITER
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import MakeSession, ManualTime

WAIT_SECONDS = 20.0


class Disk:
    """A disk whose fsync can be made to block or fail."""

    def __init__(self) -> None:
        """Create a disk that works."""
        self._fsync = os.fsync
        self.threads: set[str] = set()
        self.syncs = 0
        self.unblocked = threading.Event()
        self.unblocked.set()
        self.requested = threading.Event()
        self.error: OSError | None = None

    def fsync(self, descriptor: int) -> None:
        """Wait until the disk is unblocked, then sync or fail."""
        self.threads.add(threading.current_thread().name)
        self.requested.set()
        assert self.unblocked.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        self.syncs += 1
        self._fsync(descriptor)

    @contextlib.contextmanager
    def block_fsync(self) -> Iterator[None]:
        """Make every fsync wait until the `with` block ends."""
        self.requested.clear()
        self.unblocked.clear()
        try:
            yield
        finally:
            self.unblocked.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Replace os.fsync with a fake that the test can block or make fail."""
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.unblocked.set()


@pytest.fixture
def store(save_path: Path) -> XmlStore:
    """Return a store that saves in the background."""
    return XmlStore(save_path, background=True)


def load_from_disk(path: Path) -> Snapshot:
    """Return the snapshot that another process would load."""
    snapshot = XmlStore(path).load()
    assert snapshot is not None
    return snapshot


def can_lock(path: Path) -> bool:
    """Return whether another process could acquire the store's lock now."""
    program = f"from filelock import FileLock; FileLock({os.fspath(path) + '.lock'!r}).acquire(timeout=0)"
    return subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL).returncode == 0  # noqa: S603  # our own interpreter


def wait_for_the_writer() -> None:
    """Wait until the writer thread has finished all queued saves and reported their results."""
    idle = threading.Event()
    WRITER.run(idle.set)
    assert idle.wait(WAIT_SECONDS)


def wait_for_unlock(path: Path) -> None:
    """Wait until the writer thread has released the lock."""
    with XmlStore(path).lock():
        pass


def run(program: str, path: Path, *, killed: bool = False) -> list[str]:
    """Run a program in a new process and return the words it prints; if ``killed``, kill it after a line of output."""
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        if killed:
            process.kill()
        lines += process.stdout
    assert process.returncode == (-signal.SIGKILL if killed else 0)
    return "".join(lines).split()


def test_event_does_not_wait_for_the_disk(make: MakeSession, store: XmlStore, save_path: Path, disk: Disk) -> None:
    """Sessions get their indexes and entities while the disk is blocked; afterward, the newest session is saved."""
    session, other = make(store=store), make(store=store)
    store.flush()
    with disk.block_fsync():
        first = session.get_session_context(event_id(1))
        assert disk.requested.wait(WAIT_SECONDS)
        second = other.get_session_context(event_id(2))
        session.start_new_session()
        third = session.get_session_context(event_id(3))
        assert load_from_disk(save_path) == Snapshot(user_id=first.user_id)
        assert session.save_error is None
    store.flush()
    assert [context.session_index for context in (first, second, third)] == [1, 2, 3]
    assert [context.previous_session_id for context in (second, third)] == [first.session_id, second.session_id]
    assert load_from_disk(save_path).session_id == third.session_id


def test_lock_is_held_until_the_index_is_durable(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """The lock is held until the assigned index is durable, so another process cannot assign the same index."""
    session = make(store=store)
    store.flush()
    with disk.block_fsync():
        session.get_session_context(event_id(1))
        assert not can_lock(save_path)
    store.flush()
    wait_for_unlock(save_path)
    assert can_lock(save_path)
    assert make(save_path=save_path).get_session_context(event_id(2)).session_index == 2


def test_only_the_newest_pending_save_is_written(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """On a slow disk, intermediate sessions are not written, and an older session never overwrites a newer one."""
    session = make(store=store)
    store.flush()
    before = disk.syncs
    with disk.block_fsync():
        for number in range(50):
            session.start_new_session()
            session.get_session_context(event_id(number))
            assert disk.requested.wait(WAIT_SECONDS)
    store.flush()
    assert load_from_disk(save_path).session_index == 50
    assert disk.syncs - before <= 4


def test_only_the_writer_thread_waits_for_the_disk(make: MakeSession, save_path: Path, disk: Disk) -> None:
    """The writer thread also syncs the folders that a first run creates."""
    store = XmlStore(save_path.parent / "a" / "b" / "session.xml", background=True)
    with make(store=store) as session:
        session.get_session_context(event_id(1))
    store.flush()
    assert disk.threads == {"client-session-writer"}
    assert disk.syncs >= 4


def test_failed_save_is_reported_and_retried(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A save that fails on the writer thread sets `save_error`, logs one warning, and is retried by a tick."""
    caplog.set_level(logging.INFO, "client_session")
    session = make(store=store)
    session.save()
    disk.error = OSError(errno.EIO, "Input/output error")
    contexts = []
    for number in (1, 2, 3):
        session.start_new_session()
        contexts.append(session.get_session_context(event_id(number)))
        with pytest.raises(OSError, match="Input/output error"):
            session.save()
        assert session.save_error is disk.error
    assert load_from_disk(save_path).session_index < 3
    disk.error = None
    session.tick()
    session.save()
    wait_for_the_writer()
    assert session.save_error is None
    assert load_from_disk(save_path).session_id == contexts[-1].session_id
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_save_returns_when_the_file_is_durable(make: MakeSession, store: XmlStore, disk: Disk, save_path: Path) -> None:
    """An explicit save() waits for the disk, even while the store is locked."""
    session = make(store=store)
    session.get_session_context(event_id(1))
    session.save()
    session.get_session_context(event_id(2))
    with disk.block_fsync(), ThreadPoolExecutor(1) as pool:
        saving = pool.submit(session.save)
        assert disk.requested.wait(WAIT_SECONDS)
        assert not saving.done()
        disk.unblocked.set()
        saving.result(WAIT_SECONDS)
        assert load_from_disk(save_path).event_index == 2
    with store.lock():
        for number in (3, 4):
            session.start_new_session()
            session.get_session_context(event_id(number))
            session.save()
            assert load_from_disk(save_path).session_index == number - 1


def test_save_does_not_deadlock_with_the_writer_thread(
    make: MakeSession, store: XmlStore, disk: Disk, save_path: Path
) -> None:
    """A signal handler that interrupts a call can save, even while the writer thread has a result to report."""
    session = make(store=store)
    store.flush()
    with session._ledger._lock:  # noqa: SLF001  # the interrupted event holds it
        with disk.block_fsync():
            session.get_session_context(event_id(1))
            assert disk.requested.wait(WAIT_SECONDS)
        session.get_session_context(event_id(2))
        session.save()
    assert session.save_error is None
    assert load_from_disk(save_path).event_index == 2


def test_hung_lock_holder_delays_an_event_once(
    make: MakeSession, store: XmlStore, save_path: Path, manual_time: ManualTime
) -> None:
    """An event waits a second for a lock that does not change hands; ticks do not wait, and save the session later."""
    session = make(store=store)
    store.flush()
    wait_for_unlock(save_path)
    with XmlStore(save_path).lock():
        slept_before = manual_time.slept  # while the new user was being saved
        context = session.get_session_context(event_id(1))
        assert isinstance(session.save_error, TimeoutError)
        for _ in range(60):
            session.tick()
        assert manual_time.slept - slept_before == pytest.approx(1.0, abs=0.01)
    session.tick()
    session.save()
    assert session.save_error is None
    assert load_from_disk(save_path).session_id == context.session_id


@pytest.mark.usefixtures("fast_thread_switching")
def test_threads_never_assign_an_index_twice(make: MakeSession, store: XmlStore, disk: Disk) -> None:
    """Threads that start sessions concurrently wait for one another."""
    sessions = [make(store=store) for _ in range(4)]

    def start_sessions(session: ClientSession) -> list[int]:
        indexes = []
        for event in range(25):
            session.start_new_session()
            indexes.append(session.get_session_context(event_id(event)).session_index)
        return indexes

    with ThreadPoolExecutor(4) as pool:
        indexes = [index for indexes in pool.map(start_sessions, sessions) for index in indexes]
    store.flush()
    assert sorted(indexes) == list(range(1, 101))
    assert disk.syncs > 0


def test_replaced_corrupt_file_is_reported_until_the_next_save(
    make: MakeSession, store: XmlStore, save_path: Path
) -> None:
    """save_error reports the corrupt file until the next save, even though the file was replaced at startup."""
    save_path.write_bytes(b"corrupt")
    session = make(store=store)
    store.flush()
    assert isinstance(session.save_error, CorruptSaveFileError)
    session.get_session_context(event_id(1))
    session.save()
    assert session.save_error is None
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"corrupt"


def test_saves_beyond_the_open_file_limit_wait_for_a_tick(make: MakeSession, tmp_path: Path, disk: Disk) -> None:
    """While the disk is busy, the number of open lock files is bounded, and the remaining sessions are saved later."""
    stores = [XmlStore(tmp_path / str(number) / "session.xml", background=True) for number in range(MAX_FILES + 20)]
    with disk.block_fsync():
        sessions = [make(store=store) for store in stores]
        failed = [session for session in sessions if session.save_error is not None]
        assert 18 <= len(failed) <= 20
        assert all(isinstance(session.save_error, BlockingIOError) for session in failed)
    for store in stores:
        store.flush()
    for session in failed:
        session.tick()
        session.save()
        assert session.save_error is None


def test_many_saves_of_few_files_are_not_too_many(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """The limit counts files, not saves: while the disk is busy, a file may be saved often, and others still fit."""
    session = make(store=store)
    with disk.block_fsync():
        for number in range(2 * MAX_FILES):
            session.start_new_session()
            assert session.get_session_context(event_id(number)).session_index == number + 1
        assert len(WRITER.jobs) > MAX_FILES
        other = make(store=XmlStore(save_path.with_name("other.xml"), background=True))
        assert (session.save_error, other.save_error) == (None, None)
    session.save()
    other.save()
    assert load_from_disk(save_path).session_index == 2 * MAX_FILES


def test_events_save_synchronously_where_no_thread_can_start(
    make: MakeSession, save_path: Path, monkeypatch: pytest.MonkeyPatch, store: XmlStore, disk: Disk
) -> None:
    """If a thread cannot be started, an event is saved before the call returns, just as without a writer thread."""
    from client_session_persistence import writer_thread  # noqa: PLC0415  # the process-wide writer thread, which this test replaces

    def fail_to_start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(writer_thread, "WRITER", writer_thread.WriterThread())
    monkeypatch.setattr(threading.Thread, "start", fail_to_start)
    session = make(store=store)
    context = session.get_session_context(event_id(1))
    assert load_from_disk(save_path).session_id == context.session_id
    assert can_lock(save_path)
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        session.save()
    disk.error = None
    session.save()
    assert session.save_error is None


class EarlyFailureStore(MemoryStore):
    """A store whose background saves fail as soon as a callback is added to their futures."""

    def save(self, snapshot: Snapshot) -> Future[None]:  # type: ignore[override]  # as the protocol allows
        """Return a future that fails when a callback is added."""

        class EarlyFailure(Future[None]):
            def add_done_callback(self, fn: Callable[[Future[None]], object]) -> None:
                if not self.done():
                    self.set_exception(OSError(errno.EIO, f"session {snapshot.session_index} not saved"))
                super().add_done_callback(fn)

        return EarlyFailure()


def test_save_raises_an_early_failure(make: MakeSession) -> None:
    """No matter how early a background save fails, save() raises the error, and a tick tries again."""
    session = make(store=EarlyFailureStore())
    session.get_session_context(event_id(1))
    for _ in range(2):
        with pytest.raises(OSError, match="session 1 not saved"):
            session.save()
        assert isinstance(session.save_error, OSError)
        session.tick()
        assert isinstance(session.save_error, OSError)


def test_log_handler_on_the_writer_thread_may_save(make: MakeSession, store: XmlStore, disk: Disk) -> None:
    """A log handler that runs on the writer thread can use the session, and even call save(), without a deadlock."""
    session = make(store=store)
    session.save()
    failures: list[Exception | None] = []

    class Handler(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            disk.error = None
            session.save()
            failures.append(session.save_error)

    logger, handler = logging.getLogger("client_session.session"), Handler()
    logger.addHandler(handler)
    try:
        disk.error = OSError(errno.EIO, "Input/output error")
        session.get_session_context(event_id(1))
        store.flush()
        session.save()
    except OSError:
        session.save()
    finally:
        logger.removeHandler(handler)
    assert failures[0] is None
    assert session.save_error is None


EXITING_PROGRAM = """
import os, sys, threading, uuid
from client_session import ClientSession
from client_session_persistence import XmlStore
real, free = os.fsync, threading.Event()
def fsync(descriptor):
    {disk}
    real(descriptor)
store = XmlStore(sys.argv[1], background=True)
session = ClientSession(store=store)
session.save()
os.fsync = fsync
print(session.get_session_context(uuid.uuid4()).session_id, flush=True)
"""


def test_exit_waits_until_everything_is_durable(save_path: Path) -> None:
    """A program that exits while the disk is busy does not lose saves."""
    program = EXITING_PROGRAM.format(disk="free.wait(0.05)")
    assert run(program, save_path) == [load_from_disk(save_path).session_id]


def test_save_from_an_exit_function_is_synchronous(save_path: Path) -> None:
    """An atexit function that runs after the writer thread has stopped can still save."""
    program = """
import atexit, sys, uuid
atexit.register(lambda: print(session.get_session_context(uuid.uuid4()).session_id))
from client_session import ClientSession
from client_session_persistence import XmlStore
session = ClientSession(store=XmlStore(sys.argv[1], background=True))
"""
    (session_id,) = run(program, save_path)
    assert load_from_disk(save_path).session_id == session_id


def test_kill_loses_only_queued_saves(save_path: Path) -> None:
    """After a process is killed, the file is intact but lacks the queued session, and the lock is free."""
    program = EXITING_PROGRAM.format(disk="free.wait()")
    run(program, save_path, killed=True)
    assert load_from_disk(save_path).session_index == 0
    with ClientSession(save_path) as session:
        assert session.get_session_context(event_id(1)).session_index == 1
        assert session.save_error is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_during_a_save_leaves_it_to_the_parent(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """A child forked during a save assigns the next index and can save once the parent's save is durable."""
    session = make(store=store)
    store.flush()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    with disk.block_fsync():
        parent_context = session.get_session_context(event_id(1))
        assert disk.requested.wait(WAIT_SECONDS)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                os.fsync = disk._fsync  # noqa: SLF001
                context = session.get_session_context(event_id(2))
                assert isinstance(session.save_error, TimeoutError)
                os.write(to_parent, b"!")
                os.read(from_parent, 1)
                session.save()
                assert load_from_disk(save_path).session_id == context.session_id
                assert (context.session_index, context.previous_session_id) == (2, parent_context.session_id)
                status = 0
            os._exit(status)
        os.close(to_parent)
        os.read(from_child, 1)
    store.flush()
    assert load_from_disk(save_path).session_id == parent_context.session_id
    wait_for_unlock(save_path)
    os.write(to_child, b"!")
    _, status = os.waitpid(child, 0)
    for descriptor in (from_child, from_parent, to_child):
        os.close(descriptor)
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("during_write", [False, True])
def test_child_forked_during_a_save_does_not_write(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, *, during_write: bool
) -> None:
    """If the thread that holds the lock forks, `save` fails in the child, even after a fork during a write at exit."""
    from client_session_persistence import writer_thread  # noqa: PLC0415  # the process-wide writer thread, which this test replaces

    store, fsync = XmlStore(save_path, background=True), os.fsync
    children: list[int] = []

    def fork(descriptor: int = -1) -> None:
        if not children:
            children.append(os.fork())
        if descriptor >= 0:
            fsync(descriptor)

    if during_write:
        monkeypatch.setattr(writer_thread, "WRITER", writer_thread.WriterThread())
        writer_thread.WRITER.finish(time.monotonic() + 60)
        monkeypatch.setattr(os, "fsync", fork)
    parent, status = os.getpid(), 1
    try:
        with contextlib.suppress(BaseException):
            snapshot = Snapshot(user_id=event_id(1))
            with store.lock():
                assert store.load() is None
                if not during_write:
                    fork()
                try:
                    future = store.save(snapshot)
                    assert future is not None
                    error = future.exception(WAIT_SECONDS)
                except OSError as raised:
                    error = raised
            refused = isinstance(error, OSError) and error.errno == errno.ECANCELED
            status = 0 if refused == (os.getpid() != parent) else 1
    finally:
        if os.getpid() != parent:
            os._exit(status)
    _, child_status = os.waitpid(children[0], 0)
    store.flush()
    wait_for_unlock(save_path)
    assert (status, child_status) == (0, 0)
    assert load_from_disk(save_path) == snapshot
    assert not list(save_path.parent.glob("*.tmp"))


def test_loop_is_not_blocked_by_a_busy_disk(
    store: XmlStore, save_path: Path, disk: Disk, slow_callbacks: list[str]
) -> None:
    """With 1,000 sessions on one file and a blocked disk, every event is handled, and every callback is fast."""

    async def main() -> None:
        scheduler = AsyncioScheduler()
        sessions = []
        with disk.block_fsync():
            for number in range(1_000):
                sessions.append(ClientSession(store=store, scheduler=scheduler, check_interval=0.2))
                assert sessions[-1].get_session_context(event_id(number)).session_index == number + 1
                await asyncio.sleep(0)
        for session in sessions:
            session.close()
            await asyncio.sleep(0)
        await asyncio.to_thread(store.flush)

    asyncio.run(main())
    assert load_from_disk(save_path).session_index == 1_000
    assert slow_callbacks == []
