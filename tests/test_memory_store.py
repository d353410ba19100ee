"""The store that forgets."""

from __future__ import annotations

from client_session_persistence import MemoryStore, Snapshot
from event_ids import event_id


def test_keeps_what_it_is_given() -> None:
    """Nothing at first, then the last snapshot."""
    store = MemoryStore()
    assert store.load() is None
    for number in (1, 2):
        store.save(Snapshot(user_id=event_id(number)))
        assert store.load() == Snapshot(user_id=event_id(number))


def test_its_lock_can_be_entered_again() -> None:
    """Reading, deciding and saving happen within one lock, and saving locks too."""
    store = MemoryStore()
    with store.lock(), store.lock():
        store.save(Snapshot(user_id=event_id(1)))
    assert store.load() is not None
