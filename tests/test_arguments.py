"""Arguments: accepted values, and errors that name the argument, the value and the allowed values."""

from __future__ import annotations

import os
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession, SessionClosedError
from client_session_persistence import MemoryStates, MemoryStore, SqliteStates
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session.testing import ManualClock, ManualScheduler
    from conftest import MakeSession


class BytesPath(os.PathLike[bytes]):
    """A path-like object for a bytes path, like the entries of ``os.scandir(b".")``."""

    def __fspath__(self) -> bytes:
        """Return the path."""
        return b"session.xml"


DURATIONS = ("foreground_timeout", "background_timeout", "check_interval")


def test_defaults(make: MakeSession) -> None:
    """By default, timeouts are 600 s in the foreground and 300 s in the background, and a check runs every 15 s."""
    session = make()
    assert [getattr(session, name) for name in DURATIONS] == [600.0, 300.0, 15.0]


def test_first_five_arguments_are_positional(save_path: Path, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """The path, timeouts, interval and logger can be passed positionally."""
    session = ClientSession(save_path, 60, 30, 5, None, clock=clock, scheduler=scheduler)
    assert [getattr(session, name) for name in DURATIONS] == [60.0, 30.0, 5.0]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [1, 0.5, timedelta(minutes=2)])
def test_durations_are_numbers_or_timedeltas(make: MakeSession, name: str, value: float | timedelta) -> None:
    """Each duration is returned in seconds, whether it was passed to the constructor or set later."""
    expected = value.total_seconds() if isinstance(value, timedelta) else float(value)
    session = make(**{name: value})
    assert getattr(session, name) == expected
    setattr(session, name, timedelta(seconds=7))
    assert getattr(session, name) == 7.0
    assert type(getattr(session, name)) is float


BAD_DURATIONS = [
    (0, ValueError),
    (-1, ValueError),
    (-0.001, ValueError),
    (float("nan"), ValueError),
    (float("-inf"), ValueError),
    (10**400, ValueError),
    (timedelta(0), ValueError),
    (timedelta(seconds=-1), ValueError),
    (True, TypeError),
    ("600", TypeError),
    (None, TypeError),
    (Fraction(1, 2), TypeError),
]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(("value", "error"), BAD_DURATIONS)
def test_bad_duration_is_named_in_the_error(make: MakeSession, name: str, value: Any, error: type[Exception]) -> None:  # noqa: ANN401  # any type
    """The error names the argument and the value, and a rejected value does not change the session."""
    with pytest.raises(error, match=f"{name} must be") as caught:
        make(**{name: value})
    assert repr(value) in str(caught.value)
    session = make()
    before = getattr(session, name)
    with pytest.raises(error, match=f"{name} must be"):
        setattr(session, name, value)
    assert getattr(session, name) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"save_path": ""}, ValueError, "save_path must be the path of a file"),
        ({"save_path": "  "}, ValueError, "save_path must be the path of a file"),
        ({"save_path": "a\0b"}, ValueError, "save_path must be the path of a file"),
        ({"save_path": "folder/"}, ValueError, "not a folder: 'folder/'"),
        ({"save_path": "."}, ValueError, r"not a folder: '\.'"),
        ({"save_path": Path()}, ValueError, r"not a folder: '\.'"),
        ({"save_path": ":memory:"}, ValueError, "not ':memory:'; use MemoryStore"),
        ({"save_path": b"session.xml"}, TypeError, "save_path must be the path"),
        ({"save_path": 7}, TypeError, "save_path must be the path .* not 7"),
        ({"save_path": BytesPath()}, TypeError, "save_path must be a str path, not b'session.xml'"),
        ({"save_path": None}, TypeError, "not None; or pass store"),
        ({"save_path": "x.xml", "store": MemoryStore()}, ValueError, "save_path or store, not both: 'x.xml'"),
        ({"store": 7}, TypeError, "store must have the methods load, save, lock; 7 lacks load"),
        ({"store": "x.xml"}, TypeError, r"; 'x\.xml' lacks load; did you mean XmlStore\('x\.xml'\)\?$"),
        (
            {"store": SqliteStates("v.db")},
            TypeError,
            "one session, as SqliteStore does, not the states of visitors, as Sq",
        ),
        ({"store": MemoryStates()}, TypeError, "store must keep one session"),
        ({"clock": 7}, TypeError, "clock must have the methods monotonic, now"),
        ({"scheduler": 7}, TypeError, "scheduler must have the methods start, stop"),
        ({"logger": 7}, TypeError, "logger must have the methods"),
        ({"count_empty_sessions": 1}, TypeError, "count_empty_sessions must be True or False, not 1"),
        ({"continue_on_restart": None}, TypeError, "continue_on_restart must be True or False, not None"),
        ({"on_session_start": 7}, TypeError, "on_session_start must be callable or None, not 7"),
        ({"on_session_end": "x"}, TypeError, "on_session_end must be callable or None, not 'x'"),
        ({"on_state_change": 7}, TypeError, "on_state_change must be callable or None, not 7"),
    ],
)
def test_bad_argument_is_named_in_the_error(
    clock: ManualClock,
    scheduler: ManualScheduler,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """The error names the argument and the value, and states what is allowed."""
    given = {"clock": clock, "scheduler": scheduler, **options}
    if not options.keys() & {"save_path", "store"}:
        given["store"] = MemoryStore()
    with pytest.raises(error, match=message):
        ClientSession(**given)


def test_folder_is_rejected_as_a_save_path(tmp_path: Path) -> None:
    """An existing folder is rejected immediately, before anything is written."""
    with pytest.raises(ValueError, match="not a folder"):
        ClientSession(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_set_background_accepts_only_bools(make: MakeSession, value: Any) -> None:  # noqa: ANN401  # any type
    """Anything other than True or False raises TypeError and does not change the session."""
    session = make()
    with pytest.raises(TypeError, match=f"background must be True or False, not {value!r}"):
        session.set_background(value)
    assert not session.background


CALLS: list[Callable[[ClientSession], object]] = [
    lambda session: session.get_session_context(event_id(1)),
    lambda session: session.set_background(True),
    lambda session: session.tick(),
    lambda session: session.start_new_session(),
    lambda session: session.touch(),
    lambda session: session.start_checker(),
    lambda session: session.stop_checker(),
    lambda session: session.save(),
    lambda session: setattr(session, "foreground_timeout", 1),
    lambda session: setattr(session, "background_timeout", 1),
    lambda session: setattr(session, "check_interval", 1),
]
CALL_NAMES = [
    "get_session_context",
    "set_background",
    "tick",
    "start_new_session",
    "touch",
    "start_checker",
    "stop_checker",
    "save",
    *DURATIONS,
]


@pytest.mark.parametrize(("call", "name"), list(zip(CALLS, CALL_NAMES, strict=True)), ids=CALL_NAMES)
def test_closed_session_rejects_calls(make: MakeSession, call: Callable[[ClientSession], object], name: str) -> None:
    """After close(), every call except close() raises a SessionClosedError that names the call."""
    session = make()
    session.get_session_context(event_id(1))
    session.close()
    session.close()
    verb = "set" if name in DURATIONS else "called"
    with pytest.raises(SessionClosedError, match=f"^{name} was {verb} on a closed session"):
        call(session)


def test_closed_session_is_readable(make: MakeSession) -> None:
    """After close(), the properties return their last values."""
    with make() as session:
        context = session.get_session_context(event_id(1))
        assert not session.closed
    assert session.closed
    assert session.session_id == context.session_id
    assert session.session_index == 1
    assert session.event_index == 1
    assert not session.checker_running
    assert session.expires_in is None
