"""Saving: when a session writes its save file, what is restored on restart, and how failures are handled."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_session.callbacks import Callbacks
from client_session.ledger import Ledger
from client_session_persistence import CorruptSaveFileError, MemoryStore, Snapshot, XmlStore, loads
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from client_session.testing import ManualClock
    from conftest import MakeSession


def load_from_disk(path: Path) -> Snapshot:
    """Return the snapshot in a save file."""
    return loads(path.read_bytes())


class FailingStore:
    """A memory store whose calls can be made to fail."""

    def __init__(self) -> None:
        """Create an empty store whose calls succeed."""
        self.inner = MemoryStore()
        self.load_error: Exception | None = None
        self.save_error: Exception | None = None
        self.lock_error: Exception | None = None

    def load(self) -> Snapshot | None:
        """Load the snapshot, or raise `load_error` if it is set."""
        if self.load_error:
            raise self.load_error
        return self.inner.load()

    def save(self, snapshot: Snapshot) -> None:
        """Save the snapshot, or raise `save_error` if it is set."""
        if self.save_error:
            raise self.save_error
        self.inner.save(snapshot)

    def lock(self) -> AbstractContextManager[object]:
        """Lock the store; entering the lock raises `lock_error` if it is set."""
        return self._locked()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self.lock_error:
            raise self.lock_error
        with self.inner.lock():
            yield


# When the file is written


def test_first_run_writes_only_the_user_id(make: MakeSession, save_path: Path) -> None:
    """The constructor saves the user but not a session."""
    session = make(save_path=save_path)
    assert load_from_disk(save_path) == Snapshot(user_id=session.user_id)
    assert b"sessionId" not in save_path.read_bytes()


def test_missing_parent_folders_are_created(make: MakeSession, tmp_path: Path) -> None:
    """The folders in the save path do not have to exist."""
    path = tmp_path / "a" / "b" / "session.xml"
    session = make(save_path=path)
    assert load_from_disk(path).user_id == session.user_id


def test_session_is_written_at_its_first_event(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """A session is saved at its first event; later events do not rewrite the file."""
    session = make(save_path=save_path)
    clock.advance(10)
    context = session.get_session_context(event_id(1))
    assert load_from_disk(save_path) == Snapshot(
        user_id=session.user_id,
        session_id=context.session_id,
        session_index=1,
        first_event_id=event_id(1),
        first_event_timestamp=clock.now(),
        event_index=1,
        last_activity=clock.now(),
        session_start=clock.now(),
    )
    before = save_path.stat()
    session.get_session_context(event_id(2))
    session.set_background(True)
    session.tick()
    after = save_path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("write", ["save", "close"])
def test_save_and_close_write_the_progress(make: MakeSession, save_path: Path, clock: ManualClock, write: str) -> None:
    """save() and close() update the event count and the wall-clock time of the last activity."""
    session = make(save_path=save_path, continue_on_restart=True)
    session.get_session_context(event_id(1))
    clock.advance(50)
    session.get_session_context(event_id(2))
    last = clock.now()
    clock.advance(20)
    getattr(session, write)()
    assert load_from_disk(save_path).event_index == 2
    assert load_from_disk(save_path).last_activity == last


def test_pending_session_is_never_written(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """After an expiry, the file still contains the last session that had events, with its final event count."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    last = session.get_session_context(event_id(2))
    clock.advance(600)
    session.tick()
    session.save()
    session.close()
    assert load_from_disk(save_path).session_id == last.session_id
    assert load_from_disk(save_path).event_index == 2


@pytest.mark.parametrize("trigger", ["tick", "toggle"])
def test_progress_is_saved_for_a_possible_restart(
    make: MakeSession, save_path: Path, clock: ManualClock, trigger: str
) -> None:
    """With continue_on_restart, ticks and focus changes save unsaved activity; without it, they do not."""
    for continue_on_restart in (True, False):
        session = make(save_path=save_path, continue_on_restart=continue_on_restart)
        session.start_new_session()
        session.get_session_context(event_id(1))
        clock.advance(50)
        session.get_session_context(event_id(2))
        clock.advance(15)
        if trigger == "tick":
            session.tick()
        else:
            session.set_background(True)
        assert load_from_disk(save_path).event_index == (2 if continue_on_restart else 1)
        session.close()


def test_counted_empty_sessions_are_saved(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """With count_empty_sessions, empty sessions are saved at construction and on expiry, as in the .NET tracker."""
    session = make(save_path=save_path, count_empty_sessions=True)
    saved = load_from_disk(save_path)
    assert (saved.session_id, saved.session_index, saved.first_event_id) == (session.session_id, 1, None)
    clock.advance(600)
    session.tick()
    assert load_from_disk(save_path).session_index == 2
    assert load_from_disk(save_path).previous_session_id == saved.session_id
    session.get_session_context(event_id(1))
    assert load_from_disk(save_path).first_event_id == event_id(1)


# What is restored on restart


def test_numbering_continues_from_a_dotnet_file(make: MakeSession, save_path: Path, dotnet_file: Path) -> None:
    """The user stays the same, the index increases, and the session in the .NET file becomes the previous session."""
    save_path.write_bytes(dotnet_file.read_bytes())
    before = load_from_disk(save_path)
    context = make(save_path=save_path).get_session_context(event_id(1))
    assert context.user_id == before.user_id
    assert context.session_index == before.session_index + 1
    assert context.previous_session_id == before.session_id


@pytest.mark.parametrize(
    ("elapsed", "is_continued"),
    [(timedelta(0), True), (timedelta(seconds=599.999), True), (timedelta(seconds=600), False)],
)
def test_restart_in_time_continues_the_session(
    make: MakeSession, clock: ManualClock, elapsed: timedelta, *, is_continued: bool
) -> None:
    """With continue_on_restart, a session that has been idle for less than the foreground timeout continues."""
    session = make(continue_on_restart=True)
    first = session.get_session_context(event_id(1))
    session.close()
    clock.advance(elapsed.total_seconds())
    after = make(continue_on_restart=True)
    assert (after.session_id == first.session_id) is is_continued
    second = after.get_session_context(event_id(2))
    assert (second.session_id == first.session_id) is is_continued
    assert (second.session_index, second.event_index) == ((1, 2) if is_continued else (2, 1))


def test_time_before_the_restart_counts_toward_the_timeout(make: MakeSession, clock: ManualClock) -> None:
    """A continued session expires as if the program had not restarted."""
    with make(continue_on_restart=True) as session:
        session.get_session_context(event_id(1))
    clock.advance(400)
    assert make(continue_on_restart=True).expires_in == 200


@pytest.mark.parametrize("end", ["new-session", "shorter timeout", "background timeout"])
def test_ended_session_is_not_continued(make: MakeSession, clock: ManualClock, end: str) -> None:
    """A session whose end was reported is not continued, even within the foreground timeout."""
    ended: list[object] = []
    session = make(continue_on_restart=True, on_session_end=ended.append)
    first = session.get_session_context(event_id(1))
    if end == "new-session":
        session.start_new_session()
    elif end == "shorter timeout":
        clock.advance(1)
        session.foreground_timeout = 1
    else:
        session.set_background(True)
        clock.advance(300)
    session.close()
    assert len(ended) == 1
    assert make(continue_on_restart=True).get_session_context(event_id(2)).previous_session_id == first.session_id


def test_last_activity_in_the_future_means_a_new_session(make: MakeSession, clock: ManualClock) -> None:
    """If the wall clock was set back between two runs, the gap is unknown, so a new session begins."""
    with make(continue_on_restart=True) as session:
        first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now() - timedelta(seconds=5))
    assert make(continue_on_restart=True).get_session_context(event_id(2)).session_id != first.session_id


def test_saved_activity_follows_a_corrected_wall_clock(make: MakeSession, clock: ManualClock) -> None:
    """A session still continues on restart if the wall clock was corrected after its first event."""
    session = make(continue_on_restart=True)
    first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now() + timedelta(days=20_000))
    clock.advance(30)
    session.close()
    assert make(continue_on_restart=True).get_session_context(event_id(2)).session_id == first.session_id


def test_every_run_begins_a_new_session_by_default(make: MakeSession) -> None:
    """Without continue_on_restart, each run begins a new session."""
    with make() as session:
        first = session.get_session_context(event_id(1))
    second = make().get_session_context(event_id(2))
    assert (second.session_index, second.previous_session_id) == (2, first.session_id)


# Shared files


def test_sessions_on_one_file_share_the_user_and_the_numbering(make: MakeSession, save_path: Path) -> None:
    """Each session gets its own index, and its previous session is the one with the preceding index."""
    first_session, second_session = make(save_path=save_path), make(save_path=save_path)
    contexts = [
        first_session.get_session_context(event_id(1)),
        second_session.get_session_context(event_id(2)),
    ]
    first_session.start_new_session()
    contexts.append(first_session.get_session_context(event_id(3)))
    assert len({context.user_id for context in contexts}) == 1
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert [context.previous_session_id for context in contexts[1:]] == [c.session_id for c in contexts[:-1]]


def test_older_session_never_overwrites_a_newer_one(make: MakeSession, save_path: Path) -> None:
    """Closing session 1 does not overwrite session 2, which another process has saved."""
    first_session, second_session = make(save_path=save_path), make(save_path=save_path)
    first_session.get_session_context(event_id(1))
    newer = second_session.get_session_context(event_id(2))
    first_session.get_session_context(event_id(3))
    first_session.close()
    assert load_from_disk(save_path).session_id == newer.session_id
    assert first_session.save_error is None


# Failing stores


def test_failing_save_is_logged_once_and_retried(
    make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A series of failures is logged as one warning, and the session stays in memory until a later tick saves it."""
    caplog.set_level(logging.INFO)
    store = FailingStore()
    session = make(store=store)
    error = OSError(errno.ENOSPC, "No space left on device")
    store.save_error = error
    contexts = []
    for number in (1, 2, 3):
        contexts.append(session.get_session_context(event_id(number)))
        clock.advance(600)
        session.tick()
        session.set_background(bool(number % 2))
    assert session.save_error is error
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert [context.previous_session_id for context in contexts[1:]] == [c.session_id for c in contexts[:-1]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text
    store.save_error = None
    session.tick()
    assert session.save_error is None
    saved = store.inner.load()
    assert saved is not None
    assert (saved.session_id, saved.session_index) == (contexts[-1].session_id, 3)
    assert caplog.records[-1].levelno == logging.INFO


def test_new_series_of_failures_is_logged_again(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """After a successful save, the next failure is logged as another warning."""
    store = FailingStore()
    session = make(store=store)
    for number in (1, 2):
        store.save_error = OSError(errno.EIO, "Input/output error")
        session.start_new_session()
        session.get_session_context(event_id(number))
        store.save_error = None
        session.tick()
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 2


def test_unreadable_file_is_never_overwritten(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """As long as the file cannot be read, it is not written to."""
    store = FailingStore()
    saved = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41)
    store.save(saved)
    store.load_error = PermissionError(errno.EACCES, "Permission denied")
    session = make(store=store)
    context = session.get_session_context(event_id(1))
    session.tick()
    session.close()
    assert store.inner.load() == saved
    assert isinstance(session.save_error, PermissionError)
    assert context.user_id != saved.user_id
    assert len(caplog.records) == 1


def test_user_is_restored_when_the_file_becomes_readable(make: MakeSession) -> None:
    """If the file becomes readable before the first event, neither the user nor the index is lost."""
    store = FailingStore()
    store.save(Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41))
    store.load_error = OSError(errno.EMFILE, "Too many open files")
    session = make(store=store)
    store.load_error = None
    session.tick()
    assert session.save_error is None
    assert session.user_id == event_id(7)
    context = session.get_session_context(event_id(1))
    assert (context.user_id, context.session_index, context.previous_session_id) == (event_id(7), 42, event_id(8))


def test_session_of_a_provisional_user_is_not_saved(make: MakeSession) -> None:
    """A session begun while the file is unreadable keeps its provisional user; the next session uses the saved user."""
    store = FailingStore()
    saved = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41)
    store.save(saved)
    store.load_error = OSError(errno.EMFILE, "Too many open files")
    session = make(store=store)
    first = session.get_session_context(event_id(1))
    store.load_error = None
    session.tick()
    assert session.get_session_context(event_id(2)).user_id == first.user_id == session.user_id
    assert store.inner.load() == saved
    session.start_new_session()
    assert session.user_id == saved.user_id
    assert session.get_session_context(event_id(3)).session_index == 42


def test_any_exception_from_a_store_is_tolerated(make: MakeSession) -> None:
    """An event succeeds even if a custom store raises an exception of any type."""
    store = FailingStore()
    store.lock_error = RuntimeError("keyring is locked")
    session = make(store=store)
    assert session.get_session_context(event_id(1)).session_index == 1
    assert str(session.save_error) == "keyring is locked"
    session.close()


def test_save_raises_the_stores_error(make: MakeSession) -> None:
    """Only save() raises the store's exception."""
    store = FailingStore()
    session = make(store=store)
    session.get_session_context(event_id(1))
    error = OSError(errno.EROFS, "Read-only file system")
    store.save_error = error
    with pytest.raises(OSError, match="Read-only file system") as caught:
        session.save()
    assert caught.value is error
    store.save_error = None
    session.save()
    assert session.save_error is None


@pytest.mark.skipif(os.name != "posix", reason="Windows does not sync folders")
def test_file_is_saved_again_if_its_folder_was_not_synced(
    make: MakeSession, save_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the folder was not synced, a power failure could undo the save, so the next tick saves again."""
    session = make(save_path=save_path)
    fsync, failing, synced = os.fsync, True, 0

    def sync(descriptor: int) -> None:
        nonlocal synced
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            synced += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    context = session.get_session_context(event_id(1))
    assert load_from_disk(save_path).session_id == context.session_id
    assert session.save_error is not None
    failing = False
    session.tick()
    assert synced == 1
    assert session.save_error is None


@pytest.mark.skipif(os.name != "posix", reason="Windows does not allow removing the current folder")
def test_missing_current_folder_does_not_raise(
    tmp_path: Path, make: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the path is relative and the current folder was deleted, save_error is set, and saving is retried."""
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    session = make(save_path="session.xml")
    assert session.get_session_context(event_id(1)).session_index == 1
    assert isinstance(session.save_error, FileNotFoundError)
    monkeypatch.chdir(tmp_path)
    session.tick()
    assert session.save_error is None
    assert load_from_disk(tmp_path / "session.xml").session_id == session.session_id


def test_save_recreates_a_deleted_file(make: MakeSession, save_path: Path) -> None:
    """A file that is deleted during a session is recreated with the same user."""
    session = make(save_path=save_path)
    save_path.unlink()
    session.save()
    assert load_from_disk(save_path) == Snapshot(user_id=session.user_id)
    context = session.get_session_context(event_id(1))
    save_path.unlink()
    session.save()
    assert load_from_disk(save_path).session_id == context.session_id


def test_hung_lock_holder_delays_a_call_by_one_second(make: MakeSession, save_path: Path) -> None:
    """While the lock is held, save_error is a TimeoutError; the session continues in memory and is saved later."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        context = session.get_session_context(event_id(1))
    assert isinstance(session.save_error, TimeoutError)
    assert context.session_index == 1
    session.tick()
    assert session.save_error is None
    assert load_from_disk(save_path).session_id == context.session_id


def test_index_follows_the_file_while_its_lock_is_held(make: MakeSession, save_path: Path) -> None:
    """Even without the lock, a session reads the indexes that other sessions have saved, and does not reuse them."""
    session, other = make(save_path=save_path), make(save_path=save_path)
    for number in range(3):
        other.start_new_session()
        newest = other.get_session_context(event_id(number))
    with XmlStore(save_path).lock():
        context = session.get_session_context(event_id(9))
    assert isinstance(session.save_error, TimeoutError)
    assert (context.session_index, context.previous_session_id) == (4, newest.session_id)
    session.tick()
    assert load_from_disk(save_path).session_id == context.session_id


def test_file_never_contains_a_duplicate_index(make: MakeSession, save_path: Path) -> None:
    """If two sessions get the same index while the lock is held, one is saved, and later sessions get new indexes."""
    sessions = [make(save_path=save_path) for _ in range(2)]
    with XmlStore(save_path).lock():
        first = [session.get_session_context(event_id(1)) for session in sessions]
    for session in sessions:
        session.tick()
        assert session.save_error is None
        assert load_from_disk(save_path).session_id == first[0].session_id
        session.start_new_session()
    second = [session.get_session_context(event_id(2)) for session in sessions]
    assert [context.session_index for context in (*first, *second)] == [1, 1, 2, 3]
    assert [context.previous_session_id for context in second] == [first[0].session_id, second[0].session_id]


# Corrupt files


def test_corrupt_file_is_kept_and_the_user_recovered_from_the_backup(
    make: MakeSession, save_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The corrupt file is kept, the user and index are recovered, and one warning gives the file and the reason."""
    with make(save_path=save_path) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))
    corrupt = save_path.read_bytes()[:-30]
    save_path.write_bytes(corrupt)
    after = make(save_path=save_path)
    assert after.user_id == session.user_id
    assert save_path.with_name("session.xml.corrupt").read_bytes() == corrupt
    error = after.save_error
    assert isinstance(error, CorruptSaveFileError)
    assert (error.path, error.recovered is not None) == (str(save_path), True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(save_path) in caplog.text
    assert load_from_disk(save_path).user_id == session.user_id
    context = after.get_session_context(event_id(3))
    assert (context.session_index, context.previous_session_id) == (2, session.session_id)
    assert after.save_error is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX FIFOs")
def test_user_comes_from_the_backup_while_the_file_is_unreadable(make: MakeSession, save_path: Path) -> None:
    """A file that cannot be read is left alone, and the user is read from the backup."""
    with make(save_path=save_path) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))
    save_path.unlink()
    os.mkfifo(save_path)
    after = make(save_path=save_path)
    assert isinstance(after.save_error, OSError)
    assert after.user_id == session.user_id
    assert after.get_session_context(event_id(3)).previous_session_id == session.session_id
    assert save_path.is_fifo()


def test_user_comes_from_the_backup_while_a_corrupt_file_cannot_be_replaced(make: MakeSession, save_path: Path) -> None:
    """If the lock cannot be acquired, the corrupt file stays in place, and the user is read from the backup."""
    with make(save_path=save_path) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))
    save_path.write_bytes(b"corrupt")
    save_path.with_name("session.xml.lock").unlink()
    save_path.with_name("session.xml.lock").mkdir()
    after = make(save_path=save_path)
    assert isinstance(after.save_error, OSError)
    assert after.user_id == session.user_id
    assert save_path.read_bytes() == b"corrupt"


def test_user_id_is_recovered_from_a_truncated_file(make: MakeSession, save_path: Path) -> None:
    """Without a backup, the user id is read from the truncated file itself."""
    with make(save_path=save_path) as session:
        pass
    save_path.write_bytes(save_path.read_bytes()[:-10])
    assert not save_path.with_name("session.xml.bak").exists()
    assert make(save_path=save_path).user_id == session.user_id


def test_unrecoverable_file_results_in_a_new_user(make: MakeSession, save_path: Path) -> None:
    """If no user id can be recovered, a new user is created, and the corrupt file is kept."""
    save_path.write_bytes(b"\0" * 100)
    session = make(save_path=save_path)
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"\0" * 100
    assert session.get_session_context(event_id(1)).session_index == 1
    assert load_from_disk(save_path).user_id == session.user_id


def test_file_corrupted_during_a_session_is_repaired(make: MakeSession, save_path: Path) -> None:
    """The next session's first event sets the corrupt file aside and saves the user and index in a new file."""
    session = make(save_path=save_path)
    first = session.get_session_context(event_id(1))
    save_path.write_bytes(b"not XML")
    save_path.with_name("session.xml.bak").unlink()
    session.start_new_session()
    second = session.get_session_context(event_id(2))
    assert (second.user_id, second.session_index, second.previous_session_id) == (first.user_id, 2, first.session_id)
    assert load_from_disk(save_path).session_id == second.session_id
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"not XML"


def test_indexing_a_pending_session_is_idempotent(store: MemoryStore) -> None:
    """A pending session that is numbered twice keeps its index; a session that is no longer pending is not saved."""
    logger = logging.getLogger(__name__)
    ledger = Ledger(store, logger, Callbacks(logger))
    now, first_id = datetime.now(UTC), ledger.pending_id
    numbered = [ledger.number(first_id, now, event_id(number), now, background=False) for number in (1, 2)]
    assert [(record.session_id, record.session_index) for record in numbered] == [(first_id, 1), (first_id, 1)]
    assert ledger.newest == store.load() == numbered[1]
    ledger.pending_id = event_id(3)
    ledger.number(event_id(4), now, event_id(5), now, background=False)
    assert ledger.newest == store.load() == numbered[1]


def test_store_recovers_only_with_the_newest_session(make: MakeSession) -> None:
    """After another thread succeeds in saving an older session, the newest session is saved as well."""
    store = FailingStore()
    session = make(store=store)
    session.get_session_context(event_id(1))
    before = store.load()
    session.start_new_session()
    store.save_error = OSError(errno.ENOSPC, "disk full")
    newest = session.get_session_context(event_id(2))
    store.save_error = None
    session._ledger.save(before)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as another thread would
    assert session.save_error is None
    saved = store.load()
    assert saved is not None
    assert saved.session_id == newest.session_id


@pytest.mark.parametrize("call", ["event", "toggle"])
def test_reentrant_call_during_a_renewal_uses_no_extra_index(call: str, make: MakeSession, clock: ManualClock) -> None:
    """An event or focus change in a signal handler that interrupts a save uses the same new session and index."""

    class ReentrantStore(MemoryStore):
        """A store that makes a re-entrant call when it saves the second session."""

        def save(self, snapshot: Snapshot) -> None:
            super().save(snapshot)
            if snapshot.session_index == 2 and not interrupted:
                interrupted.append(True)
                if call == "event":
                    session.get_session_context(event_id(2))
                else:
                    session.set_background(True)

    interrupted: list[bool] = []
    session = make(store=ReentrantStore())
    session.get_session_context(event_id(1))
    clock.advance(600)
    context = session.get_session_context(event_id(3))
    assert (context.session_index, context.event_index) == (2, 2 if call == "event" else 1)
    session.start_new_session()
    assert session.get_session_context(event_id(4)).session_index == 3
