"""Sessions of visitors, on a store whose time the test controls."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import logging
import math
import sys
import threading
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session import EndReason, SessionContext
from client_session.testing import ManualClock, check_invariants
from client_session.testing.states import ManualStates
from client_session.verify.tally import Tally
from client_session.verify.visitors import TIMELINES, check_visitors
from client_session.visitors import AsyncVisitorSessions, NewerStateError, VisitorSessions, exchange
from client_session.visitors.value import decode
from client_session_persistence import MemoryStore, RedisStates, SqliteStore, StoreError
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from client_session import InputRecord, SessionSummary
    from client_session.testing import SessionOptions, Step


class Shop:
    """Visitors of a shop, and everything that is reported about them."""

    def __init__(self, clock: ManualClock, states: ManualStates | None = None, **settings: Any) -> None:  # noqa: ANN401
        """Create the sessions with these settings."""
        self.clock = clock
        self.states = ManualStates(clock) if states is None else states
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.inputs: list[InputRecord] = []
        self.sessions = VisitorSessions(
            self.states,
            on_session_start=self.started.append,
            on_session_end=self.ended.append,
            on_input=self.inputs.append,
            **{"namespace": "shop", **settings},
        )


@pytest.fixture
def shop(clock: ManualClock) -> Shop:
    """Return a shop."""
    return Shop(clock)


# Equality with ClientSession.


@given(TIMELINES)
def test_visitors_equal_client_sessions(drawn: tuple[list[Step], SessionOptions]) -> None:
    """A visitor and a ClientSession with the same inputs agree on every entity and every end."""
    check_visitors(*drawn, Tally())


# Ids.


def uuid8(digest: bytes) -> str:
    """Return the UUIDv8 with these bits, by the standard library's rules."""
    number = int.from_bytes(digest, "big") & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62
    return str(uuid.UUID(int=number))


@pytest.mark.parametrize(("key", "text"), [("anna", "anna"), ("zoë", "7a6fc3ab"), ("0" * 1000, "0" * 1000)])
@pytest.mark.parametrize("secret", [None, b"secret"])
def test_ids_are_those_of_the_specification(shop: Shop, key: str, text: str, secret: bytes | None) -> None:
    """User and session ids are UUIDv8 of the specified texts, so that other programs can compute them."""
    visitor = Shop(shop.clock, key_secret=secret).sessions.of(key)
    data = f"client-session/1/shop/user/{text}".encode()
    digest = hashlib.md5(data).digest() if secret is None else hmac.digest(secret, data, "md5")  # noqa: S324
    user = uuid8(digest)
    assert visitor.user_id == user
    assert uuid.UUID(user).version == 8
    context = visitor.get_session_context(event_id(1))
    text = f"client-session/1/shop/session/{user}/{event_id(1)}"
    assert context.session_id == uuid8(hashlib.md5(text.encode()).digest())  # noqa: S324
    assert context.user_id == user


def test_key_that_is_a_uuid_is_the_user_id(shop: Shop) -> None:
    """A UUID, in any case and with or without its class, is used as the user id in lowercase."""
    key = uuid.uuid4()
    for same in (key, str(key), str(key).upper()):
        assert shop.sessions.of(same).user_id == str(key)


# Sessions.


def test_sessions_of_a_visitor_form_a_chain(shop: Shop) -> None:
    """Sessions are numbered from 1, with the previous session's id, and so are their events."""
    visitor = shop.sessions.of("anna")
    contexts: list[SessionContext] = []
    for number in range(60):
        contexts.append(visitor.get_session_context(event_id(number)))
        shop.clock.advance(600 if number % 7 == 6 else 1)
    check_invariants(contexts)
    assert contexts[-1].session_index == 9
    assert [summary.event_count for summary in shop.ended] == [7] * 8
    assert [context.session_index for context in shop.started] == list(range(1, 10))


def test_visitors_are_independent(shop: Shop) -> None:
    """Each visitor has a user id, a session and numbers of their own."""
    first, second = (shop.sessions.of(name).get_session_context(event_id(1)) for name in ("anna", "bob"))
    assert first.user_id != second.user_id
    assert first.session_id != second.session_id
    assert (first.session_index, second.session_index) == (1, 1)


def test_namespaces_are_independent(clock: ManualClock) -> None:
    """The same key in two namespaces is two users, also in one store."""
    states = ManualStates(clock)
    contexts = [
        Shop(clock, states, namespace=name).sessions.of("anna").get_session_context(event_id(1))
        for name in ("shop", "blog")
    ]
    assert len({context.user_id for context in contexts}) == len({context.session_id for context in contexts}) == 2
    assert [context.event_index for context in contexts] == [1, 1]


def test_event_that_is_sent_again_gets_the_same_entity(shop: Shop) -> None:
    """The last eight events are recognized, also after their session has ended; nothing changes."""
    visitor = shop.sessions.of("anna")
    contexts = []
    for number in range(10):
        contexts.append(visitor.get_session_context(event_id(number)))
        if number % 3 == 2:
            visitor.start_new_session()
    reports = (len(shop.inputs), len(shop.ended), len(shop.started))
    shop.clock.advance(5000)
    for number in range(2, 10):
        assert visitor.get_session_context(event_id(number)) == contexts[number]
        assert visitor.get_session_context(event_id(number), extend=False) == contexts[number]
    assert (len(shop.inputs), len(shop.ended), len(shop.started)) == reports
    assert visitor.get_session_context(event_id(1)).event_index == 1


def test_current_reads_without_extending(shop: Shop) -> None:
    """`current` returns the last event's entity until the session is over, and writes nothing."""
    visitor = shop.sessions.of("anna")
    assert visitor.current() is None
    context = visitor.get_session_context(event_id(1))
    shop.clock.advance(599)
    assert visitor.current() == context
    shop.clock.advance(1)
    assert visitor.current() is None
    assert shop.ended == []
    assert visitor.get_session_context(event_id(2)).session_index == 2
    assert [summary.reason for summary in shop.ended] == [EndReason.TIMEOUT]


def test_focus_is_kept_in_the_store(clock: ManualClock) -> None:
    """Another process applies the timeout of the focus that was reported to the first one."""
    states = ManualStates(clock)
    first, second = (Shop(clock, states).sessions.of("anna") for _ in range(2))
    first.get_session_context(event_id(1))
    second.set_background(True)
    clock.advance(300)
    assert first.get_session_context(event_id(2)).session_index == 2


def test_own_timestamp_and_anonymity(shop: Shop) -> None:
    """An event's own timestamp is in its session's entities; an anonymous event has no user and no previous session."""
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(0))
    visitor.start_new_session()
    time = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    context = visitor.get_session_context(event_id(1), time, anonymous=True)
    assert context.first_event_timestamp == "2026-01-01T12:00:00.123456Z"
    assert (context.user_id, context.previous_session_id) == (str(uuid.UUID(int=0)), None)
    assert visitor.get_session_context(event_id(1)).user_id == visitor.user_id


def test_forgetting_deletes_the_state(shop: Shop) -> None:
    """After `forget_user`, nothing is stored, the end is reported, and the same key begins again with index 1."""
    visitor = shop.sessions.of("anna")
    for number in (1, 2):
        visitor.start_new_session()
        visitor.get_session_context(event_id(number))
    visitor.forget_user()
    assert [summary.reason for summary in shop.ended] == [EndReason.NEW_SESSION, EndReason.FORGET]
    assert shop.inputs[-1].input == "forget"
    assert visitor.current() is None
    again = visitor.get_session_context(event_id(1))
    assert (again.user_id, again.session_index, again.previous_session_id) == (visitor.user_id, 1, None)
    shop.sessions.of("nobody").forget_user()


def test_forgetting_is_logged_without_a_session(shop: Shop) -> None:
    """Forgetting a visitor without a current session is logged, because the next session has index 1."""
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    visitor.start_new_session()
    visitor.forget_user()
    visitor.forget_user()
    assert [record.input for record in shop.inputs] == ["event", "new-session", "forget"]


def test_visitor_who_does_not_return_is_forgotten(clock: ManualClock) -> None:
    """After ``keep``, a visitor is new."""
    shop = Shop(clock, keep=timedelta(days=1))
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    clock.advance(86_399)
    assert visitor.get_session_context(event_id(2)).session_index == 2
    clock.advance(86_400)
    assert visitor.get_session_context(event_id(3)).session_index == 1


# The store's clock.


def test_clock_that_is_slightly_behind_stands_still(shop: Shop) -> None:
    """If the store's clock is up to a minute behind the last activity, no time passes until it catches up."""
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    shop.clock.set_wall(shop.clock.now() - timedelta(seconds=60))
    visitor.get_session_context(event_id(2))
    assert [record.input for record in shop.inputs] == ["event", "event"]
    assert shop.inputs[0].time == shop.inputs[1].time
    shop.clock.advance(60 + 599)
    assert visitor.get_session_context(event_id(3)).session_index == 1


def test_clock_that_is_set_back_is_followed(shop: Shop) -> None:
    """If the store's clock is more than a minute behind, times continue from there, and the log has a ``clock``."""
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    shop.clock.set_wall(shop.clock.now() - timedelta(days=1))
    assert visitor.get_session_context(event_id(2)).session_index == 1
    shop.clock.advance(600)
    assert visitor.get_session_context(event_id(3)).session_index == 2
    assert [record.input for record in shop.inputs] == ["event", "clock", "event", "event"]
    assert [record.sequence for record in shop.inputs] == [1, 2, 3, 4]
    assert shop.ended[0].last_event_time == shop.inputs[2].time


# The log.


def test_inputs_that_change_something_are_logged(shop: Shop) -> None:
    """Each swap is logged with its number; what changes nothing is not."""
    visitor = shop.sessions.of("anna")
    visitor.touch()
    visitor.get_session_context(event_id(1), extend=False)
    visitor.set_background(False)
    visitor.set_background(True)
    visitor.set_background(True)
    visitor.get_session_context(event_id(2))
    visitor.get_session_context(event_id(3), extend=False)
    visitor.start_new_session()
    visitor.start_new_session()
    assert [(record.sequence, record.input, record.event_id) for record in shop.inputs] == [
        (1, "background", None),
        (2, "event", event_id(2)),
        (3, "passive", event_id(3)),
        (4, "new-session", None),
    ]


# Values in the store.


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"\x02anything", NewerStateError, r"^the visitor's state has version 2, which is newer than 1; upgrade"),
        (
            b"",
            StoreError,
            r"^the stored value of 0 bytes is corrupt, or not this visitor's state; nothing was written$",
        ),
        (b'{"someone": "else"}', StoreError, r"^the stored value of 19 bytes is corrupt, or not this visitor's state"),
    ],
    ids=["newer version", "no bytes", "another program"],
)
def test_foreign_values_are_refused(shop: Shop, value: bytes, error: type[StoreError], message: str) -> None:
    """A value of a newer version, or of someone else, raises an error and is not overwritten."""
    visitor = shop.sessions.of("anna")
    key = f"client-session:shop:{visitor.user_id}"
    shop.states.swap(key, None, value, 1000)
    calls: list[Callable[[], object]] = [
        lambda: visitor.get_session_context(event_id(1)),
        lambda: visitor.set_background(True),
        visitor.touch,
        visitor.start_new_session,
        visitor.forget_user,
        visitor.current,
    ]
    for call in calls:
        with pytest.raises(error, match=message):
            call()
    assert shop.states.read(key)[0] == value


def test_value_of_another_visitor_is_refused(shop: Shop) -> None:
    """A visitor's value that is stored under another visitor's key, or in another namespace, is an error."""
    anna = shop.sessions.of("anna")
    anna.get_session_context(event_id(1))
    value, _ = shop.states.read(f"client-session:shop:{anna.user_id}")
    assert value is not None
    blog = Shop(shop.clock, shop.states, namespace="blog").sessions
    for visitor, namespace in ((shop.sessions.of("bob"), "shop"), (blog.of(anna.user_id), "blog")):
        shop.states.swap(f"client-session:{namespace}:{visitor.user_id}", None, value, 1000)
        with pytest.raises(StoreError, match="not this visitor's state"):
            visitor.get_session_context(event_id(2))


KEY = "client-session:shop:1e7f0dc3-6e39-8d11-a3b1-6f2f8c5b7a10"
FIRST_VERSION = (
    "0104040000000000000002000000004020464847060000402046484706000040204648470600020200000000402046484706"
    "0002000000000000400080000000000000020000000000004000800000000000000301000000004020464847060001000000"
    "000000400080000000000000004c8e8a10"
)
INPUTS = st.lists(st.sampled_from(["event", "passive", "new", "wait", "focus"]), max_size=30)


def values_after(inputs: list[str]) -> list[bytes]:
    """Return the values that inputs of a visitor store, one after the other, as if under `KEY`."""
    clock = ManualClock()
    states = ManualStates(clock)
    visitor = VisitorSessions(states, namespace="shop").of(KEY[-36:])
    values: list[bytes] = []
    for number, name in enumerate(inputs):
        if name in {"event", "passive"}:
            visitor.get_session_context(event_id(number), extend=name == "event")
        elif name == "new":
            visitor.start_new_session()
        elif name == "focus":
            visitor.set_background(number % 2 == 0)
        else:
            clock.advance(600)
        value, _ = states.read(KEY)
        values += [] if value is None else [value]
    return values


def assert_same_bytes_or_refused(value: bytes) -> None:
    """Check that a value is refused with a StoreError, or that its state is written as the same bytes."""
    try:
        state = decode(KEY, value)
    except StoreError:
        return
    assert state.encode(KEY, int.from_bytes(value[6:10], "little")) == value


def sealed(body: bytes) -> bytes:
    """Return a value that has the right checksum."""
    return body + zlib.crc32(KEY.encode() + body).to_bytes(4, "little")


@given(INPUTS)
def test_states_round_trip(inputs: list[str]) -> None:
    """Every state that inputs lead to is read and written as the same bytes, at most 400."""
    for value in values_after(inputs):
        state = decode(KEY, value)
        assert state.encode(KEY, int.from_bytes(value[6:10], "little")) == value
        assert sealed(value[:-4]) == value
        assert len(value) <= 400


def test_values_of_the_first_version_are_read() -> None:
    """A value that the first version wrote is still read: a session with two events, after one with one event."""
    state = decode(KEY, bytes.fromhex(FIRST_VERSION))
    assert (state.session_index, state.is_pending, state.swaps) == (2, False, 4)
    assert [(session.event_count, len(session.event_ids)) for session in state.sessions] == [(2, 32), (1, 16)]
    assert state.encode(KEY, 0).hex() == FIRST_VERSION


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: sealed(b"\1" + rest)))
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    """No bytes raise anything but StoreError, and a state that is read is written as the same bytes."""
    assert_same_bytes_or_refused(value)


@given(INPUTS, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.binary(max_size=2)), max_size=3))
def test_changed_states_are_read_or_refused(inputs: list[str], changes: list[tuple[int, int, bytes]]) -> None:
    """The same is true of a state in which bytes were replaced, even if its checksum is right."""
    body = values_after(["event", *inputs])[-1][:-4]
    for at, deleted, inserted in changes:
        start = at % len(body)
        body = body[:start] + inserted + body[start + deleted :]
    assert_same_bytes_or_refused(sealed(body))


@given(INPUTS, st.data())
def test_flipped_bits_are_noticed(inputs: list[str], data: st.DataObject) -> None:
    """A value in which a bit has changed is refused, whichever it is."""
    value = bytearray(values_after(["event", *inputs])[-1])
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreError):
        decode(KEY, bytes(value))


def test_usual_state_is_small(shop: Shop) -> None:
    """Eight events of one session take less than 220 bytes; eight sessions of one event less than 330."""
    for name, new, limit in (("anna", False, 220), ("bob", True, 330)):
        visitor = shop.sessions.of(name)
        for number in range(20):
            visitor.get_session_context(event_id(number))
            if new:
                visitor.start_new_session()
        value, _ = shop.states.read(f"client-session:shop:{visitor.user_id}")
        assert value is not None
        assert len(value) < limit


# Callbacks.


def test_failing_callback_is_logged(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a callback is logged with its name; the others still run."""

    def fail(_: object) -> None:
        raise ValueError

    shop = Shop(clock)
    sessions = VisitorSessions(ManualStates(clock), on_input=fail, on_session_start=shop.started.append)
    with caplog.at_level(logging.ERROR):
        context = sessions.of("anna").get_session_context(event_id(1))
    assert shop.started == [context]
    assert "on_input failed" in caplog.text
    assert "anna" not in caplog.text


def test_exit_from_a_callback_reaches_the_caller(clock: ManualClock) -> None:
    """SystemExit is raised after the remaining callbacks have run."""

    def leave(_: object) -> None:
        raise SystemExit(3)

    shop = Shop(clock)
    sessions = VisitorSessions(ManualStates(clock), on_input=leave, on_session_start=shop.started.append)
    with pytest.raises(SystemExit):
        sessions.of("anna").get_session_context(event_id(1))
    assert len(shop.started) == 1


# Arguments.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"keep": 600}, ValueError, r"^keep must be longer than every finite timeout, not 600$"),
        ({"keep": 900, "background_timeout": 1000}, ValueError, r"^keep must be longer"),
        ({"keep": "1d"}, TypeError, r"^keep must be a number of seconds or a timedelta, not '1d'$"),
        ({"keep": math.inf}, ValueError, r"^keep must be finite"),
        ({"keep": 4e9}, ValueError, r"^keep must be at most 3155760000 seconds \(a century\), not 4000000000\.0$"),
        ({"namespace": "a/b"}, ValueError, r"^namespace must have 1 to 64 printable ASCII characters"),
        ({"namespace": ""}, ValueError, r"^namespace must"),
        ({"namespace": None}, TypeError, r"^namespace must be a str, not None$"),
        ({"key_secret": "text"}, TypeError, r"^key_secret must be non-empty bytes or None, not an object of type str$"),
        ({"key_secret": b""}, TypeError, r"^key_secret must be non-empty bytes or None, not empty$"),
        ({"foreground_timeout": 0}, ValueError, r"^foreground_timeout must be greater than 0"),
        ({"max_duration": "x"}, TypeError, r"^max_duration must be a number of seconds"),
        ({"extend_on_focus_change": 1}, TypeError, r"^extend_on_focus_change must be True or False, not 1$"),
        ({"on_input": 3}, TypeError, r"^on_input must be callable or None, not 3$"),
    ],
)
def test_invalid_settings_are_rejected(
    clock: ManualClock, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The error names the argument, its value and what is allowed; secrets are not shown."""
    for sessions in (VisitorSessions, AsyncVisitorSessions):
        with pytest.raises(error, match=message):
            sessions(ManualStates(clock), **settings)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (None, "be a state store, not None"),
        (ManualStates, "be an instance, not the class ManualStates"),
        (object(), "have the methods read, swap, delete; <object .*> lacks read"),
        ("v.db", r"have the methods read, swap, delete; 'v\.db' lacks read; did you mean SqliteStates\('v\.db'\)\?"),
        (SqliteStore("v.db"), "keep visitors' states, as SqliteStates does, not one session, as SqliteStore"),
        (MemoryStore(), "keep visitors' states"),
    ],
)
def test_states_must_be_a_store(states: Any, message: str) -> None:  # noqa: ANN401  # any value
    """A value that is not a state store is refused, and the error suggests one."""
    for sessions in (VisitorSessions, AsyncVisitorSessions):
        with pytest.raises(TypeError, match=rf"^states must {message}"):
            sessions(states)


async def coroutine(_: object) -> None:
    """Do nothing."""


def test_coroutines_are_for_asyncio_only(clock: ManualClock) -> None:
    """The synchronous class refuses coroutine functions, which it would not await."""
    with pytest.raises(TypeError, match=r"^on_session_end must be a plain function"):
        VisitorSessions(ManualStates(clock), on_session_end=coroutine)
    AsyncVisitorSessions(ManualStates(clock), on_session_end=coroutine)


@pytest.mark.parametrize(("key", "error"), [("\ud800", ValueError), (123456789, TypeError), (b"secret key", TypeError)])
def test_invalid_keys_are_rejected(shop: Shop, key: Any, error: type[Exception]) -> None:  # noqa: ANN401  # any value
    """The error names the argument but does not show the key, which may identify a person."""
    with pytest.raises(error, match=r"^visitor must") as caught:
        shop.sessions.of(key)
    assert str(key) not in str(caught.value)
    with pytest.raises(ValueError, match=r"^visitor must not be empty$"):
        shop.sessions.of("")


@pytest.mark.parametrize("call", ["id", "time", "anonymous", "extend", "background"])
def test_invalid_arguments_of_calls_change_nothing(shop: Shop, call: str) -> None:
    """The errors are those of ClientSession, and nothing is stored."""
    visitor: Any = shop.sessions.of("anna")
    calls: dict[str, Callable[[], object]] = {
        "id": lambda: visitor.get_session_context("x"),
        "time": lambda: visitor.get_session_context(event_id(1), datetime(2026, 1, 1)),  # noqa: DTZ001  # the fault
        "anonymous": lambda: visitor.get_session_context(event_id(1), anonymous="no"),
        "extend": lambda: visitor.get_session_context(event_id(1), extend=0),
        "background": lambda: visitor.set_background("yes"),
    }
    with pytest.raises((TypeError, ValueError), match=r"^(event_id|event_timestamp|anonymous|extend|background) must"):
        calls[call]()
    assert shop.inputs == []


# asyncio.


class AsyncStates:
    """An asynchronous store over a synchronous one, which lets other tasks run before each reply."""

    def __init__(self, states: ManualStates) -> None:
        """Use this store."""
        self._states = states

    async def read(self, key: str) -> tuple[bytes | None, int]:
        """Read."""
        await asyncio.sleep(0)
        return self._states.read(key)

    async def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> tuple[bool, bytes | None, int]:
        """Swap."""
        await asyncio.sleep(0)
        return self._states.swap(key, old, new, keep)

    async def delete(self, key: str) -> None:
        """Delete."""
        self._states.delete(key)


class UnmarkedAsyncStates(AsyncStates):
    """An asynchronous store that is not recognized before its first call."""

    def read(self, key: str) -> Any:  # noqa: ANN401  # an awaitable
        """Read."""
        return super().read(key)


ASYNC_STORE = r"^states must be .*; use AsyncVisitorSessions for this one$"


def test_asynchronous_stores_are_for_asyncio_only(clock: ManualClock) -> None:
    """The synchronous class raises TypeError, which names the other one, and leaves no coroutine behind."""
    redis = pytest.importorskip("redis.asyncio", reason="needs redis")
    stores: tuple[Any, ...] = (RedisStates(redis.Redis()), AsyncStates(ManualStates(clock)))
    for states in stores:
        with pytest.raises(TypeError, match=ASYNC_STORE):
            VisitorSessions(states)
        AsyncVisitorSessions(states)
    unmarked: Any = UnmarkedAsyncStates(ManualStates(clock))
    visitor = VisitorSessions(unmarked).of("anna")
    with pytest.raises(TypeError, match=ASYNC_STORE):
        visitor.get_session_context(event_id(1))


def test_asyncio_accepts_stores_that_are_not_asynchronous(clock: ManualClock) -> None:
    """A store in memory or SQLite can be used directly."""

    async def main() -> SessionContext:
        return await AsyncVisitorSessions(ManualStates(clock)).of("anna").get_session_context(event_id(1))

    assert asyncio.run(main()).event_index == 1


def test_tasks_share_a_visitor(clock: ManualClock) -> None:
    """Fifty tasks that track events of one visitor at once number them 1 to 50; callbacks are awaited."""
    started: list[SessionContext] = []

    async def on_start(context: SessionContext) -> None:
        await asyncio.sleep(0)
        started.append(context)

    async def main() -> list[SessionContext]:
        sessions = AsyncVisitorSessions(AsyncStates(ManualStates(clock)), on_session_start=on_start)
        visitor = sessions.of("anna")
        contexts = await asyncio.gather(*(visitor.get_session_context(event_id(number)) for number in range(50)))
        await visitor.set_background(True)
        await visitor.touch()
        assert await visitor.current() is not None
        await visitor.start_new_session()
        assert await visitor.current() is None
        await visitor.forget_user()
        return contexts

    contexts = asyncio.run(main())
    assert sorted(context.event_index for context in contexts) == list(range(1, 51))
    assert len(started) == 1


def test_canceled_call_can_be_sent_again(clock: ManualClock) -> None:
    """A task that is canceled while it waits for the store has counted its event or not; sent again, it counts once."""

    async def main() -> None:
        visitor = AsyncVisitorSessions(AsyncStates(ManualStates(clock))).of("anna")
        for number in range(10):
            task = asyncio.ensure_future(visitor.get_session_context(event_id(number)))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert (await visitor.get_session_context(event_id(number))).event_index == number + 1

    asyncio.run(main())


# The cache.


class Remote(ManualStates):
    """A store that is not local, and counts its calls."""

    is_local = False

    def __init__(self, clock: ManualClock) -> None:
        """Count from 0."""
        super().__init__(clock)
        self.calls: list[str] = []

    def read(self, key: str) -> tuple[bytes | None, int]:
        """Read, and count the call unless it is a part of a swap."""
        if not self.calls or self.calls[-1] != "swapping":
            self.calls.append("read")
        return super().read(key)

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> tuple[bool, bytes | None, int]:
        """Swap, and count the call."""
        self.calls.append("swapping")
        result = super().swap(key, old, new, keep)
        self.calls[-1] = "swap"
        return result


def test_host_swaps_without_reading_first(clock: ManualClock) -> None:
    """A host that has handled a visitor's last input needs one round trip; after another host's input, two."""
    states = Remote(clock)
    first, second = (Shop(clock, states).sessions.of("anna") for _ in range(2))
    first.get_session_context(event_id(1))
    assert states.calls == ["read", "swap"]
    states.calls.clear()
    first.get_session_context(event_id(2))
    assert states.calls == ["swap"]
    second.get_session_context(event_id(3))
    states.calls.clear()
    assert first.get_session_context(event_id(4)).event_index == 4
    assert states.calls == ["swap", "swap"]


def test_host_pauses_after_it_was_overtaken(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that another one has just overtaken pauses before its next input, once, so that the other can win."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    states = Remote(clock)
    first, second = (Shop(clock, states).sessions.of("anna") for _ in range(2))
    for number, (visitor, seconds, paused) in enumerate([
        (first, 0, 0), (second, 0, 0), (first, 0.04, 0), (first, 0, 1), (first, 0, 1), (second, 0.1, 1), (second, 0, 1),
    ]):  # fmt: skip
        clock.advance(seconds)
        assert visitor.get_session_context(event_id(number)).event_index == number + 1
        assert len(pauses) == paused
    assert 0 <= pauses[0] <= exchange.PAUSE_SECONDS


def test_host_carries_the_time_forward_for_a_minute(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between replies, the store's time passes as the host's monotonic clock does; after a minute, the host reads."""
    host_clock = ManualClock()
    monkeypatch.setattr(exchange, "SYSTEM_CLOCK", host_clock)
    states = Remote(clock)
    shop = Shop(clock, states)
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    for number, (seconds, calls) in enumerate([(59.5, ["swap"]), (60, ["read", "swap"])], start=2):
        states.calls.clear()
        clock.advance(seconds)
        host_clock.advance(seconds)
        visitor.get_session_context(event_id(number))
        assert states.calls == calls
        assert shop.inputs[-1].time == clock.now()


def test_cache_is_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host remembers the visitors whom it has handled last, and reads the state of the others."""
    monkeypatch.setattr(exchange, "CACHE_SIZE", 4)
    states = Remote(clock)
    sessions = Shop(clock, states).sessions
    for number, name in enumerate(["anna", "bob", "anna", "carl"]):
        sessions.of(name).get_session_context(event_id(number))
    states.calls.clear()
    for number, name in enumerate(["anna", "bob"], start=4):
        sessions.of(name).get_session_context(event_id(number))
    assert states.calls == ["swap", "read", "swap"]


def test_stale_cache_does_not_hide_a_change(clock: ManualClock) -> None:
    """What would change nothing by the cached state is checked against the store."""
    states = Remote(clock)
    first, second = (Shop(clock, states).sessions.of("anna") for _ in range(2))
    first.get_session_context(event_id(1))
    first.set_background(True)
    second.set_background(False)
    first.set_background(True)
    clock.advance(300)
    assert second.get_session_context(event_id(2)).session_index == 2


def test_lost_reply_is_recognized(clock: ManualClock) -> None:
    """If the client sends a swap again whose reply was lost, the event is counted once, and its session reported."""

    class Resending(ManualStates):
        def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> tuple[bool, bytes | None, int]:
            super().swap(key, old, new, keep)
            return super().swap(key, old, new, keep)

    shop = Shop(clock, Resending(clock))
    contexts = [shop.sessions.of("anna").get_session_context(event_id(number)) for number in range(3)]
    assert [context.event_index for context in contexts] == [1, 2, 3]
    assert len(shop.started) == 1


def test_equal_inputs_at_the_same_time_are_both_reported_once(clock: ManualClock) -> None:
    """If two threads end the session at the same microsecond, one of them reports the end, and the other nothing."""

    class Overtaken(ManualStates):
        def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> tuple[bool, bytes | None, int]:
            if overtaking:
                overtaking.pop()()
            return super().swap(key, old, new, keep)

    overtaking: list[Callable[[], object]] = []
    shop = Shop(clock, Overtaken(clock))
    visitor = shop.sessions.of("anna")
    visitor.get_session_context(event_id(1))
    overtaking.append(visitor.start_new_session)
    visitor.start_new_session()
    assert [record.sequence for record in shop.inputs] == [1, 2]
    assert len(shop.ended) == 1


def test_signal_handlers_may_use_the_same_visitor(clock: ManualClock) -> None:
    """A call at each line of another one, as by a signal handler, does not wait for it, and no number is lost."""
    shop = Shop(clock, Remote(clock))
    numbers = itertools.count()
    interrupted: set[int] = set()
    indexes: list[int] = []

    def track() -> None:
        context = shop.sessions.of("anna").get_session_context(event_id(next(numbers)))
        indexes.append(context.event_index)

    def trace(frame: FrameType, happened: str, _: object) -> Any:  # noqa: ANN401  # a trace function
        if frame.f_code.co_filename != exchange.__file__:
            return None
        if happened == "line" and frame.f_lineno not in interrupted:
            interrupted.add(frame.f_lineno)
            sys.settrace(None)
            track()
            sys.settrace(trace)
        return trace

    def interrupt() -> None:
        sys.settrace(trace)
        track()
        sys.settrace(None)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    thread.join(60)
    assert sorted(indexes) == list(range(1, next(numbers) + 1))
    assert len(indexes) > 20


def test_endless_contention_times_out(clock: ManualClock) -> None:
    """If other hosts are always first, a call raises TimeoutError after a second, without naming the visitor."""

    class Contended(ManualStates):
        def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> tuple[bool, bytes | None, int]:
            del old, new, keep
            return False, *self.read(key)

    with pytest.raises(TimeoutError, match=r"^other hosts changed the visitor's state first each time for 1 s$"):
        Shop(clock, Contended(clock)).sessions.of("anna").get_session_context(event_id(1))
