"""The reprs of sessions and stores: short, without I/O, locks or secrets, and harmless at any time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session.testing.states import ManualStates
from client_session.visitors import AsyncVisitorSessions, VisitorSessions
from client_session_persistence import MemoryStates, MemoryStore, Snapshot
from event_ids import event_id

if TYPE_CHECKING:
    from conftest import MakeSession


def test_session_shows_its_state_and_numbers(make: MakeSession, clock: ManualClock) -> None:
    """The attributes have their values of the moment; a session that is over is shown as it was until it is checked."""
    session = make()
    assert repr(session) == "<ClientSession foreground-active session_index=None event_index=0>"
    session.get_session_context(event_id(1))
    session.get_session_context(event_id(2))
    session.set_background(True)
    clock.advance(10_000)
    assert repr(session) == "<ClientSession background-active session_index=1 event_index=2>"
    session.tick()
    assert repr(session) == "<ClientSession expired-checker-stopped session_index=None event_index=0>"
    session.close()
    assert repr(session) == "<ClientSession expired-checker-stopped session_index=None event_index=0 closed>"


def test_session_is_shown_while_it_is_locked() -> None:
    """In a callback, and while another thread is saving, the repr neither waits nor reads the clock or the store."""

    class StuckClock(ManualClock):
        """A clock that fails once it is stuck."""

        is_stuck = False

        def monotonic(self) -> float:
            """Return the time, or fail."""
            assert not self.is_stuck
            return super().monotonic()

    class SlowStore(MemoryStore):
        """A store that waits while it saves."""

        def save(self, snapshot: Any) -> None:  # noqa: ANN401  # a snapshot
            """Save once the session has been shown."""
            saving.set()
            assert shown.wait(60)
            super().save(snapshot)

    saving, shown = threading.Event(), threading.Event()
    shown.set()
    clock, seen = StuckClock(), list[str]()
    session = ClientSession(
        store=SlowStore(),
        clock=clock,
        scheduler=ManualScheduler(),
        on_session_start=lambda _: seen.append(repr(session)),
    )
    saving.clear()
    shown.clear()
    thread = threading.Thread(target=session.get_session_context, args=(event_id(1),))
    thread.start()
    assert saving.wait(60)
    clock.is_stuck = True
    assert repr(session) == "<ClientSession foreground-active session_index=None event_index=0>"
    clock.is_stuck = False
    shown.set()
    thread.join()
    assert seen == ["<ClientSession foreground-active session_index=1 event_index=1>"]


def test_visitors_show_their_store_but_no_keys(clock: ManualClock) -> None:
    """Neither a visitor's key, which may be the user id itself, nor the secret is shown."""
    states = ManualStates(clock)
    for sessions in (
        VisitorSessions(states, namespace="shop", key_secret=b"secret"),
        AsyncVisitorSessions(states, namespace="shop", key_secret=b"secret"),
    ):
        name = type(sessions).__name__
        assert repr(sessions) == f"{name}({states!r}, namespace='shop')"
        assert repr(sessions.of(event_id(1))) == f"<{name.removesuffix('s')} namespace='shop'>"


def test_stores_in_memory_show_little() -> None:
    """A store shows the number of its session, and visitors' states show how many there are."""
    store = MemoryStore()
    assert repr(store) == "<MemoryStore session_index=None>"
    store.save(Snapshot(user_id=event_id(7), session_index=2))
    assert repr(store) == "<MemoryStore session_index=2>"
    states = MemoryStates()
    states.swap("anna", None, b"value", 60)
    assert repr(states) == "<MemoryStates values=1>"


def test_states_on_a_server_show_only_the_kind_of_client() -> None:
    """A client's own repr may show its password."""
    redis = pytest.importorskip("redis.asyncio", reason="needs redis")
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="needs psycopg_pool")
    from client_session_persistence import PostgresStates, RedisStates  # noqa: PLC0415  # the clients may be missing

    assert repr(RedisStates(redis.Redis(password="secret"))) == "RedisStates(<Redis>)"  # noqa: S106  # not a real one
    pool = psycopg_pool.ConnectionPool("password=secret", open=False)
    assert repr(PostgresStates(pool)) == "PostgresStates(<ConnectionPool>)"
