"""Saving in the background: an event does not wait for the disk, and the file is as safe as ever."""

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

    from conftest import MakeSession

PATIENCE = 20.0


class Disk:
    """The disk, which makes nothing durable until it is told to."""

    def __init__(self) -> None:
        """Begin to work as ever."""
        self._fsync = os.fsync
        self.threads: set[str] = set()
        self.syncs = 0
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Event()
        self.error: OSError | None = None

    def fsync(self, descriptor: int) -> None:
        """Wait until the disk is free; then sync, or fail."""
        self.threads.add(threading.current_thread().name)
        self.asked.set()
        assert self.free.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        self.syncs += 1
        self._fsync(descriptor)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Let nothing become durable in the block."""
        self.asked.clear()
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Return the disk of the test."""
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.free.set()


@pytest.fixture
def store(save_path: Path) -> XmlStore:
    """Return a store that saves in the background."""
    return XmlStore(save_path, background=True)


def on_disk(path: Path) -> Snapshot:
    """Return what another process finds."""
    kept = XmlStore(path).load()
    assert kept is not None
    return kept


def can_lock(path: Path) -> bool:
    """Tell whether another process could enter the store's lock now."""
    program = f"from filelock import FileLock; FileLock({os.fspath(path) + '.lock'!r}).acquire(timeout=0)"
    return subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL).returncode == 0  # noqa: S603  # our own interpreter


def wait_for_the_worker() -> None:
    """Wait until the worker has also told what it has done so far."""
    idle = threading.Event()
    WRITER.run(idle.set)
    assert idle.wait(PATIENCE)


def wait_until_free(path: Path) -> None:
    """Wait until the worker has let go of the lock."""
    with XmlStore(path).lock():
        pass


def run(program: str, path: Path, *, killed: bool = False) -> list[str]:
    """Run a program in a process of its own; kill it at its first line, if it is to be."""
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


def test_an_event_does_not_wait_for_the_disk(make: MakeSession, store: XmlStore, save_path: Path, disk: Disk) -> None:
    """Sessions are numbered, and their entities handed out, while nothing becomes durable; then the newest is."""
    session, other = make(store=store), make(store=store)
    store.flush()
    with disk.busy():
        first = session.get_session_context(event_id(1))
        assert disk.asked.wait(PATIENCE)
        second = other.get_session_context(event_id(2))
        session.start_new_session()
        third = session.get_session_context(event_id(3))
        assert on_disk(save_path) == Snapshot(user_id=first.user_id)
        assert session.save_error is None
    store.flush()
    assert [context.session_index for context in (first, second, third)] == [1, 2, 3]
    assert [context.previous_session_id for context in (second, third)] == [first.session_id, second.session_id]
    assert on_disk(save_path).session_id == third.session_id


def test_no_other_process_takes_a_number_that_is_not_durable_yet(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """The lock file stays locked until the number that was given is durable, and is free then."""
    session = make(store=store)
    store.flush()
    with disk.busy():
        session.get_session_context(event_id(1))
        assert not can_lock(save_path)
    store.flush()
    wait_until_free(save_path)
    assert can_lock(save_path)
    assert make(save_path=save_path).get_session_context(event_id(2)).session_index == 2


def test_of_what_waits_the_newest_is_written(make: MakeSession, store: XmlStore, save_path: Path, disk: Disk) -> None:
    """A disk that is slower than the sessions writes fewer of them, never an older one over a newer."""
    session = make(store=store)
    store.flush()
    before = disk.syncs
    with disk.busy():
        for number in range(50):
            session.start_new_session()
            session.get_session_context(event_id(number))
            assert disk.asked.wait(PATIENCE)
    store.flush()
    assert on_disk(save_path).session_index == 50
    assert disk.syncs - before <= 4


def test_only_the_worker_waits_for_the_disk(make: MakeSession, save_path: Path, disk: Disk) -> None:
    """Also the folders of a first run are made durable by the worker alone."""
    store = XmlStore(save_path.parent / "a" / "b" / "session.xml", background=True)
    with make(store=store) as session:
        session.get_session_context(event_id(1))
    store.flush()
    assert disk.threads == {"client-session-writer"}
    assert disk.syncs >= 4


def test_what_the_disk_refuses_is_known_and_tried_again(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A save that fails on the worker's thread is `save_error`, warned of once, and made up for by a tick."""
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
    assert on_disk(save_path).session_index < 3
    disk.error = None
    session.tick()
    session.save()
    wait_for_the_worker()
    assert session.save_error is None
    assert on_disk(save_path).session_id == contexts[-1].session_id
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_save_returns_when_it_is_durable(make: MakeSession, store: XmlStore, disk: Disk, save_path: Path) -> None:
    """save() by hand waits for the disk, in the lock's context too."""
    session = make(store=store)
    session.get_session_context(event_id(1))
    session.save()
    session.get_session_context(event_id(2))
    with disk.busy(), ThreadPoolExecutor(1) as pool:
        saving = pool.submit(session.save)
        assert disk.asked.wait(PATIENCE)
        assert not saving.done()
        disk.free.set()
        saving.result(PATIENCE)
        assert on_disk(save_path).event_index == 2
    with store.lock():
        for number in (3, 4):
            session.start_new_session()
            session.get_session_context(event_id(number))
            session.save()
            assert on_disk(save_path).session_index == number - 1


def test_save_waits_for_no_one_who_waits_for_it(
    make: MakeSession, store: XmlStore, disk: Disk, save_path: Path
) -> None:
    """Also a signal handler that comes between an event and its store may save, though the worker has news for it."""
    session = make(store=store)
    store.flush()
    with session._ledger._lock:  # noqa: SLF001  # what the handler would find held by its own thread
        with disk.busy():
            session.get_session_context(event_id(1))
            assert disk.asked.wait(PATIENCE)
        session.get_session_context(event_id(2))
        session.save()
    assert session.save_error is None
    assert on_disk(save_path).event_index == 2


def test_a_lock_that_another_process_holds_is_not_waited_for(
    make: MakeSession, store: XmlStore, save_path: Path
) -> None:
    """The session goes on in memory at once, and is saved at the first tick that can."""
    session = make(store=store)
    store.flush()
    wait_until_free(save_path)
    with XmlStore(save_path).lock():
        start = time.monotonic()
        context = session.get_session_context(event_id(1))
        session.tick()
        assert time.monotonic() - start < 0.5
        assert isinstance(session.save_error, TimeoutError)
    session.tick()
    session.save()
    assert session.save_error is None
    assert on_disk(save_path).session_id == context.session_id


def test_threads_take_turns(make: MakeSession, store: XmlStore, disk: Disk, switching_fast: None) -> None:  # noqa: ARG001  # a setting
    """Threads that number sessions while the disk is busy wait for each other, and double no number."""
    sessions = [make(store=store) for _ in range(4)]

    def number(session: ClientSession) -> list[int]:
        found = []
        for event in range(25):
            session.start_new_session()
            found.append(session.get_session_context(event_id(event)).session_index)
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [index for indexes in pool.map(number, sessions) for index in indexes]
    store.flush()
    assert sorted(found) == list(range(1, 101))
    assert disk.syncs > 0


def test_a_mended_corruption_is_to_be_seen(make: MakeSession, store: XmlStore, save_path: Path) -> None:
    """That a corrupt file was replaced is told until the next save, also when the new one is durable."""
    save_path.write_bytes(b"ruin")
    session = make(store=store)
    store.flush()
    assert isinstance(session.save_error, CorruptSaveFileError)
    session.get_session_context(event_id(1))
    session.save()
    assert session.save_error is None
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"ruin"


def test_too_many_files_at_a_time_wait_for_a_tick(make: MakeSession, tmp_path: Path, disk: Disk) -> None:
    """On a busy disk no more than a bounded number of lock files is open, and the rest is saved later."""
    stores = [XmlStore(tmp_path / str(number) / "session.xml", background=True) for number in range(MAX_FILES + 20)]
    with disk.busy():
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


def test_without_threads_it_saves_at_once(
    make: MakeSession, save_path: Path, monkeypatch: pytest.MonkeyPatch, store: XmlStore, disk: Disk
) -> None:
    """Where no thread can be started, an event is as durable, and as slow, as without a worker."""
    from client_session_persistence import writer_thread  # noqa: PLC0415  # the process's worker, which this test replaces

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(writer_thread, "WRITER", writer_thread.WriterThread())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    session = make(store=store)
    context = session.get_session_context(event_id(1))
    assert on_disk(save_path).session_id == context.session_id
    assert can_lock(save_path)
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        session.save()
    disk.error = None
    session.save()
    assert session.save_error is None


class JustFailed(MemoryStore):
    """A store whose worker finds out that it cannot save just before anybody asks."""

    def save(self, snapshot: Snapshot) -> Future[None]:  # type: ignore[override]  # as the protocol allows
        """Fail, but say so later."""

        class Failing(Future[None]):
            def add_done_callback(self, fn: Callable[[Future[None]], object]) -> None:
                if not self.done():
                    self.set_exception(OSError(errno.EIO, f"no {snapshot.session_index} saved"))
                super().add_done_callback(fn)

        return Failing()


def test_save_raises_what_was_known_before_it_could_wait(make: MakeSession) -> None:
    """However early a save in the background fails, save() raises it, and a tick tries again."""
    session = make(store=JustFailed())
    session.get_session_context(event_id(1))
    for _ in range(2):
        with pytest.raises(OSError, match="no 1 saved"):
            session.save()
        assert isinstance(session.save_error, OSError)
        session.tick()
        assert isinstance(session.save_error, OSError)


def test_a_log_handler_on_the_workers_thread_may_save(make: MakeSession, store: XmlStore, disk: Disk) -> None:
    """What is told there may call the session again, even `save`, which does not wait for itself."""
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


EXITING = """
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


def test_the_exit_waits_until_all_is_durable(save_path: Path) -> None:
    """A program that just ends loses nothing, though the disk was busy then."""
    program = EXITING.format(disk="free.wait(0.05)")
    assert run(program, save_path) == [on_disk(save_path).session_id]


def test_what_is_saved_while_the_program_leaves_is_saved_at_once(save_path: Path) -> None:
    """An exit function that runs after the worker's end loses nothing either."""
    program = """
import atexit, sys, uuid
atexit.register(lambda: print(session.get_session_context(uuid.uuid4()).session_id))
from client_session import ClientSession
from client_session_persistence import XmlStore
session = ClientSession(store=XmlStore(sys.argv[1], background=True))
"""
    (told,) = run(program, save_path)
    assert on_disk(save_path).session_id == told


def test_a_kill_loses_no_more_than_what_was_handed_over(save_path: Path) -> None:
    """Killed before it is durable, a session is missing from a file that is whole and can be locked at once."""
    program = EXITING.format(disk="free.wait()")
    run(program, save_path, killed=True)
    assert on_disk(save_path).session_index == 0
    with ClientSession(save_path) as session:
        assert session.get_session_context(event_id(1)).session_index == 1
        assert session.save_error is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system with fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_between_leaves_the_save_to_the_parent(
    make: MakeSession, store: XmlStore, save_path: Path, disk: Disk
) -> None:
    """A child that is forked while a save is under way numbers on, and can save once its parent's is durable."""
    session = make(store=store)
    store.flush()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    with disk.busy():
        parents = session.get_session_context(event_id(1))
        assert disk.asked.wait(PATIENCE)
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
                assert on_disk(save_path).session_id == context.session_id
                assert (context.session_index, context.previous_session_id) == (2, parents.session_id)
                status = 0
            os._exit(status)
        os.close(to_parent)
        os.read(from_child, 1)
    store.flush()
    assert on_disk(save_path).session_id == parents.session_id
    wait_until_free(save_path)
    os.write(to_child, b"!")
    _, status = os.waitpid(child, 0)
    for descriptor in (from_child, from_parent, to_child):
        os.close(descriptor)
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system with fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("amid_the_write", [False, True])
def test_a_child_that_comes_back_into_a_save_writes_nothing(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, *, amid_the_write: bool
) -> None:
    """A child that is forked on the very thread under the lock, also amid a write at the exit, is refused by `save`."""
    from client_session_persistence import writer_thread  # noqa: PLC0415  # the process's worker, which this test replaces

    store, fsync = XmlStore(save_path, background=True), os.fsync
    children: list[int] = []

    def fork(descriptor: int = -1) -> None:
        if not children:
            children.append(os.fork())
        if descriptor >= 0:
            fsync(descriptor)

    if amid_the_write:
        monkeypatch.setattr(writer_thread, "WRITER", writer_thread.WriterThread())
        writer_thread.WRITER.finish(time.monotonic() + 60)
        monkeypatch.setattr(os, "fsync", fork)
    parent, status = os.getpid(), 1
    try:
        with contextlib.suppress(BaseException):
            ours = Snapshot(user_id=event_id(1))
            with store.lock():
                assert store.load() is None
                if not amid_the_write:
                    fork()
                try:
                    future = store.save(ours)
                    assert future is not None
                    error = future.exception(PATIENCE)
                except OSError as raised:
                    error = raised
            refused = isinstance(error, OSError) and error.errno == errno.ECANCELED
            status = 0 if refused == (os.getpid() != parent) else 1
    finally:
        if os.getpid() != parent:
            os._exit(status)
    _, childs = os.waitpid(children[0], 0)
    store.flush()
    wait_until_free(save_path)
    assert (status, childs) == (0, 0)
    assert on_disk(save_path) == ours
    assert not list(save_path.parent.glob("*.tmp"))


def test_a_loop_goes_on_while_the_disk_is_busy(
    store: XmlStore, save_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """In a program of 1,000 sessions on one file whose disk hangs, the loop's debug log calls no callback slow."""
    caplog.set_level(logging.WARNING, "asyncio")

    async def main() -> None:
        scheduler = AsyncioScheduler()
        sessions = []
        with disk.busy():
            for number in range(1_000):
                sessions.append(ClientSession(store=store, scheduler=scheduler, check_interval=0.2))
                assert sessions[-1].get_session_context(event_id(number)).session_index == number + 1
                await asyncio.sleep(0)
        for session in sessions:
            session.close()
            await asyncio.sleep(0)
        await asyncio.to_thread(store.flush)

    asyncio.run(main(), debug=True)
    assert on_disk(save_path).session_index == 1_000
    assert [record.getMessage() for record in caplog.records] == []
