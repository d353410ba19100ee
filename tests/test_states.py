"""What all state stores promise, on real servers."""

from __future__ import annotations

import math
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg, and libpq", exc_type=ImportError)

from client_session_persistence import MemoryStates
from engines import stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client_session_persistence import StateStore

CENTURY = 36525 * 24 * 3600
MILLISECOND = 1000
"""The precision of Redis's expiry, in microseconds."""
LONG_KEY = "client-session/1/" + "a-namespace/" * 8 + "visitor"
ALL_BYTES = bytes(range(256))


@pytest.fixture(scope="session")
def servers() -> Iterator[stores.Servers]:
    """Yield the servers, which start when they are first needed."""
    running = stores.Servers()
    yield running
    running.close()


@pytest.fixture
def place(request: pytest.FixtureRequest, servers: stores.Servers, tmp_path: Path) -> int | Path:
    """Return the port of the running server that the test's kind of store needs, or else a path."""
    kind: str = request.getfixturevalue("kind")
    return tmp_path / "states.db" if kind in stores.EMBEDDED else servers.get(stores.server_name(kind)).port


@pytest.fixture(params=stores.parameters(*stores.EMBEDDED, *stores.BLOCKING, *stores.ASYNC))
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of store in turn."""
    name: str = request.param
    return name


@pytest.fixture
def store(kind: str, place: int | Path) -> Iterator[Any]:
    """Yield a store of each kind."""
    with stores.open_store(kind, place) as opened:
        yield opened


@pytest.fixture
def key() -> str:
    """Return a key that no other test uses."""
    return f"client-session/1/shop/{uuid.uuid4()}"


def now_us() -> int:
    """Return this machine's time in microseconds since 1970."""
    return time.time_ns() // 1000


def test_absent_value_is_read_as_none(store: StateStore, key: str) -> None:
    """A key that was never stored has no value, and deleting it has no effect."""
    assert store.read(key)[0] is None
    store.delete(key)
    assert store.read(key)[0] is None


def test_times_are_in_microseconds_since_1970(store: StateStore, key: str) -> None:
    """Reads and swaps return the store's time, which is this machine's in these tests."""
    times = [
        now_us(),
        store.read(key)[1],
        store.swap(key, None, b"1", 60)[2],
        store.swap(key, None, b"2", 60)[2],
        now_us(),
    ]
    assert times == sorted(times)
    assert all(type(each) is int for each in times)


def test_swap_replaces_the_expected_value(store: StateStore, key: str) -> None:
    """A swap succeeds if the stored value is the old one, or if there is none and none was expected."""
    assert store.swap(key, None, b"first", 60)[:2] == (True, b"first")
    assert store.swap(key, b"first", b"second", 60)[:2] == (True, b"second")
    assert store.read(key)[0] == b"second"


def test_swap_refuses_another_value(store: StateStore, key: str) -> None:
    """A swap fails if the stored value is not the old one, and returns what is stored."""
    assert store.swap(key, b"other", b"new", 60)[:2] == (False, None)
    assert store.swap(key, None, b"first", 60)[0]
    assert store.swap(key, None, b"new", 60)[:2] == (False, b"first")
    assert store.swap(key, b"other", b"new", 60)[:2] == (False, b"first")
    assert store.read(key)[0] == b"first"


def test_repeated_swap_is_recognizable(store: StateStore, key: str) -> None:
    """A swap that is sent again is not swapped, and the stored value is the new one."""
    for old, new in ((None, b"first"), (b"first", b"second")):
        assert store.swap(key, old, new, 60)[:2] == (True, new)
        assert store.swap(key, old, new, 60)[:2] == (False, new)


@pytest.mark.parametrize("value", [b"", b"\0", ALL_BYTES, b"\xff" * 700, b"12", b"null", "é".encode("latin-1")])
def test_values_are_opaque(store: StateStore, key: str, value: bytes) -> None:
    """Any bytes are stored, compared and returned unchanged: also none, 700, NUL, and bytes that are not text."""
    assert store.swap(key, None, value, 60)[:2] == (True, value)
    assert store.read(key)[0] == value
    assert store.swap(key, value + b"x", b"new", 60)[:2] == (False, value)
    assert store.swap(key, value, b"new", 60)[:2] == (True, b"new")


def test_keys_are_independent(store: StateStore, key: str) -> None:
    """Keys of up to about 120 characters, which may differ only in case, have values of their own."""
    keys = [key, key.upper(), f"{LONG_KEY}/{key[-12:]}/a", f"{LONG_KEY}/{key[-12:]}/b", f"{key}%_'\"\\ :{{}}"]
    for index, each in enumerate(keys):
        assert store.swap(each, None, b"%d" % index, 60)[0]
    assert [store.read(each)[0] for each in keys] == [b"0", b"1", b"2", b"3", b"4"]


def test_delete_makes_a_value_absent(store: StateStore, key: str) -> None:
    """After a deletion, the key has no value, and a swap that expects none succeeds."""
    store.swap(key, None, b"first", 60)
    store.delete(key)
    assert store.read(key)[0] is None
    assert store.swap(key, b"first", b"second", 60)[:2] == (False, None)
    assert store.swap(key, None, b"second", 60)[:2] == (True, b"second")


def wait_until_expired(store: StateStore, key: str, expires_at: int) -> None:
    """Read a value until it has expired, and check that it expires at this time in microseconds."""
    while True:
        value, now = store.read(key)
        if value is None:
            break
        assert now < expires_at + MILLISECOND
    assert now > expires_at - MILLISECOND


def test_expired_value_is_absent(store: StateStore, key: str) -> None:
    """A value is absent once its time is over, in reads and in swaps; a new one can then be stored."""
    swapped_at = store.swap(key, None, b"first", 0.05)[2]
    wait_until_expired(store, key, swapped_at + 50_000)
    assert store.swap(key, b"first", b"second", 60)[:2] == (False, None)
    assert store.swap(key, None, b"second", 60)[:2] == (True, b"second")
    assert store.read(key)[0] == b"second"


def test_swap_sets_how_long_to_keep_the_value(store: StateStore, key: str) -> None:
    """Each swap replaces the time for which the value is kept, by a longer or a shorter one; a failed swap does not."""
    store.swap(key, None, b"first", 60)
    swapped_at = store.swap(key, b"first", b"second", 0.05)[2]
    store.swap(key, b"first", b"third", 60)
    wait_until_expired(store, key, swapped_at + 50_000)
    store.swap(key, None, b"first", 0.05)
    if store.swap(key, b"first", b"second", CENTURY)[0]:
        other = f"{key}/other"
        wait_until_expired(store, other, store.swap(other, None, b"", 0.06)[2] + 60_000)
        assert store.read(key)[0] == b"second"


@pytest.mark.parametrize("keep", [0, -1, math.nan, math.inf, CENTURY + 1])
def test_unlimited_and_negative_times_are_refused(store: StateStore, key: str, keep: float) -> None:
    """A value is kept for more than 0 s and for a century at most; the error says so, and nothing is stored."""
    with pytest.raises(ValueError, match=r"keep must be more than 0 and at most 3155760000 seconds .*, not "):
        store.swap(key, None, b"first", keep)
    assert store.read(key)[0] is None


@pytest.mark.parametrize("kind", stores.parameters("sqlite", "postgres pool", "async postgres"), indirect=True)
def test_purge_deletes_only_expired_values(store: Any, key: str) -> None:  # noqa: ANN401  # purge is not in the protocol
    """Purging goes through all values, deletes those that have expired, and returns how many there were."""
    store.purge()
    for number in range(1100):
        last = store.swap(f"{key}/{number}", None, b"value", 1e-6 if number % 100 == 99 else 60)[2]
    while store.read(key)[1] <= last + MILLISECOND:
        pass
    assert store.purge() == 11
    assert store.purge() == 0
    assert sum(store.read(f"{key}/{number}")[0] == b"value" for number in range(1100)) == 1089


@pytest.mark.parametrize(
    "kind", stores.parameters(*stores.EMBEDDED, "redis", "valkey", "postgres", "postgres pool"), indirect=True
)
@pytest.mark.usefixtures("fast_thread_switching")
def test_threads_lose_no_swap(store: StateStore, key: str) -> None:
    """Threads that increment one number through one store do not overwrite each other's swaps."""
    threads = [threading.Thread(target=stores.increment, args=(store, key, 50)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(key)[0] == b"200"


@pytest.mark.parametrize("kind", stores.parameters(*stores.SHARED), indirect=True)
def test_processes_lose_no_swap(kind: str, place: int | Path, key: str) -> None:
    """Eight processes that increment one number do not overwrite each other's swaps."""
    stores.increment_in_processes(kind, place, key, processes=8, times=400)
    with stores.open_store(kind, place) as store:
        assert store.read(key)[0] == b"3200"


def test_expired_values_do_not_accumulate_in_memory() -> None:
    """Swaps delete what has expired: of a thousand values, few are left."""
    states = MemoryStates()
    for number in range(1000):
        states.swap(f"{number}", None, b"", 1e-6)
    assert len(states._entries) < 100  # noqa: SLF001  # what is deleted cannot be seen otherwise
