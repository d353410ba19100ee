"""The session and its save file: when it is written, what a restart finds, and what a failing file costs (nothing)."""

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


def on_disk(path: Path) -> Snapshot:
    """Return what a save file holds."""
    return loads(path.read_bytes())


class FailingStore:
    """A store whose system calls fail while it is told so, over a real one."""

    def __init__(self) -> None:
        """Start working, and empty."""
        self.inner = MemoryStore()
        self.fail_load: Exception | None = None
        self.fail_save: Exception | None = None
        self.fail_lock: Exception | None = None

    def load(self) -> Snapshot | None:
        """Load, or fail."""
        if self.fail_load:
            raise self.fail_load
        return self.inner.load()

    def save(self, snapshot: Snapshot) -> None:
        """Save, or fail."""
        if self.fail_save:
            raise self.fail_save
        self.inner.save(snapshot)

    def lock(self) -> AbstractContextManager[object]:
        """Lock, or fail."""
        return self._locked()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self.fail_lock:
            raise self.fail_lock
        with self.inner.lock():
            yield


# When it is written


def test_the_first_run_writes_the_user_id_alone(make: MakeSession, save_path: Path) -> None:
    """Construction saves the user, and no session."""
    session = make(save_path=save_path)
    assert on_disk(save_path) == Snapshot(user_id=session.user_id)
    assert b"sessionId" not in save_path.read_bytes()


def test_parent_folders_are_made(make: MakeSession, tmp_path: Path) -> None:
    """A save path in folders that do not exist yet is fine."""
    path = tmp_path / "a" / "b" / "session.xml"
    session = make(save_path=path)
    assert on_disk(path).user_id == session.user_id


def test_a_session_is_written_at_its_first_event(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """The file holds a session from its first event on, and is not written again for later ones."""
    session = make(save_path=save_path)
    clock.advance(10)
    context = session.get_session_context(event_id(1))
    assert on_disk(save_path) == Snapshot(
        user_id=session.user_id,
        session_id=context.session_id,
        session_index=1,
        first_event_id=event_id(1),
        first_event_timestamp=clock.now(),
        event_index=1,
        last_activity=clock.now(),
    )
    before = save_path.stat()
    session.get_session_context(event_id(2))
    session.set_background(True)
    session.tick()
    after = save_path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("write", ["save", "close"])
def test_save_and_close_write_how_far_it_came(
    make: MakeSession, save_path: Path, clock: ManualClock, write: str
) -> None:
    """The event count and the last activity, by the wall clock, are brought up to date."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    clock.advance(50)
    session.get_session_context(event_id(2))
    last = clock.now()
    clock.advance(20)
    getattr(session, write)()
    assert on_disk(save_path).event_index == 2
    assert on_disk(save_path).last_activity == last


def test_a_pending_session_is_never_written(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """After an expiry the file keeps the last session that had events, with its final count."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    last = session.get_session_context(event_id(2))
    clock.advance(600)
    session.tick()
    session.save()
    session.close()
    assert on_disk(save_path).session_id == last.session_id
    assert on_disk(save_path).event_index == 2


@pytest.mark.parametrize("finder", ["tick", "toggle"])
def test_unsaved_activity_is_written_if_a_restart_may_need_it(
    make: MakeSession, save_path: Path, clock: ManualClock, finder: str
) -> None:
    """With continue_on_restart, a tick or a toggle that finds unsaved activity saves it; without, it does not."""
    for continues in (True, False):
        session = make(save_path=save_path, continue_on_restart=continues)
        session.start_new_session()
        session.get_session_context(event_id(1))
        clock.advance(50)
        session.get_session_context(event_id(2))
        clock.advance(15)
        if finder == "tick":
            session.tick()
        else:
            session.set_background(True)
        assert on_disk(save_path).event_index == (2 if continues else 1)
        session.close()


def test_counted_empty_sessions_are_saved(make: MakeSession, save_path: Path, clock: ManualClock) -> None:
    """With count_empty_sessions, construction and expiry write a session without events, as .NET does."""
    session = make(save_path=save_path, count_empty_sessions=True)
    saved = on_disk(save_path)
    assert (saved.session_id, saved.session_index, saved.first_event_id) == (session.session_id, 1, None)
    clock.advance(600)
    session.tick()
    assert on_disk(save_path).session_index == 2
    assert on_disk(save_path).previous_session_id == saved.session_id
    session.get_session_context(event_id(1))
    assert on_disk(save_path).first_event_id == event_id(1)


# What a restart finds


def test_dotnets_file_is_gone_on_with(make: MakeSession, save_path: Path, dotnet_file: Path) -> None:
    """A save file of the .NET tracker: the same user, the index going on, the previous session its own."""
    save_path.write_bytes(dotnet_file.read_bytes())
    before = on_disk(save_path)
    context = make(save_path=save_path).get_session_context(event_id(1))
    assert context.user_id == before.user_id
    assert context.session_index == before.session_index + 1
    assert context.previous_session_id == before.session_id


@pytest.mark.parametrize(
    ("away", "continues"),
    [(timedelta(0), True), (timedelta(seconds=599.999), True), (timedelta(seconds=600), False)],
)
def test_a_restart_in_time_goes_on(make: MakeSession, clock: ManualClock, away: timedelta, *, continues: bool) -> None:
    """With continue_on_restart, a session goes on if its last activity is less than the foreground timeout ago."""
    session = make(continue_on_restart=True)
    first = session.get_session_context(event_id(1))
    session.close()
    clock.advance(away.total_seconds())
    after = make(continue_on_restart=True)
    assert (after.session_id == first.session_id) is continues
    second = after.get_session_context(event_id(2))
    assert (second.session_id == first.session_id) is continues
    assert (second.session_index, second.event_index) == ((1, 2) if continues else (2, 1))


def test_a_continued_session_expires_as_if_nothing_had_happened(make: MakeSession, clock: ManualClock) -> None:
    """The time before the restart counts."""
    with make(continue_on_restart=True) as session:
        session.get_session_context(event_id(1))
    clock.advance(400)
    assert make(continue_on_restart=True).expires_in == 200


@pytest.mark.parametrize("end", ["new-session", "shorter timeout", "background timeout"])
def test_a_session_that_ended_is_not_continued(make: MakeSession, clock: ManualClock, end: str) -> None:
    """What was told to have ended stays so, though a restart comes within the foreground timeout."""
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


def test_activity_in_the_future_means_a_new_session(make: MakeSession, clock: ManualClock) -> None:
    """A wall clock that was set back between two runs proves nothing about the gap."""
    with make(continue_on_restart=True) as session:
        first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now() - timedelta(seconds=5))
    assert make(continue_on_restart=True).get_session_context(event_id(2)).session_id != first.session_id


def test_the_saved_activity_follows_a_wall_clock_that_was_set(make: MakeSession, clock: ManualClock) -> None:
    """A device that learns the date after its first event continues its session at a restart."""
    session = make(continue_on_restart=True)
    first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now() + timedelta(days=20_000))
    clock.advance(30)
    session.close()
    assert make(continue_on_restart=True).get_session_context(event_id(2)).session_id == first.session_id


def test_without_the_option_every_start_is_a_new_session(make: MakeSession) -> None:
    """continue_on_restart is off unless asked for."""
    with make() as session:
        first = session.get_session_context(event_id(1))
    second = make().get_session_context(event_id(2))
    assert (second.session_index, second.previous_session_id) == (2, first.session_id)


# Shared files


def test_two_sessions_on_one_file_share_user_and_numbers(make: MakeSession, save_path: Path) -> None:
    """Each session gets its own index, and a previous session that had it."""
    one, two = make(save_path=save_path), make(save_path=save_path)
    contexts = [
        one.get_session_context(event_id(1)),
        two.get_session_context(event_id(2)),
    ]
    one.start_new_session()
    contexts.append(one.get_session_context(event_id(3)))
    assert len({context.user_id for context in contexts}) == 1
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert [context.previous_session_id for context in contexts[1:]] == [c.session_id for c in contexts[:-1]]


def test_an_older_session_never_overwrites_a_newer_one(make: MakeSession, save_path: Path) -> None:
    """Closing session 1 leaves session 2 of another process in the file."""
    one, two = make(save_path=save_path), make(save_path=save_path)
    one.get_session_context(event_id(1))
    newer = two.get_session_context(event_id(2))
    one.get_session_context(event_id(3))
    one.close()
    assert on_disk(save_path).session_id == newer.session_id
    assert one.save_error is None


# Never in the way


def test_a_failing_save_costs_nothing_but_a_warning(
    make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The session goes on in memory, with one warning for the streak, and is saved at the first tick that can."""
    caplog.set_level(logging.INFO)
    store = FailingStore()
    session = make(store=store)
    error = OSError(errno.ENOSPC, "No space left on device")
    store.fail_save = error
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
    store.fail_save = None
    session.tick()
    assert session.save_error is None
    saved = store.inner.load()
    assert saved is not None
    assert (saved.session_id, saved.session_index) == (contexts[-1].session_id, 3)
    assert caplog.records[-1].levelno == logging.INFO


def test_a_second_streak_warns_again(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each streak."""
    store = FailingStore()
    session = make(store=store)
    for number in (1, 2):
        store.fail_save = OSError(errno.EIO, "Input/output error")
        session.start_new_session()
        session.get_session_context(event_id(number))
        store.fail_save = None
        session.tick()
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 2


def test_a_file_that_cannot_be_read_is_never_overwritten(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """Until it can be read, nothing is written; then its user and index go on."""
    store = FailingStore()
    kept = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41)
    store.save(kept)
    store.fail_load = PermissionError(errno.EACCES, "Permission denied")
    session = make(store=store)
    stranger = session.get_session_context(event_id(1))
    session.tick()
    session.close()
    assert store.inner.load() == kept
    assert isinstance(session.save_error, PermissionError)
    assert stranger.user_id != kept.user_id
    assert len(caplog.records) == 1


def test_a_file_that_can_be_read_again_gives_its_user(make: MakeSession) -> None:
    """A failure that passes before the first event costs neither user nor index."""
    store = FailingStore()
    store.save(Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41))
    store.fail_load = OSError(errno.EMFILE, "Too many open files")
    session = make(store=store)
    store.fail_load = None
    session.tick()
    assert session.save_error is None
    assert session.user_id == event_id(7)
    context = session.get_session_context(event_id(1))
    assert (context.user_id, context.session_index, context.previous_session_id) == (event_id(7), 42, event_id(8))


def test_a_session_under_a_provisional_user_is_left_out_of_the_file(make: MakeSession) -> None:
    """A session that began while the file could not be read keeps its user; the next one has the file's."""
    store = FailingStore()
    kept = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41)
    store.save(kept)
    store.fail_load = OSError(errno.EMFILE, "Too many open files")
    session = make(store=store)
    first = session.get_session_context(event_id(1))
    store.fail_load = None
    session.tick()
    assert session.get_session_context(event_id(2)).user_id == first.user_id == session.user_id
    assert store.inner.load() == kept
    session.start_new_session()
    assert session.user_id == kept.user_id
    assert session.get_session_context(event_id(3)).session_index == 42


def test_a_store_that_raises_anything_is_not_in_the_way(make: MakeSession) -> None:
    """A store of the embedder's own may fail in ways of its own."""
    store = FailingStore()
    store.fail_lock = RuntimeError("keyring is locked")
    session = make(store=store)
    assert session.get_session_context(event_id(1)).session_index == 1
    assert str(session.save_error) == "keyring is locked"
    session.close()


def test_save_raises_what_went_wrong(make: MakeSession) -> None:
    """save() alone tells by an exception, the store's own."""
    store = FailingStore()
    session = make(store=store)
    session.get_session_context(event_id(1))
    error = OSError(errno.EROFS, "Read-only file system")
    store.fail_save = error
    with pytest.raises(OSError, match="Read-only file system") as caught:
        session.save()
    assert caught.value is error
    store.fail_save = None
    session.save()
    assert session.save_error is None


@pytest.mark.skipif(os.name != "posix", reason="Windows syncs no folders")
def test_a_replaced_file_whose_folder_was_not_synced_is_saved_again(
    make: MakeSession, save_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is new, but may not survive a power cut: the next tick makes up for it."""
    session = make(save_path=save_path)
    real, failing, synced = os.fsync, True, 0

    def sync(descriptor: int) -> None:
        nonlocal synced
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            synced += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    context = session.get_session_context(event_id(1))
    assert on_disk(save_path).session_id == context.session_id
    assert session.save_error is not None
    failing = False
    session.tick()
    assert synced == 1
    assert session.save_error is None


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps a current folder")
def test_no_current_folder_is_no_exception(tmp_path: Path, make: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path in a current folder that was removed costs nothing but a warning."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    session = make(save_path="session.xml")
    assert session.get_session_context(event_id(1)).session_index == 1
    assert isinstance(session.save_error, FileNotFoundError)
    monkeypatch.chdir(tmp_path)
    session.tick()
    assert session.save_error is None
    assert on_disk(tmp_path / "session.xml").session_id == session.session_id


def test_save_creates_a_file_that_was_deleted(make: MakeSession, save_path: Path) -> None:
    """A file deleted under a running session is written again, with the same user."""
    session = make(save_path=save_path)
    save_path.unlink()
    session.save()
    assert on_disk(save_path) == Snapshot(user_id=session.user_id)
    context = session.get_session_context(event_id(1))
    save_path.unlink()
    session.save()
    assert on_disk(save_path).session_id == context.session_id


def test_a_hanging_lock_holder_delays_a_second(make: MakeSession, save_path: Path) -> None:
    """While another holds the lock, the session goes on in memory with TimeoutError; then it saves."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        context = session.get_session_context(event_id(1))
    assert isinstance(session.save_error, TimeoutError)
    assert context.session_index == 1
    session.tick()
    assert session.save_error is None
    assert on_disk(save_path).session_id == context.session_id


def test_a_number_follows_the_file_though_its_lock_is_held(make: MakeSession, save_path: Path) -> None:
    """What others saved since the last look is seen without the lock, so that no number is used again."""
    session, other = make(save_path=save_path), make(save_path=save_path)
    for number in range(3):
        other.start_new_session()
        newest = other.get_session_context(event_id(number))
    with XmlStore(save_path).lock():
        context = session.get_session_context(event_id(9))
    assert isinstance(session.save_error, TimeoutError)
    assert (context.session_index, context.previous_session_id) == (4, newest.session_id)
    session.tick()
    assert on_disk(save_path).session_id == context.session_id


def test_no_number_stands_twice_in_the_file(make: MakeSession, save_path: Path) -> None:
    """Of two sessions that got a number while the lock was held, one is saved; the next have numbers of their own."""
    sessions = [make(save_path=save_path) for _ in range(2)]
    with XmlStore(save_path).lock():
        first = [session.get_session_context(event_id(1)) for session in sessions]
    for session in sessions:
        session.tick()
        assert session.save_error is None
        assert on_disk(save_path).session_id == first[0].session_id
        session.start_new_session()
    second = [session.get_session_context(event_id(2)) for session in sessions]
    assert [context.session_index for context in (*first, *second)] == [1, 1, 2, 3]
    assert [context.previous_session_id for context in second] == [first[0].session_id, second[0].session_id]


# Corrupt files


def test_a_corrupt_file_is_kept_and_the_user_comes_back_from_the_backup(
    make: MakeSession, save_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The evidence stays as .corrupt, user and index go on, one warning names file and reason."""
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
    assert on_disk(save_path).user_id == session.user_id
    context = after.get_session_context(event_id(3))
    assert (context.session_index, context.previous_session_id) == (2, session.session_id)
    assert after.save_error is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a FIFO, as POSIX has them")
def test_while_the_file_cannot_be_read_the_user_is_the_backups(make: MakeSession, save_path: Path) -> None:
    """A file that is not to be read makes no new user where there is a backup, and is left alone."""
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


def test_while_a_corrupt_file_cannot_be_mended_the_user_is_the_backups(make: MakeSession, save_path: Path) -> None:
    """A lock that cannot be had keeps the ruin from being replaced, not the user from being known."""
    with make(save_path=save_path) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))
    save_path.write_bytes(b"ruin")
    save_path.with_name("session.xml.lock").unlink()
    save_path.with_name("session.xml.lock").mkdir()
    after = make(save_path=save_path)
    assert isinstance(after.save_error, OSError)
    assert after.user_id == session.user_id
    assert save_path.read_bytes() == b"ruin"


def test_without_a_backup_the_user_is_read_from_what_is_left(make: MakeSession, save_path: Path) -> None:
    """A truncated file that still shows its user id gives it."""
    with make(save_path=save_path) as session:
        pass
    save_path.write_bytes(save_path.read_bytes()[:-10])
    assert not save_path.with_name("session.xml.bak").exists()
    assert make(save_path=save_path).user_id == session.user_id


def test_an_unreadable_ruin_gives_a_new_user(make: MakeSession, save_path: Path) -> None:
    """With nothing to recover there is a new user, the ruin is kept, and the session works."""
    save_path.write_bytes(b"\0" * 100)
    session = make(save_path=save_path)
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"\0" * 100
    assert session.get_session_context(event_id(1)).session_index == 1
    assert on_disk(save_path).user_id == session.user_id


def test_a_file_that_goes_bad_under_a_running_session_is_mended(make: MakeSession, save_path: Path) -> None:
    """The next session's first event keeps the ruin, and writes user and index as the session knows them."""
    session = make(save_path=save_path)
    first = session.get_session_context(event_id(1))
    save_path.write_bytes(b"not XML")
    save_path.with_name("session.xml.bak").unlink()
    session.start_new_session()
    second = session.get_session_context(event_id(2))
    assert (second.user_id, second.session_index, second.previous_session_id) == (first.user_id, 2, first.session_id)
    assert on_disk(save_path).session_id == second.session_id
    assert save_path.with_name("session.xml.corrupt").read_bytes() == b"not XML"


def test_numbering_is_idempotent_per_pending_session(store: MemoryStore) -> None:
    """A decision that is made again gets the same number; a session that is no longer pending gets none."""
    logger = logging.getLogger(__name__)
    ledger = Ledger(store, logger, Callbacks(logger))
    moment, first_id = datetime.now(UTC), ledger.pending_id
    numbered = [ledger.number(first_id, moment, event_id(number), moment) for number in (1, 2)]
    assert [(record.session_id, record.session_index) for record in numbered] == [(first_id, 1), (first_id, 1)]
    assert ledger.newest == store.load() == numbered[1]
    ledger.pending_id = event_id(3)
    ledger.number(event_id(4), moment, event_id(5), moment)
    assert ledger.newest == store.load() == numbered[1]


def test_saving_an_older_session_heals_only_with_the_newest(make: MakeSession) -> None:
    """The store works again when it has the newest session, whichever a thread was about to save meanwhile."""
    store = FailingStore()
    session = make(store=store)
    session.get_session_context(event_id(1))
    before = store.load()
    session.start_new_session()
    store.fail_save = OSError(errno.ENOSPC, "disk full")
    newest = session.get_session_context(event_id(2))
    store.fail_save = None
    session._ledger.save(before)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what another thread would
    assert session.save_error is None
    kept = store.load()
    assert kept is not None
    assert kept.session_id == newest.session_id


@pytest.mark.parametrize("call", ["an event", "a toggle"])
def test_a_call_that_comes_between_a_renewal_uses_up_no_number(
    call: str, make: MakeSession, clock: ManualClock
) -> None:
    """A signal handler that calls the session amid an event's save, too, finds one next session, with one number."""

    class InterruptedStore(MemoryStore):
        """Is come between when it saves a second session."""

        def save(self, snapshot: Snapshot) -> None:
            super().save(snapshot)
            if snapshot.session_index == 2 and not interrupted:
                interrupted.append(True)
                if call == "an event":
                    session.get_session_context(event_id(2))
                else:
                    session.set_background(True)

    interrupted: list[bool] = []
    session = make(store=InterruptedStore())
    session.get_session_context(event_id(1))
    clock.advance(600)
    context = session.get_session_context(event_id(3))
    assert (context.session_index, context.event_index) == (2, 2 if call == "an event" else 1)
    session.start_new_session()
    assert session.get_session_context(event_id(4)).session_index == 3
