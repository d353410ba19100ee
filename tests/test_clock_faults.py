"""Clocks that misbehave: entities stay valid, summaries stay in order, and nothing is raised."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session import ClientSession
from client_session.clock import CheckedClock
from client_session.testing import ManualScheduler
from client_session_persistence import MemoryStore, Snapshot, XmlStore, dumps, loads
from client_session_persistence.snapshot import iso_time
from event_ids import event_id
from test_entity import VALIDATORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionSummary
    from client_session.testing import ManualClock
    from conftest import MakeSession

START = datetime(2026, 1, 1, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
NAIVE, FIRST_NAIVE, LAST_NAIVE = (time.replace(tzinfo=None) for time in (START, datetime.min.replace(tzinfo=UTC), LAST))


class PreciseTime(datetime):
    """A time with nanoseconds, like `pandas.Timestamp`: it is not equal to the same time without them."""

    nanosecond = 789

    def __eq__(self, other: object) -> bool:
        """Compare the nanoseconds too."""
        return isinstance(other, PreciseTime) and super().__eq__(other)

    __hash__ = datetime.__hash__

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Append the nanoseconds."""
        return f"{super().isoformat(sep, timespec)}789"

    def astimezone(self, tz: tzinfo | None = None) -> PreciseTime:
        """Return another precise time."""
        moved = super().astimezone(tz)
        return PreciseTime.combine(moved.date(), moved.timetz())


class NotATime(datetime):
    """A time without a value, like `pandas.NaT`."""

    def utcoffset(self) -> timedelta | None:
        """Fail."""
        message = "not a time"
        raise ValueError(message)


PRECISE = PreciseTime(2026, 1, 1, 0, 0, 0, 123456, UTC)
NOT_A_TIME = NotATime(2026, 1, 1, tzinfo=UTC)
ABSTRACT_ZONE = datetime(2026, 1, 1, tzinfo=tzinfo())  # type: ignore[abstract]


@attrs.define
class ScriptedClock:
    """A clock whose next readings a test sets."""

    seconds: Any = 0.0
    wall: Any = START

    def monotonic(self) -> Any:  # noqa: ANN401  # possibly invalid
        """Return ``seconds``."""
        return self.seconds

    def now(self) -> Any:  # noqa: ANN401  # possibly invalid
        """Return ``wall``."""
        return self.wall


SECONDS = (
    st.floats()
    | st.floats(0, 2000)
    | st.sampled_from([10**400, -(10**400), sys.float_info.max, -sys.float_info.max, None, "1", True, Decimal(1)])
)
WALLS = (
    st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.datetimes(timezones=st.sampled_from([timezone(timedelta(hours=hours)) for hours in (-23, 0, 23)]))
    | st.sampled_from([FIRST_NAIVE, LAST_NAIVE, PRECISE, NOT_A_TIME, None, 0, "2026-01-01", NAIVE])
    | st.builds(lambda: ABSTRACT_ZONE)  # it cannot be hashed
)
CALLS: dict[str, Callable[[ClientSession, ScriptedClock], object]] = {
    "event": lambda session, _: session.get_session_context(event_id(1)),
    "event with a time": lambda session, _: session.get_session_context(event_id(2), LAST),
    "event with an early time": lambda session, _: session.get_session_context(event_id(3), START - timedelta(days=9)),
    "background": lambda session, _: session.set_background(True),
    "foreground": lambda session, _: session.set_background(False),
    "tick": lambda session, _: session.tick(),
    "touch": lambda session, _: session.touch(),
    "start_new_session": lambda session, _: session.start_new_session(),
    "start_checker": lambda session, _: session.start_checker(),
    "stop_checker": lambda session, _: session.stop_checker(),
    "timeout": lambda session, _: setattr(session, "foreground_timeout", math.inf),
    "expires_in": lambda session, _: session.expires_in,
    "explain": lambda session, _: [str(explanation) for explanation in session.explain()],
    "save": lambda session, _: session.save(),
}


def require_order(summary: SessionSummary) -> None:
    """Check that a summary's times are in order and its durations are valid."""
    times = [summary.first_event_time, summary.last_event_time, summary.last_activity_time]
    assert times == sorted(times)
    assert all(type(time) is datetime and time.tzinfo is UTC for time in times)
    for seconds in (summary.foreground_seconds, summary.background_seconds):
        assert seconds is None or 0 <= seconds < math.inf


@given(
    first=st.tuples(st.floats() | st.integers(), st.datetimes() | st.datetimes(timezones=st.timezones())),
    inputs=st.lists(st.tuples(SECONDS, WALLS, st.sampled_from([*CALLS, "event"]), st.booleans()), max_size=20),
    options=st.fixed_dictionaries(
        {"count_empty_sessions": st.booleans(), "continue_on_restart": st.booleans()},
        optional={"background_timeout": st.sampled_from([1e-9, 1e300, math.inf])},
    ),
)
def test_no_clock_breaks_a_session(
    first: tuple[float, datetime], inputs: list[tuple[Any, Any, str, bool]], options: dict[str, Any]
) -> None:
    """Whatever the clock returns, no call fails, entities are valid, summaries are in order, and all can be saved."""
    clock, store, failures, ended = ScriptedClock(*first), MemoryStore(), list[BaseException](), list[object]()

    def on_session_end(summary: SessionSummary) -> None:
        ended.append(summary)
        try:
            require_order(summary)
        except AssertionError as error:
            failures.append(error)

    def start() -> ClientSession:
        return ClientSession(
            store=store, clock=clock, scheduler=ManualScheduler(), on_session_end=on_session_end, **options
        )

    session = start()
    for seconds, wall, call, restart in inputs:
        clock.seconds, clock.wall = seconds, wall
        result = CALLS[call](session, clock)
        if call.startswith("event"):
            VALIDATORS["1-0-2"].validate(result.data)  # type: ignore[attr-defined]
        saved = store.load()
        assert saved is not None
        assert loads(dumps(saved)) == saved
        if restart:
            session.close()
            clock.seconds, clock.wall = first
            session = start()
    session.close()
    assert failures == []
    assert session.save_error is None


@pytest.mark.parametrize("wall", [PRECISE, NAIVE, FIRST_NAIVE, LAST, LAST_NAIVE], ids=str)
def test_every_wall_time_can_be_saved(make: MakeSession, save_path: Path, wall: datetime) -> None:
    """A real save file accepts the times of any clock."""
    session = make(save_path=save_path, clock=ScriptedClock(wall=wall))
    context = session.get_session_context(event_id(1))
    session.close()
    assert session.save_error is None
    saved = XmlStore(save_path).load()
    assert saved is not None
    expected = datetime.fromisoformat(str(wall)[:26].removesuffix("+00:00")).replace(tzinfo=UTC)
    assert saved.first_event_timestamp == saved.last_activity == expected
    assert context.first_event_timestamp is not None
    assert datetime.fromisoformat(context.first_event_timestamp) == expected


@pytest.mark.parametrize("kind", [PreciseTime, "pandas", "freezegun"])
def test_event_timestamp_may_be_of_any_subclass(make: MakeSession, save_path: Path, kind: type[datetime] | str) -> None:
    """The time is kept to the microsecond, in the entity and in the file."""
    if kind == "pandas":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        time = pandas.Timestamp("2026-01-01T01:00:00.123456789+01:00")
    elif kind == "freezegun":
        freezegun = pytest.importorskip("freezegun.api", reason="freezegun is not installed")
        time = freezegun.FakeDatetime(2026, 1, 1, 0, 0, 0, 123456, UTC)
    else:
        time = PRECISE
    with make(save_path=save_path) as session:
        context = session.get_session_context(event_id(1), time)
    assert session.save_error is None
    assert context.first_event_timestamp == "2026-01-01T00:00:00.123456Z"
    saved = XmlStore(save_path).load()
    assert saved is not None
    assert type(saved.first_event_timestamp) is datetime
    assert saved.session_index == 1


@pytest.mark.parametrize("value", [NOT_A_TIME, ABSTRACT_ZONE, NAIVE], ids=["no value", "abstract zone", "naive"])
def test_time_that_cannot_be_converted_is_named_in_the_error(make: MakeSession, value: datetime) -> None:
    """Whatever a time's methods raise, the error names the argument and the value, and no event is counted."""
    session = make()
    with pytest.raises(ValueError, match=r"^event_timestamp must ") as caught:
        session.get_session_context(event_id(1), value)
    assert repr(value) in str(caught.value)
    assert session.event_index == 0


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        ({"seconds": math.nan}, r"monotonic\(\) returned nan, which is not a finite number"),
        ({"seconds": -math.inf}, r"monotonic\(\) returned -inf, which is not a finite number"),
        ({"seconds": None}, r"monotonic\(\) returned None, which is not a finite number"),
        ({"seconds": -5.0}, r"monotonic\(\) went backwards by 5 s"),
        ({"wall": NAIVE}, r"now\(\) returned a time without a time zone, .*, which is taken as UTC"),
        ({"wall": None}, r"now\(\) returned an invalid time: its time must be an aware datetime, not None"),
        ({"wall": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, r"now\(\) returned an invalid time: .*"),
    ],
)
def test_clock_fault_is_logged_once(
    make: MakeSession, caplog: pytest.LogCaptureFixture, readings: dict[str, Any], message: str
) -> None:
    """The warning names the method and the value. It does not blame the save file."""
    clock = ScriptedClock()
    session = make(clock=clock)
    session.get_session_context(event_id(1))
    for name, value in readings.items():
        setattr(clock, name, value)
    for _ in range(3):
        session.set_background(True)
    assert session.save_error is None
    session.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (line,) = caplog.messages
    assert line.startswith("The session's clock does not work correctly: ")
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        ({"seconds": None}, r"clock\.monotonic\(\) must return a number of seconds, not None"),
        ({"seconds": "1"}, r"clock\.monotonic\(\) must return a number of seconds, not '1'"),
        ({"wall": 0}, r"clock\.now\(\) must return an aware datetime, not 0"),
    ],
)
def test_clock_with_results_of_the_wrong_type_is_rejected(
    make: MakeSession, readings: dict[str, Any], message: str
) -> None:
    """The constructor reads the clock, so that a wrong type is found at once."""
    with pytest.raises(TypeError, match=message):
        make(clock=ScriptedClock(**readings))


def test_session_expires_after_its_clock_was_set_back(make: MakeSession) -> None:
    """Time that passes after a large step back counts, as if the step had not happened."""
    clock = ScriptedClock(seconds=1e6)
    ended: list[SessionSummary] = []
    session = make(clock=clock, on_session_end=ended.append)
    session.get_session_context(event_id(1))
    clock.seconds = 10.0
    session.tick()
    assert session.expires_in == 600
    clock.seconds = 609.0
    session.tick()
    assert ended == []
    clock.seconds = 610.0
    session.tick()
    assert [summary.reason for summary in ended] == ["timeout"]


def test_clock_that_jitters_does_not_gain_time() -> None:
    """After a step back of up to a minute, the clock waits until it has caught up."""
    clock = ScriptedClock(seconds=100.0)
    checked = CheckedClock(clock)
    readings: list[float] = []
    for clock.seconds in (100.0, 60.0, 99.0, 40.0, 101.0, 30.0, 31.0, math.nan, 32.0):
        readings.append(checked.monotonic())
    assert readings == [100.0, 100.0, 100.0, 100.0, 101.0, 101.0, 102.0, 102.0, 103.0]


@pytest.mark.parametrize("events", ["none", "later", "earlier"])
@pytest.mark.parametrize("correction", [timedelta(0), timedelta(days=-400), timedelta(days=400)], ids=str)
def test_summary_has_the_times_of_recording(
    make: MakeSession, clock: ManualClock, events: str, correction: timedelta
) -> None:
    """Neither the events' own timestamps nor a corrected wall clock affect the order or the distances of the times."""
    own = {"none": None, "later": LAST, "earlier": START - timedelta(hours=1)}[events]
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    start = clock.now()
    first = session.get_session_context(event_id(1), own)
    clock.set_wall(clock.now() + correction)
    clock.advance(10)
    session.get_session_context(event_id(2), own)
    clock.advance(5)
    session.touch()
    clock.advance(600)
    session.tick()
    (summary,) = ended
    assert first.first_event_timestamp == iso_time(own or start)
    assert summary.first_event_time == start
    assert summary.last_event_time == start + timedelta(seconds=10)
    assert summary.last_activity_time == start + timedelta(seconds=15)


@pytest.mark.parametrize("own", [timedelta(hours=-2), timedelta(0), timedelta(days=9)], ids=str)
def test_summary_of_a_continued_session_is_in_order(make: MakeSession, clock: ManualClock, own: timedelta) -> None:
    """After a restart, the time at which the first event was recorded comes from the file."""
    ended: list[SessionSummary] = []
    start = clock.now()
    with make(continue_on_restart=True) as session:
        session.get_session_context(event_id(1), start + own)
        clock.advance(10)
        session.get_session_context(event_id(2))
    clock.advance(20)
    session = make(continue_on_restart=True, on_session_end=ended.append)
    assert session.explain()[0].begun is not None
    session.start_new_session()
    require_order(ended[0])
    assert ended[0].last_event_time == start + timedelta(seconds=10)
    assert ended[0].first_event_time == start


@pytest.mark.parametrize("own", [timedelta(hours=-2), timedelta(0), timedelta(days=9)], ids=str)
def test_summary_of_a_session_from_an_earlier_version_is_in_order(
    make: MakeSession, store: MemoryStore, clock: ManualClock, own: timedelta
) -> None:
    """An earlier version saved only the first event's own time, which is not used if it is after the last activity."""
    ended: list[SessionSummary] = []
    saved = Snapshot(
        user_id=event_id(7),
        session_id=event_id(8),
        session_index=1,
        event_index=2,
        first_event_timestamp=clock.now() + own,
        last_activity=clock.now(),
    )
    store.save(saved)
    session = make(continue_on_restart=True, on_session_end=ended.append)
    assert session.explain()[0].begun is not None
    session.start_new_session()
    require_order(ended[0])
    assert ended[0].first_event_time == clock.now() + min(own, timedelta(0))


def use_freezegun(at: datetime) -> Any:  # noqa: ANN401  # a context manager
    """Freeze the time with freezegun."""
    freezegun = pytest.importorskip("freezegun", reason="freezegun is not installed")
    return freezegun.freeze_time(at)


def use_time_machine(at: datetime) -> Any:  # noqa: ANN401  # a context manager
    """Freeze the time with time-machine."""
    time_machine = pytest.importorskip("time_machine", reason="time-machine is not installed")
    return time_machine.travel(at, tick=False)


@pytest.mark.parametrize("freeze", [use_freezegun, use_time_machine])
def test_frozen_clock_of_a_test_library(
    save_path: Path, scheduler: ManualScheduler, freeze: Callable[[datetime], Any]
) -> None:
    """Entities have the frozen time, and a session that outlives the frozen time is saved and stays in order."""
    ended: list[SessionSummary] = []
    with freeze(datetime(2000, 1, 1, tzinfo=UTC)):
        session = ClientSession(save_path, scheduler=scheduler, on_session_end=ended.append)
        context = session.get_session_context(event_id(1))
        assert context.first_event_timestamp == "2000-01-01T00:00:00.000Z"
        session.tick()
        session.save()
    session.get_session_context(event_id(2))
    session.start_new_session()
    with freeze(datetime(2040, 1, 1, tzinfo=UTC)):
        session.get_session_context(event_id(3), datetime.now(UTC))
    session.close()
    assert session.save_error is None
    assert [summary.event_count for summary in ended] == [2, 1]
    for summary in ended:
        assert summary.first_event_time <= summary.last_event_time <= summary.last_activity_time
    saved = XmlStore(save_path).load()
    assert saved is not None
    assert saved.first_event_timestamp == datetime(2040, 1, 1, tzinfo=UTC)


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME exists only on Linux")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("error", ["EINVAL", "EPERM", "ENOSYS"])
def test_kernel_may_refuse_the_clock_that_counts_sleep(tmp_path: Path, error: str) -> None:
    """If reading CLOCK_BOOTTIME fails, sessions use the ordinary monotonic clock."""
    source, library = tmp_path / "refuse.c", tmp_path / "refuse.so"
    source.write_text(
        f"""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <time.h>
        int clock_gettime(clockid_t clock, struct timespec *time) {{
            if (clock == CLOCK_BOOTTIME) {{ errno = {error}; return -1; }}
            return ((int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime"))(clock, time);
        }}
        """
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)  # noqa: S603, S607
    program = """
import time, uuid
from client_session import ClientSession, MemoryStore, SystemClock
try:
    time.clock_gettime(time.CLOCK_BOOTTIME)
except OSError:
    print("refused")
before = time.monotonic()
assert before <= SystemClock().monotonic() <= time.monotonic()
print(ClientSession(store=MemoryStore()).get_session_context(uuid.uuid4()).session_index)
"""
    result = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.split() == ["refused", "1"]
