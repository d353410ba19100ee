"""A store that keeps its snapshot in memory."""

from __future__ import annotations

from client_session_persistence import MemoryStore, Snapshot
from event_ids import event_id


def test_load_returns_the_last_snapshot() -> None:
    """A new store is empty; after a save, load() returns the latest snapshot."""
    store = MemoryStore()
    assert store.load() is None
    for number in (1, 2):
        store.save(Snapshot(user_id=event_id(number)))
        assert store.load() == Snapshot(user_id=event_id(number))


def test_lock_is_reentrant() -> None:
    """A caller that already holds the lock can save, although saving also acquires the lock."""
    store = MemoryStore()
    with store.lock(), store.lock():
        store.save(Snapshot(user_id=event_id(1)))
    assert store.load() is not None
