"""`ClientSession.forget_user`: a new user, of whom nothing old remains."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, MemoryStore, SessionClosedError, SessionState, XmlStore
from client_session.graph import EndReason
from client_session.testing import ManualClock, ManualScheduler, check_invariants
from event_ids import event_id
from torture.reentrancy import call_at_point

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionContext, SessionSummary
    from client_session_persistence import Snapshot
    from conftest import MakeSession


def test_new_user_has_no_past(make: MakeSession, store: MemoryStore) -> None:
    """The session ends, and the next one has a new user, index 1, and no previous session."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    old = [session.get_session_context(event_id(1))]
    session.start_new_session()
    old.append(session.get_session_context(event_id(2)))
    session.forget_user()
    assert [summary.reason for summary in ended] == [EndReason.NEW_SESSION, EndReason.FORGET]
    assert session.session_index is None
    new = session.get_session_context(event_id(3))
    assert (new.session_index, new.previous_session_id, new.event_index) == (1, None, 1)
    assert new.user_id not in {context.user_id for context in old}
    assert new.session_id not in {context.session_id for context in old}
    assert session.user_id == new.user_id
    saved = store.load()
    assert saved is not None
    assert (saved.user_id, saved.session_id) == (new.user_id, new.session_id)


def test_pending_session_belongs_to_the_new_user(make: MakeSession, store: MemoryStore) -> None:
    """Forgetting also replaces the id of a pending session, and saves the new user at once."""
    session = make()
    before = (session.user_id, session.session_id)
    session.forget_user()
    assert session.user_id != before[0]
    assert session.session_id != before[1]
    saved = store.load()
    assert saved is not None
    assert (saved.user_id, saved.session_id) == (session.user_id, None)


def test_focus_and_checker_are_kept(make: MakeSession) -> None:
    """Forgetting changes neither the state nor the checker."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    session.stop_checker()
    session.forget_user()
    assert (session.state, session.checker_running) == (SessionState.BACKGROUND_ACTIVE, False)


def test_empty_session_is_counted_for_the_new_user(make: MakeSession) -> None:
    """With count_empty_sessions, the new user's first session is counted at once."""
    session = make(count_empty_sessions=True)
    old = session.user_id
    for number in (1, 2):
        session.forget_user()
        assert session.session_index == 1
        assert session.user_id != old
        assert session.get_session_context(event_id(number)).session_index == 1


def test_file_contains_nothing_of_the_old_user(make: MakeSession, save_path: Path) -> None:
    """With a save file, no file in the folder contains an id of the old user."""
    session = make(save_path=save_path, continue_on_restart=True)
    old = [session.get_session_context(event_id(1))]
    session.start_new_session()
    old.append(session.get_session_context(event_id(2)))
    session.forget_user()
    session.save()
    content = b"".join(path.read_bytes() for path in save_path.parent.iterdir() if path.is_file())
    assert session.user_id.encode() in content
    for context in old:
        assert context.user_id.encode() not in content
        assert context.session_id.encode() not in content
    assert event_id(2).encode() not in content


class FailingStore(MemoryStore):
    """A store that cannot be written to while ``error`` is set."""

    error: OSError | None = None

    def replace_user(self, snapshot: Snapshot) -> None:
        """Raise the error, if any."""
        if self.error is not None:
            raise self.error
        self.save(snapshot)


def test_failure_is_raised_and_changes_nothing(make: MakeSession) -> None:
    """If the store fails, the error is raised, and the session continues with the old user."""
    store = FailingStore()
    session = make(store=store)
    first = session.get_session_context(event_id(1))
    store.error = OSError(errno.ENOSPC, "disk full")
    with pytest.raises(OSError, match="disk full"):
        session.forget_user()
    second = session.get_session_context(event_id(2))
    assert (second.user_id, second.session_id, second.event_index) == (first.user_id, first.session_id, 2)
    assert session.explain()[0].begun is not None
    store.error = None
    session.forget_user()
    assert session.get_session_context(event_id(3)).user_id != first.user_id


class BareStore:
    """An embedder's store without ``replace_user``."""

    def __init__(self) -> None:
        """Store the snapshot in memory."""
        self._store = MemoryStore()
        self.load, self.save, self.lock = self._store.load, self._store.save, self._store.lock


def test_store_without_replace_user_saves_the_new_user(make: MakeSession) -> None:
    """An embedder's store needs no ``replace_user``: the new user is saved like any other snapshot."""
    store = BareStore()
    session = make(store=store)
    old = session.get_session_context(event_id(1))
    session.forget_user()
    saved = store.load()
    assert saved is not None
    assert saved.user_id == session.user_id != old.user_id
    assert saved.session_id is None


def test_other_sessions_finish_and_adopt_the_new_user(
    make: MakeSession, store: MemoryStore, clock: ManualClock
) -> None:
    """A session elsewhere keeps its user until it ends, never saves the old user, and then adopts the new one."""
    session, other = make(), make()
    first = other.get_session_context(event_id(1))
    session.forget_user()
    second = other.get_session_context(event_id(2))
    assert (second.session_id, second.user_id) == (first.session_id, first.user_id)
    other.save()
    saved = store.load()
    assert saved is not None
    assert (saved.user_id, saved.session_id) == (session.user_id, None)
    clock.advance(600)
    third = other.get_session_context(event_id(3))
    assert (third.user_id, third.session_index, third.previous_session_id) == (session.user_id, 1, None)


def test_closed_session_cannot_forget(session: ClientSession) -> None:
    """After `close`, `forget_user` raises SessionClosedError."""
    session.close()
    with pytest.raises(SessionClosedError, match="forget_user was called on a closed session"):
        session.forget_user()


def test_interrupted_call_completes_once_the_store_has_the_new_user(
    make: MakeSession, scheduler: ManualScheduler
) -> None:
    """If an exception from outside arrives after the store replaced the user, the session follows the store."""

    class InterruptedStore(MemoryStore):
        def replace_user(self, snapshot: Snapshot) -> None:
            self.save(snapshot)
            raise KeyboardInterrupt

    store = InterruptedStore()
    session = make(store=store)
    old = session.get_session_context(event_id(1))
    with pytest.raises(KeyboardInterrupt):
        session.forget_user()
    saved = store.load()
    assert saved is not None
    assert session.user_id == saved.user_id != old.user_id
    assert session.get_session_context(event_id(2)).session_index == 1
    assert session in scheduler


def test_real_file_is_replaced_for_later_runs(save_path: Path) -> None:
    """The next run has the new user."""
    with ClientSession(save_path) as session:
        session.get_session_context(event_id(1))
        session.forget_user()
    saved = XmlStore(save_path).load()
    assert saved is not None
    with ClientSession(save_path) as again:
        assert again.user_id == saved.user_id == session.user_id
        assert again.get_session_context(event_id(2)).session_index == 1


def test_save_during_the_replacement_does_not_make_it_fail(make: MakeSession, save_path: Path) -> None:
    """If a signal handler saves at any point while the user is being replaced, the user is replaced all the same."""
    points = 1
    for point in itertools.count():
        if point >= points:
            break
        session = make(save_path=save_path.with_name(f"{point}.xml"))
        old = session.get_session_context(event_id(1))
        points = call_at_point(session.forget_user, session.save, point)
        assert session.user_id != old.user_id
        assert old.session_id.encode() not in b"".join(
            path.read_bytes() for path in save_path.parent.glob(f"{point}.*")
        )


@pytest.mark.parametrize("name", ["event", "forget", "tick", "new session"])
def test_calls_at_each_point_of_forgetting_lose_nothing(name: str) -> None:
    """If a signal handler calls the session at any point, no number is lost, and the old user is gone."""
    points = 1
    for point in itertools.count():
        if point >= points:
            break
        store = MemoryStore()
        session = ClientSession(store=store, clock=ManualClock(), scheduler=ManualScheduler())
        contexts = [session.get_session_context(event_id(0))]

        def track(session: ClientSession = session, contexts: list[SessionContext] = contexts) -> None:
            contexts.append(session.get_session_context(event_id(len(contexts))))

        calls: dict[str, Callable[[], object]] = {
            "event": track,
            "forget": session.forget_user,
            "tick": session.tick,
            "new session": session.start_new_session,
        }
        points = call_at_point(session.forget_user, calls[name], point)
        for _ in range(2):
            track()
        for user in {context.user_id for context in contexts}:
            check_invariants([context for context in contexts if context.user_id == user])
        saved = store.load()
        assert saved is not None
        assert contexts[-1].user_id == saved.user_id != contexts[0].user_id
