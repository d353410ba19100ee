"""Wrong values: each is either rejected by name, or accepted for good, so that no later call fails."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session import ClientSession, MemoryStore, XmlStore, default_save_path
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import Snapshot
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from conftest import MakeSession


class Number:
    """A number that is not a ``float``, like those of numpy."""

    def __float__(self) -> float:
        """Return a float."""
        return 5.0

    def __index__(self) -> int:
        """Return an int."""
        return 5


class Nameless:
    """An object whose ``repr`` fails."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError


async def coroutine_function(*_: object) -> None:
    """Do nothing, later."""


async def async_generator_function(*_: object) -> AsyncIterator[None]:
    """Do nothing, later."""
    yield


def generator_function(*_: object) -> Iterator[None]:
    """Do nothing, later."""
    yield


class AsyncCallable:
    """An object that is called like a coroutine function."""

    async def __call__(self, *_: object) -> None:
        """Do nothing, later."""


DEFERRED = [coroutine_function, async_generator_function, generator_function, AsyncCallable()]

EXTREMES: tuple[Any, ...] = (
    None, True, 0, 10**400, -(10**400), 10**5000, sys.maxsize, sys.float_info.max, 1e-9, 5e-324, math.inf, -math.inf,
    math.nan, timedelta.max, timedelta.min, timedelta.resolution, "", "x" * 10**6, b"x", [1], object(), Nameless(),
    Number(), int, ManualClock, ManualScheduler, MemoryStore, ClientSession, timedelta, len, print, *DEFERRED, {},
    set[int](), ..., NotImplemented, range(3), ManualClock(), ManualScheduler(), MemoryStore(),
)  # fmt: skip
VALUES = (
    st.sampled_from(range(len(EXTREMES))).map(EXTREMES.__getitem__)  # Hypothesis would print the values themselves
    | st.integers()
    | st.floats()
    | st.floats(1e-9, 1e-6)
    | st.timedeltas()
    | st.text()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.uuids()
    | st.uuids().map(str)
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
)
"""Values of every kind, for any argument."""

CONSTRUCTOR_ARGUMENTS = (
    "foreground_timeout",
    "background_timeout",
    "check_interval",
    "logger",
    "store",
    "clock",
    "scheduler",
    "count_empty_sessions",
    "continue_on_restart",
    "on_session_start",
    "on_session_end",
    "on_state_change",
)


def accepts(argument: str, value: object, call: Callable[[], object]) -> bool:
    """Return whether a call accepts a value. If it does not, check that the error names the argument and the value."""
    try:
        call()
    except (TypeError, ValueError) as error:
        message = str(error)
        assert argument in message
        assert "must" in message
        assert len(message) < 1000
        try:
            text = repr(value)
        except Exception:  # noqa: BLE001  # a value without a repr is named by its type
            text = type(value).__name__
        assert text[:100] in message or getattr(value, "__name__", text) in message
        return False
    return True


def use(session: ClientSession, clock: ManualClock) -> None:
    """Make every kind of call, before and after every kind of wait."""
    for wait in (0.0, 1e-9, 1.0, 299.0, 301.0, 1e9):
        clock.advance(wait)
        session.tick()
        session.get_session_context(event_id(1), clock.now())
        assert session.expires_in is None or session.expires_in >= 0
        session.set_background(True)
        clock.advance(wait)
        session.touch()
        session.stop_checker()
        session.start_checker()
        session.get_session_context(event_id(2), anonymous=True)
        session.set_background(False)
        session.save()
        session.start_new_session()
        session.foreground_timeout = session.foreground_timeout
        session.check_interval = session.check_interval
    session.close()
    assert all(str(explanation) for explanation in session.explain())


def construct_and_use(argument: str, value: Any) -> None:  # noqa: ANN401  # any type
    """Construct a session with a value and, if the value is accepted, make every kind of call."""
    clock = value if argument == "clock" and isinstance(value, ManualClock) else ManualClock()
    options = {"store": MemoryStore(), "clock": clock, "scheduler": ManualScheduler(), argument: value}
    if options["store"] is None:
        return  # then a path is required
    sessions: list[ClientSession] = []
    if accepts(argument, value, lambda: sessions.append(ClientSession(**options))):
        use(sessions[0], clock)


@pytest.mark.parametrize("argument", CONSTRUCTOR_ARGUMENTS)
def test_constructor_rejects_extremes_or_accepts_them_for_good(argument: str) -> None:
    """The error names the argument and the value; a session that accepts the value never fails."""
    for value in EXTREMES:
        construct_and_use(argument, value)


@given(st.sampled_from(CONSTRUCTOR_ARGUMENTS), VALUES)
def test_constructor_rejects_a_value_or_accepts_it_for_good(argument: str, value: Any) -> None:  # noqa: ANN401  # any type
    """The rule holds for random values, such as timeouts of any length."""
    construct_and_use(argument, value)


@given(st.sampled_from(["event_id", "event_timestamp", "anonymous"]), VALUES)
def test_event_arguments_are_rejected_by_name(argument: str, value: Any) -> None:  # noqa: ANN401  # any type
    """A rejected event is not counted; after any event, the session still works."""
    clock = ManualClock()
    session = ClientSession(store=MemoryStore(), clock=clock, scheduler=ManualScheduler())
    for number in (1, 2):  # an event of a session takes another path than its first one
        arguments = {"event_id": event_id(number), argument: value}
        before = session.event_index
        accepted = accepts(argument, value, lambda: session.get_session_context(**arguments))  # noqa: B023  # called now
        assert session.event_index == before + accepted
        if before == 0 and not accepted:
            session.get_session_context(event_id(number))
    use(session, clock)


@given(st.sampled_from(["foreground_timeout", "background_timeout", "check_interval", "background"]), VALUES)
def test_settings_are_rejected_by_name(argument: str, value: Any) -> None:  # noqa: ANN401  # any type
    """A setting has the same rules as the argument of the constructor."""
    clock = ManualClock()
    session = ClientSession(store=MemoryStore(), clock=clock, scheduler=ManualScheduler())
    session.get_session_context(event_id(1))
    change = session.set_background if argument == "background" else lambda given: setattr(session, argument, given)
    accepts(argument, value, lambda: change(value))
    use(session, clock)


@given(VALUES)
def test_other_functions_reject_values_by_name(value: Any) -> None:  # noqa: ANN401  # any type
    """Entities, manual clocks, paths and snapshots follow the same rule."""
    clock = ManualClock()
    context = ClientSession(store=MemoryStore(), clock=clock, scheduler=ManualScheduler()).get_session_context(
        event_id(1)
    )
    calls: dict[str, Callable[[], object]] = {
        "version": lambda: context.to_dict(value),
        "seconds": lambda: clock.advance(value),
        "wall": lambda: clock.set_wall(value),
        "app_name": lambda: default_save_path(value),
        "app_author": lambda: default_save_path("my-app", value),
    }
    fields = (
        "user_id",
        "session_id",
        "session_index",
        "storage_mechanism",
        "event_index",
        "last_activity",
        "background",
    )
    for field in fields:
        calls[field] = lambda field=field: Snapshot(**{"user_id": event_id(1), field: value})  # type: ignore[misc]
    for argument, call in calls.items():
        accepts(argument, value, call)


@pytest.mark.parametrize("value", [math.inf, sys.maxsize, timedelta.max, 1e15, 1e300, sys.float_info.max, 1e-9, 5e-324])
@pytest.mark.parametrize("continue_on_restart", [False, True])
@pytest.mark.parametrize("name", ["foreground_timeout", "background_timeout"])
def test_extreme_timeouts(  # noqa: PLR0913  # three parameters and three fixtures
    make: MakeSession,
    clock: ManualClock,
    save_path: Path,
    name: str,
    value: Any,  # noqa: ANN401  # any duration
    *,
    continue_on_restart: bool,
) -> None:
    """With any timeout above zero, sessions work and continue; an infinite one has no time of expiry."""
    for _ in range(2):
        session = make(save_path=save_path, continue_on_restart=continue_on_restart, **{name: value})
        session.get_session_context(event_id(1))
        session.set_background(name == "background_timeout")
        assert (session.expires_in is None) is (value == math.inf)
        clock.advance(1e9)
        session.tick()
        is_over = not isinstance(value, timedelta) and value <= 1e9
        assert (session.session_index is None) is is_over
        session.set_background(False)
        session.close()
        assert session.save_error is None


def test_infinite_check_interval_is_rejected(make: MakeSession) -> None:
    """A scheduler needs a time for the next check."""
    with pytest.raises(ValueError, match="check_interval must be finite and greater than 0 seconds, not inf"):
        make(check_interval=math.inf)


@pytest.mark.parametrize("callback", ["on_session_start", "on_session_end", "on_state_change"])
@pytest.mark.parametrize("function", DEFERRED, ids=lambda function: getattr(function, "__name__", "async callable"))
def test_callback_that_would_not_run_is_rejected(make: MakeSession, callback: str, function: Any) -> None:  # noqa: ANN401  # any callable
    """Nobody would await or iterate over what such a function returns."""
    with pytest.raises(TypeError, match=f"{callback} must be a plain function, not .*: the session does not await it"):
        make(**{callback: function})


@pytest.mark.parametrize(
    ("argument", "kind"),
    [("clock", ManualClock), ("scheduler", ManualScheduler), ("store", MemoryStore), ("store", XmlStore)],
)
def test_class_instead_of_an_instance_is_named_in_the_error(make: MakeSession, argument: str, kind: type) -> None:
    """The error says that an instance is needed."""
    name = kind.__name__
    with pytest.raises(
        TypeError, match=rf"{argument} must be an instance, not the class {name}; did you mean {name}\("
    ):
        make(**{argument: kind})


@pytest.mark.parametrize("path", ["\ud800.xml", type("BadPath", (), {"__fspath__": lambda _: 7})()])
def test_path_that_no_file_can_have_is_named_in_the_error(path: Any) -> None:  # noqa: ANN401  # any type
    """A path that cannot be encoded, or an object that returns no path, is rejected at once."""
    with pytest.raises((TypeError, ValueError), match=r"^save_path must be"):
        ClientSession(path)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_session_cannot_be_copied(make: MakeSession, duplicate: Callable[[object], object]) -> None:
    """Two copies would use the same numbers, so the error says what to do instead."""
    session = make()
    session.get_session_context(event_id(1))
    with pytest.raises(TypeError, match="cannot be copied or pickled; share it, or construct another"):
        duplicate(session)
    assert session.get_session_context(event_id(2)).event_index == 2


@pytest.mark.parametrize(
    ("method", "result", "expected"),
    [
        ("load", {"userId": event_id(1)}, "a Snapshot or None"),
        ("load", b"", "a Snapshot or None"),
        ("save", True, "None or a concurrent.futures.Future"),
        ("save", coroutine_function, "None or a concurrent.futures.Future"),
        ("save", asyncio.Future(loop=asyncio.new_event_loop()), "None or a concurrent.futures.Future"),
        ("lock", None, "a context manager"),
        ("lock", True, "a context manager"),
    ],
)
def test_store_that_returns_something_else_is_a_failing_store(
    make: MakeSession, caplog: pytest.LogCaptureFixture, method: str, result: object, expected: str
) -> None:
    """Only save() raises, and the error and the warning name what the store's method returned."""
    store = type("OddStore", (MemoryStore,), {method: lambda *_: result})()
    session = make(store=store)
    assert session.get_session_context(event_id(1)).session_index == 1
    session.tick()
    message = f"OddStore.{method}() must return {expected}, not {result!r}"
    assert str(session.save_error) == message
    (record,) = caplog.records
    assert message in record.getMessage()
    with pytest.raises(TypeError) as caught:
        session.save()
    assert str(caught.value) == message
    session.close()
