"""A session says what happened: its last decisions, in plain words, wherever they are read."""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import pytest

from client_session import Beginning, Ending, EndReason, Explanation, SessionState
from client_session.explanation import describe_save_file
from client_session.testing import SessionOptions
from client_session.testing.replay import Replay
from client_session.testing.trace import Step
from client_session_persistence import MemoryStore, Snapshot
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import ClientSession
    from client_session.testing import ManualClock
    from conftest import MakeSession

FOREGROUND, BACKGROUND, EXPIRED = SessionState


def words(session: ClientSession) -> list[str]:
    """Return what a session explains, without the times."""
    return [str(explanation).split(maxsplit=2)[2] for explanation in session.explain()]


def at(session: ClientSession, clock: ManualClock, *inputs: tuple[float, str]) -> list[str]:
    """Let inputs come at seconds after one another; return what each of them added, in words."""
    calls: dict[str, Callable[[], object]] = {
        "event": lambda: session.get_session_context(event_id(1)),
        "background": lambda: session.set_background(True),
        "foreground": lambda: session.set_background(False),
        "tick": session.tick,
        "touch": session.touch,
        "start-checker": session.start_checker,
        "stop-checker": session.stop_checker,
        "new-session": session.start_new_session,
        "save": session.save,
        "close": session.close,
    }
    for seconds, given in inputs:
        clock.advance(seconds)
        calls[given]()
    return words(session)


# What is told of each decision


def test_an_explanation_has_all_that_decided(make: MakeSession, clock: ManualClock) -> None:
    """Time, input, states, idle seconds, the timeouts, the checker, what ended, what began."""
    session = make()
    at(session, clock, (0, "event"), (1, "event"), (0, "background"), (700, "event"))
    assert session.explain()[-1] == Explanation(
        at=datetime(2026, 1, 1, 0, 11, 41, tzinfo=UTC),
        input="event",
        before=BACKGROUND,
        after=BACKGROUND,
        idle_seconds=700.0,
        timeout=300.0,
        new_timeout=300.0,
        was_checker_running=True,
        is_checker_running=True,
        ended=Ending(1, 2, EndReason.BACKGROUND_TIMEOUT),
        begun=Beginning(2, session.session_id),
    )
    assert str(session.explain()[-1]) == (
        "2026-01-01 00:11:41Z event: session 1 (2 events) ended: idle for 700 s in the background "
        "(timeout 300 s); session 2 begins"
    )


def test_a_new_session_has_nothing_to_explain(session: ClientSession) -> None:
    """A pending session that nothing was told of has made no decision."""
    assert session.explain() == ()


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([(0, "event")], "event: session 1 begins"),
        (
            [(0, "event"), (600, "tick")],
            (
                "tick: session 1 (1 event) ended: idle for 600 s in the foreground (timeout 600 s); "
                "the next session is pending"
            ),
        ),
        (
            [(0, "event"), (0, "background"), (300, "tick")],
            (
                "tick: session 1 (1 event) ended: idle for 300 s in the background (timeout 300 s); "
                "the next session is pending; checking has stopped"
            ),
        ),
        (
            [(0, "event"), (0, "background"), (300, "tick"), (0, "event")],
            "event: session 2 begins; checking has started again",
        ),
        ([(0, "background")], "background: the app went to the background (timeout 300 s)"),
        ([(0, "background"), (9, "foreground")], "foreground: the app came to the foreground (timeout 600 s)"),
        (
            [(0, "event"), (600, "background")],
            (
                "background: session 1 (1 event) ended: idle for 600 s in the foreground (timeout 600 s); "
                "the next session is pending; the app went to the background (timeout 300 s)"
            ),
        ),
        (
            [(0, "background"), (300, "tick"), (0, "foreground")],
            "foreground: the app came to the foreground (timeout 600 s); checking has started again",
        ),
        ([(0, "background"), (300, "tick")], "tick: checking has stopped"),
        ([(0, "background"), (300, "tick"), (0, "start-checker")], "start-checker: checking has started again"),
        (
            [(0, "event"), (900, "touch")],
            (
                "touch: session 1 (1 event) ended: idle for 900 s in the foreground (timeout 600 s); "
                "the next session is pending"
            ),
        ),
        ([(0, "event"), (5, "stop-checker")], "stop-checker: nothing expires until checking starts again"),
        ([(0, "stop-checker"), (5, "start-checker")], "start-checker: checking has started again"),
        ([(0, "event"), (0, "stop-checker"), (5000, "event")], "event: checking has started again"),
        ([(0, "stop-checker"), (5000, "foreground")], "foreground: checking has started again"),
        (
            [(0, "event"), (5, "new-session")],
            "new-session: session 1 (1 event) ended: a new session was started by hand; the next session is pending",
        ),
        ([(0, "event"), (1, "event"), (5, "close")], "close: session 1 (2 events) ended: closed"),
        (
            [(0, "event"), (1000, "close")],
            "close: session 1 (1 event) ended: idle for 1,000 s in the foreground (timeout 600 s)",
        ),
        ([(0, "close")], "close: closed; no session ended"),
    ],
)
def test_each_kind_of_decision_in_words(
    session: ClientSession, clock: ManualClock, inputs: list[tuple[float, str]], told: str
) -> None:
    """One sentence for what the last input changed."""
    assert at(session, clock, *inputs)[-1] == told


def test_timeouts_that_are_set(session: ClientSession) -> None:
    """The new one and the old, or that the one in force stays."""
    session.foreground_timeout = 60.5
    session.background_timeout = timedelta(minutes=1)
    assert words(session) == [
        "timeouts: the timeout changed from 600 s to 60.5 s",
        "timeouts: the timeout of the other focus changed; 60.5 s stays in force",
    ]


def test_a_restart_says_whether_the_saved_session_goes_on(make: MakeSession, clock: ManualClock) -> None:
    """With continue_on_restart: which session goes on, or why it does not; without, nothing."""
    first = make(continue_on_restart=True)
    assert at(first, clock, (0, "event"), (5, "close"))[-1] == "close: closed; no session ended"
    clock.advance(594)
    assert make().explain() == ()
    again = make(continue_on_restart=True)
    assert words(again) == ["start: session 1 continues: idle for 599 s (timeout 600 s)"]
    assert again.explain()[0].begun == Beginning(1, first.session_id, is_continued=True)
    clock.advance(1)
    assert words(make(continue_on_restart=True)) == ["start: the saved session is over: idle for 600 s (timeout 600 s)"]
    clock.set_wall(clock.now() - timedelta(hours=1))
    assert words(make(continue_on_restart=True)) == [
        "start: the saved session is over: last activity 3,000 s in the future (timeout 600 s)"
    ]


def test_counted_empty_sessions_are_explained(make: MakeSession, clock: ManualClock) -> None:
    """Each is counted when it takes the last one's place, and begins with its first event."""
    session = make(count_empty_sessions=True)
    assert at(session, clock, (600, "tick"), (600, "tick"), (1, "event")) == [
        "start: session 1 is counted before its first event",
        (
            "tick: session 1 (no events) ended: idle for 600 s in the foreground (timeout 600 s); "
            "session 2 is counted before its first event"
        ),
        (
            "tick: session 2 (no events) ended: idle for 600 s in the foreground (timeout 600 s); "
            "session 3 is counted before its first event"
        ),
        "event: session 3 begins",
    ]


# What is not, so that 32 tell of hours


def test_what_only_notes_activity_or_changes_nothing_is_no_decision(session: ClientSession, clock: ManualClock) -> None:
    """10,000 events within the session and ticks in time, toggles told twice, touches and saves make no entry."""
    at(session, clock, (0, "event"), (0, "background"))
    before = session.explain()
    for _ in range(10_000):
        at_once = session.get_session_context(event_id(2))
        clock.advance(1)
        session.tick()
    assert at_once.event_index == 10_001
    at(session, clock, (1, "background"), (1, "touch"), (1, "save"), (1, "start-checker"))
    session.background_timeout = 300
    session.check_interval = 1
    assert session.explain() == before
    at(session, clock, (300, "tick"))
    before = session.explain()
    at(session, clock, (300, "tick"), (300, "background"), (5, "new-session"), (5, "save"))
    assert session.explain() == before


def test_the_last_32_are_kept(session: ClientSession, clock: ManualClock) -> None:
    """Oldest first, however many there were."""
    for number in range(100):
        clock.advance(1)
        session.set_background(number % 2 == 0)
        assert len(session.explain()) == min(number + 1, 32)
    times = [explanation.at for explanation in session.explain()]
    assert times == [datetime(2026, 1, 1, 0, 1, second, tzinfo=UTC) for second in range(9, 41)]


def test_times_are_kept_to_the_microsecond(session: ClientSession, clock: ManualClock) -> None:
    """However compact the history is kept."""
    at(session, clock, (0, "event"), (0.000001, "background"))
    assert session.explain()[-1].idle_seconds == pytest.approx(1e-6)
    assert session.explain()[-1].at == clock.now()


def test_asking_extends_nothing_and_works_after_close(session: ClientSession, clock: ManualClock) -> None:
    """The session expires as if nobody had asked; closed, it still tells, and cannot be changed by who asked."""
    at(session, clock, (0, "event"), (300, "event"))
    clock.advance(599)
    told = session.explain()
    assert session.expires_in == 1.0
    session.close()
    assert session.explain()[:-1] == told
    assert session.explain()[-1].input == "close"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        told[0].input = "other"  # type: ignore[misc]


# Whoever comes between


def test_only_the_decision_that_stands_is_kept(make: MakeSession) -> None:
    """A draft that is thrown away, since a call came between on the same thread, leaves no entry."""

    class Meddling(MemoryStore):
        meddler: Callable[[], object] | None = None

        def save(self, snapshot: Snapshot) -> None:
            meddler, self.meddler = self.meddler, None
            if meddler:
                meddler()
            super().save(snapshot)

    store = Meddling()
    session = make(store=store)
    store.meddler = lambda: session.set_background(True)
    session.get_session_context(event_id(1))
    assert words(session) == [
        "background: the app went to the background (timeout 300 s)",
        "event: session 1 begins",
    ]
    assert session.explain()[-1].before is BACKGROUND


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork()")
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12; others' threads
def test_a_forked_child_begins_with_an_empty_history(session: ClientSession, clock: ManualClock) -> None:
    """What was decided before is the parent's to explain; the child explains what it decides itself."""
    at(session, clock, (0, "event"), (0, "background"))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover  # it has a process of its own
        try:
            told = [words(session), at(session, clock, (0, "event"))]
            os.write(writing, repr(told).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "[[], ['event: session 2 begins']]"
    assert len(session.explain()) == 2


@pytest.mark.usefixtures("switching_fast")
def test_threads_lose_no_entry(make: MakeSession) -> None:
    """However many threads end and begin sessions: each end is told once, in order, and no entry is half of another."""
    session = make()
    histories: list[tuple[Explanation, ...]] = []

    def begin_sessions() -> None:
        for number in range(4):
            session.get_session_context(event_id(number))
            session.start_new_session()
            histories.append(session.explain())

    threads = [threading.Thread(target=begin_sessions) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = session.explain()
    ended = [explanation.ended.session_index for explanation in told if explanation.ended]
    begun = [explanation.begun.session_index for explanation in told if explanation.begun]
    assert ended == begun == list(range(1, len(ended) + 1))
    assert len(told) == len(ended) + len(begun)
    assert all(history == told[: len(history)] for history in histories)


# The log


def test_the_log_uses_the_same_words(make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG each decision is a line, and the explanation its argument."""
    caplog.set_level(logging.DEBUG)
    session = make(continue_on_restart=True)
    at(session, clock, (0, "event"), (1, "event"), (600, "tick"), (0, "close"))
    assert [record.getMessage() for record in caplog.records] == [str(told) for told in session.explain()]
    assert [record.args for record in caplog.records] == [(told,) for told in session.explain()]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_a_host_that_did_not_ask_for_debug_lines_gets_none(
    make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At level INFO nothing is logged of what goes as it should."""
    caplog.set_level(logging.INFO)
    at(make(), clock, (0, "event"), (600, "tick"), (0, "close"))
    assert caplog.records == []


def test_what_is_told_when_no_lock_is_held(make: MakeSession) -> None:
    """A handler's other thread can call the session meanwhile."""
    told: list[str] = []

    class Calling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(
                target=lambda: told.append(str(session.get_session_context(event_id(2)).event_index))
            )
            other.start()
            other.join(timeout=10)
            told.append(record.getMessage().split(maxsplit=2)[2])

    logger = logging.Logger("of.its.own")  # noqa: LOG001  # nobody else's
    logger.addHandler(Calling(logging.DEBUG))
    session = make(logger=logger)
    session.get_session_context(event_id(1))
    assert told == ["2", "event: session 1 begins"]


class Plain:
    """A logger that has the required methods, and ``debug``, but cannot be asked."""

    def __init__(self) -> None:
        """Have been told nothing."""
        self.lines: list[object] = []

    def debug(self, *line: object) -> None:
        """Keep the line."""
        self.lines.append(line)

    info = warning = exception = debug


class Asked(Plain):
    """One that can be asked."""

    def __init__(self, answer: Callable[[int], bool]) -> None:
        """Answer so."""
        super().__init__()
        self.isEnabledFor = answer


@pytest.mark.parametrize("logger", [Plain(), Asked(lambda level: level > logging.DEBUG), Asked(lambda _: bool(1 / 0))])
def test_a_logger_that_does_not_say_yes_is_told_nothing(make: MakeSession, clock: ManualClock, logger: Plain) -> None:
    """One without levels, at another level or broken gets no line, and costs no event."""
    assert at(make(logger=logger), clock, (0, "event")) == ["event: session 1 begins"]
    assert logger.lines == []


def test_any_logger_that_says_yes_is_told(make: MakeSession, clock: ManualClock) -> None:
    """It need not be the standard library's."""
    logger = Asked(lambda level: level == logging.DEBUG)
    session = make(logger=logger)
    at(session, clock, (0, "event"))
    assert logger.lines == [("%s", session.explain()[0])]


# The command line


def test_replay_tells_what_sessions_explain(clock: ManualClock) -> None:
    """Each moment has the explanations that its inputs added, those of a session closed by a restart too."""
    start = clock.now()
    steps = [
        Step(start + timedelta(seconds=seconds), given, event_id(1) if given == "event" else None)
        for seconds, given in ((0, "event"), (5, "touch"), (700, "event"), (701, "restart"), (702, "event"))
    ]
    run = Replay(steps, MemoryStore(), SessionOptions(continue_on_restart=True))
    moments = list(run.run())
    assert [(moment.input, [told.input for told in moment.explanations]) for moment in moments] == [
        ("event", ["event"]),
        ("touch", []),
        ("tick", ["tick"]),
        ("event", ["event"]),
        ("restart", ["close", "start"]),
        ("event", []),
        ("close", ["close"]),
    ]
    assert run.session.explain() == moments[4].explanations[1:] + moments[6].explanations


NOW = datetime(2026, 5, 4, 9, 10, tzinfo=UTC)
SAVED = Snapshot(
    user_id=event_id(7),
    session_id=event_id(8),
    previous_session_id=event_id(9),
    session_index=3,
    first_event_timestamp=NOW - timedelta(minutes=30),
    event_index=5,
    last_activity=NOW - timedelta(minutes=2),
)
BEGAN = "session 3 (5 events) began at 2026-05-04 08:40:00Z"
PREVIOUS = f"its previous session is {event_id(9)}"
LAST = "its last activity was at 2026-05-04 09:08:00Z"
NEXT = "the next event begins session 4"


@pytest.mark.parametrize(
    ("saved", "described"),
    [
        (Snapshot(user_id=event_id(7)), ["no session yet: the next event begins session 1"]),
        (
            SAVED,
            [
                BEGAN,
                PREVIOUS,
                LAST,
                "with continue_on_restart, it would continue now: idle for 120 s (timeout 600 s)",
                "it can be resumed until 2026-05-04 09:18:00Z",
                f"otherwise {NEXT}",
            ],
        ),
        (
            attrs.evolve(SAVED, last_activity=NOW - timedelta(minutes=10), previous_session_id=None),
            [
                BEGAN,
                "it is the user's first session",
                "its last activity was at 2026-05-04 09:00:00Z",
                "with continue_on_restart, it would not continue now: idle for 600 s (timeout 600 s)",
                NEXT,
            ],
        ),
        (
            attrs.evolve(SAVED, last_activity=datetime.max.replace(tzinfo=UTC), first_event_timestamp=None),
            [
                "session 3 (5 events)",
                PREVIOUS,
                "its last activity was at 9999-12-31 23:59:59Z",
                (
                    "with continue_on_restart, it would not continue now: "
                    "last activity 251,624,415,000 s in the future (timeout 600 s)"
                ),
                NEXT,
            ],
        ),
        (
            attrs.evolve(SAVED, last_activity=None),
            [BEGAN, PREVIOUS, "it cannot be resumed: it has ended", NEXT],
        ),
        (
            attrs.evolve(SAVED, event_index=0, first_event_timestamp=None),
            ["session 3 (no events)", PREVIOUS, LAST, "it cannot be resumed: it has no events", NEXT],
        ),
        (
            attrs.evolve(SAVED, event_index=None, last_activity=None, first_event_timestamp=None),
            [
                "session 3",
                PREVIOUS,
                "it cannot be resumed: its progress is not recorded (the .NET tracker does not save it)",
                NEXT,
            ],
        ),
    ],
    ids=["no session", "in time", "timed out", "future", "ended", "empty", "of .NET"],
)
def test_a_save_file_is_described(saved: Snapshot, described: list[str]) -> None:
    """The newest session's progress, and what a start would make of it now."""
    assert list(describe_save_file(saved, NOW, 600)) == described


def test_the_description_comes_true(make: MakeSession, clock: ManualClock) -> None:
    """What a start does with a saved session is what its description said, in the same words."""
    for minutes, verb in ((9, "session 3 continues"), (10, "the saved session is over")):
        store = MemoryStore()
        clock.set_wall(NOW)
        store.save(attrs.evolve(SAVED, last_activity=NOW - timedelta(minutes=minutes)))
        saved = store.load()
        assert saved is not None
        promise = list(describe_save_file(saved, NOW, 600))[3].partition(": ")[2]
        assert words(make(store=store, continue_on_restart=True)) == [f"start: {verb}: {promise}"]
