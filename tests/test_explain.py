"""Explanations: a session records its latest decisions; explain(), the log and the CLI describe them identically."""

from __future__ import annotations

import logging
import math
import os
import sys
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


def descriptions(session: ClientSession) -> list[str]:
    """Return a session's explanations without their times."""
    return [str(explanation).split(maxsplit=2)[2] for explanation in session.explain()]


def apply(session: ClientSession, clock: ManualClock, *inputs: tuple[float, str]) -> list[str]:
    """Apply inputs, each the given number of seconds after the previous one, and return all explanations."""
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
    for seconds, input_name in inputs:
        clock.advance(seconds)
        calls[input_name]()
    return descriptions(session)


# The description of each decision.


def test_explanation_has_every_relevant_fact(make: MakeSession, clock: ManualClock) -> None:
    """An explanation contains the time, input, states, idle time, timeouts, checker status, and sessions."""
    session = make()
    apply(session, clock, (0, "event"), (1, "event"), (0, "background"), (700, "event"))
    assert session.explain()[-1] == Explanation(
        at=datetime(2026, 1, 1, 0, 11, 41, tzinfo=UTC),
        input="event",
        before=BACKGROUND,
        after=BACKGROUND,
        idle_seconds=700.0,
        idle_in_focus=700.0,
        timeout=300.0,
        new_timeout=300.0,
        max_duration=math.inf,
        new_max_duration=math.inf,
        was_checker_running=True,
        is_checker_running=True,
        ended=Ending(1, 2, EndReason.BACKGROUND_TIMEOUT),
        begun=Beginning(2, session.session_id),
    )
    assert str(session.explain()[-1]) == (
        "2026-01-01 00:11:41Z event: session 1 (2 events) ended: idle for 700 s in the background "
        "(timeout 300 s); session 2 begins"
    )


def test_new_session_has_no_explanations(session: ClientSession) -> None:
    """A new session has not made any decisions yet."""
    assert session.explain() == ()


@pytest.mark.parametrize(
    ("inputs", "expected"),
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
            "new-session: session 1 (1 event) ended: a new session was started manually; the next session is pending",
        ),
        ([(0, "event"), (1, "event"), (5, "close")], "close: session 1 (2 events) ended: closed"),
        (
            [(0, "event"), (1000, "close")],
            "close: session 1 (1 event) ended: idle for 1,000 s in the foreground (timeout 600 s)",
        ),
        ([(0, "close")], "close: closed; no session ended"),
    ],
)
def test_each_kind_of_decision_has_a_description(
    session: ClientSession, clock: ManualClock, inputs: list[tuple[float, str]], expected: str
) -> None:
    """The description says what the last input changed."""
    assert apply(session, clock, *inputs)[-1] == expected


def test_timeout_changes_are_explained(session: ClientSession) -> None:
    """The explanation gives the old and new timeouts, or says that the current timeout still applies."""
    session.foreground_timeout = 60.5
    session.background_timeout = timedelta(minutes=1)
    assert descriptions(session) == [
        "timeouts: the timeout changed from 600 s to 60.5 s",
        "timeouts: the other timeout changed; 60.5 s remains in force",
    ]


@pytest.mark.parametrize(
    ("timeout", "text"), [(math.inf, "infinite"), (1e-9, "1e-09 s"), (0.0005, "0.0005 s"), (1e300, "1e+300 s")]
)
def test_extreme_timeouts_are_described(make: MakeSession, timeout: float, text: str) -> None:
    """An infinite timeout is called infinite; a tiny or huge one is neither rounded to 0 nor a long number."""
    session = make(background_timeout=timeout)
    session.set_background(True)
    assert descriptions(session) == [f"background: the app went to the background (timeout {text})"]


def test_fractional_timeout_is_compared_with_a_fractional_duration(make: MakeSession, clock: ManualClock) -> None:
    """Idle time is rounded only if the timeout is a whole number, so it never looks shorter than the timeout."""
    session = make(foreground_timeout=60.5)
    assert apply(session, clock, (0, "event"), (60.75, "tick"))[-1] == (
        "tick: session 1 (1 event) ended: idle for 60.75 s in the foreground (timeout 60.5 s); "
        "the next session is pending"
    )


def test_restart_explains_whether_the_saved_session_continues(make: MakeSession, clock: ManualClock) -> None:
    """With continue_on_restart, a new session object explains its decision; without it, its history is empty."""
    first = make(continue_on_restart=True)
    assert apply(first, clock, (0, "event"), (5, "close"))[-1] == "close: closed; no session ended"
    clock.advance(594)
    assert make().explain() == ()
    again = make(continue_on_restart=True)
    assert descriptions(again) == ["start: session 1 continues: idle for 599 s (timeout 600 s)"]
    assert again.explain()[0].begun == Beginning(1, first.session_id, is_continued=True)
    clock.advance(1)
    assert descriptions(make(continue_on_restart=True)) == [
        (
            "start: session 1 (1 event) ended: idle for 600 s in the foreground (timeout 600 s); "
            "the next session is pending"
        )
    ]
    assert make(continue_on_restart=True).explain() == ()


def test_saved_time_in_the_future_is_explained(make: MakeSession, clock: ManualClock) -> None:
    """If the wall clock was set back, a new session object says that the last activity is in the future."""
    apply(make(continue_on_restart=True), clock, (0, "event"), (0, "close"))
    clock.set_wall(clock.now() - timedelta(hours=1))
    assert descriptions(make(continue_on_restart=True)) == [
        (
            "start: session 1 (1 event) ended: last activity 3,600 s in the future (timeout 600 s); "
            "the next session is pending"
        )
    ]


def test_the_part_of_idle_time_in_the_current_focus_is_explained(make: MakeSession, clock: ManualClock) -> None:
    """A session that was idle mainly before the focus change is not explained by the new focus."""
    assert apply(make(), clock, (0, "event"), (540, "background"), (1, "event"))[-1] == (
        "event: session 1 (1 event) ended: idle for 541 s, the last second in the background (timeout 300 s); "
        "session 2 begins"
    )
    session = make(background_timeout=900)
    inputs = [(0, "event"), (0, "background"), (450, "foreground"), (200, "tick")]
    assert apply(session, clock, *inputs)[-1] == (
        "tick: session 3 (1 event) ended: idle for 650 s, the last 200 s in the foreground (timeout 600 s); "
        "the next session is pending"
    )


def test_maximum_duration_is_explained(make: MakeSession, clock: ManualClock) -> None:
    """The end of a session at its maximum duration, and changes of that limit, are explained."""
    session = make(max_duration=900)
    inputs = [(0, "event"), (500, "event"), (400, "event")]
    assert apply(session, clock, *inputs)[-1] == (
        "event: session 1 (2 events) ended: it reached the maximum duration of 900 s; session 2 begins"
    )
    session.max_duration = None
    assert descriptions(session)[-1] == "timeouts: the maximum duration changed from 900 s to infinite"


def test_forgetting_is_explained_without_the_old_user(make: MakeSession, clock: ManualClock) -> None:
    """Forgetting the user clears the history, which contains the old sessions' ids."""
    session = make()
    apply(session, clock, (0, "event"), (0, "background"))
    session.forget_user()
    assert descriptions(session) == [
        "forget: session 1 (1 event) ended: its user was forgotten; the next session is pending"
    ]


def test_counted_empty_sessions_are_explained(make: MakeSession, clock: ManualClock) -> None:
    """With count_empty_sessions, a session is counted immediately but begins only with its first event."""
    session = make(count_empty_sessions=True)
    assert apply(session, clock, (600, "tick"), (600, "tick"), (1, "event")) == [
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


# Routine inputs do not add entries, so 32 entries usually cover hours.


def test_routine_inputs_do_not_add_entries(session: ClientSession, clock: ManualClock) -> None:
    """Events within a session, early ticks, repeated toggles, touches and saves do not add history entries."""
    apply(session, clock, (0, "event"), (0, "background"))
    before = session.explain()
    for _ in range(10_000):
        context = session.get_session_context(event_id(2))
        clock.advance(1)
        session.tick()
    assert context.event_index == 10_001
    apply(session, clock, (1, "background"), (1, "touch"), (1, "save"), (1, "start-checker"))
    session.background_timeout = 300
    session.check_interval = 1
    assert session.explain() == before
    apply(session, clock, (300, "tick"))
    before = session.explain()
    apply(session, clock, (300, "tick"), (300, "background"), (5, "new-session"), (5, "save"))
    assert session.explain() == before


def test_the_last_32_explanations_are_kept(session: ClientSession, clock: ManualClock) -> None:
    """explain() returns the last 32 explanations, oldest first."""
    for number in range(100):
        clock.advance(1)
        session.set_background(number % 2 == 0)
        assert len(session.explain()) == min(number + 1, 32)
    times = [explanation.at for explanation in session.explain()]
    assert times == [datetime(2026, 1, 1, 0, 1, second, tzinfo=UTC) for second in range(9, 41)]


def test_times_have_microsecond_precision(session: ClientSession, clock: ManualClock) -> None:
    """The compact history stores times with microsecond precision."""
    apply(session, clock, (0, "event"), (0.000001, "background"))
    assert session.explain()[-1].idle_seconds == pytest.approx(1e-6)
    assert session.explain()[-1].at == clock.now()


def test_explain_does_not_extend_the_session_and_works_after_close(session: ClientSession, clock: ManualClock) -> None:
    """explain() does not extend the session, works after close(), and returns immutable entries."""
    apply(session, clock, (0, "event"), (300, "event"))
    clock.advance(599)
    before_close = session.explain()
    assert session.expires_in == 1.0
    session.close()
    assert session.explain()[:-1] == before_close
    assert session.explain()[-1].input == "close"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before_close[0].input = "other"  # type: ignore[misc]


# Re-entrant calls, forks and threads.


def test_superseded_decision_does_not_add_an_entry(make: MakeSession) -> None:
    """A decision superseded by a re-entrant call is discarded and does not add an entry."""

    class ReentrantStore(MemoryStore):
        reentrant_call: Callable[[], object] | None = None

        def save(self, snapshot: Snapshot) -> None:
            reentrant_call, self.reentrant_call = self.reentrant_call, None
            if reentrant_call:
                reentrant_call()
            super().save(snapshot)

    store = ReentrantStore()
    session = make(store=store)
    store.reentrant_call = lambda: session.set_background(True)
    session.get_session_context(event_id(1))
    assert descriptions(session) == [
        "background: the app went to the background (timeout 300 s)",
        "event: session 1 begins",
    ]
    assert session.explain()[-1].before is BACKGROUND


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12; other tests' threads
def test_forked_child_starts_with_an_empty_history(session: ClientSession, clock: ManualClock) -> None:
    """The child explains only its own decisions, not the parent's."""
    apply(session, clock, (0, "event"), (0, "background"))
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover  # runs in the child
        try:
            received = [descriptions(session), apply(session, clock, (0, "event"))]
            os.write(write_end, repr(received).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert pipe.read() == "[[], ['event: session 2 begins']]"
    assert len(session.explain()) == 2


@pytest.mark.usefixtures("fast_thread_switching")
def test_no_explanation_is_lost_with_many_threads(make: MakeSession) -> None:
    """With many threads, each session's end is explained exactly once, in order, and no entry mixes two decisions."""
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
    explanations = session.explain()
    ended = [explanation.ended.session_index for explanation in explanations if explanation.ended]
    begun = [explanation.begun.session_index for explanation in explanations if explanation.begun]
    assert ended == begun == list(range(1, len(ended) + 1))
    assert len(explanations) == len(ended) + len(begun)
    assert all(history == explanations[: len(history)] for history in histories)


# The log.


def test_log_uses_the_same_words(make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG, each decision is logged as one line, with the explanation as the log record's argument."""
    caplog.set_level(logging.DEBUG)
    session = make(continue_on_restart=True)
    apply(session, clock, (0, "event"), (1, "event"), (600, "tick"), (0, "close"))
    assert [record.getMessage() for record in caplog.records] == [str(explanation) for explanation in session.explain()]
    assert [record.args for record in caplog.records] == [(explanation,) for explanation in session.explain()]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_nothing_is_logged_above_debug(make: MakeSession, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """At level INFO, nothing is logged during normal operation."""
    caplog.set_level(logging.INFO)
    apply(make(), clock, (0, "event"), (600, "tick"), (0, "close"))
    assert caplog.records == []


def test_log_handlers_run_without_the_lock(make: MakeSession) -> None:
    """While a log handler runs, another thread can call the session."""
    received: list[str] = []

    class ReentrantHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(
                target=lambda: received.append(str(session.get_session_context(event_id(2)).event_index))
            )
            other.start()
            other.join(timeout=10)
            received.append(record.getMessage().split(maxsplit=2)[2])

    logger = logging.Logger("custom")  # noqa: LOG001  # a separate logger
    logger.addHandler(ReentrantHandler(logging.DEBUG))
    session = make(logger=logger)
    session.get_session_context(event_id(1))
    assert received == ["2", "event: session 1 begins"]


class BasicLogger:
    """A logger with the required methods and ``debug``, but without isEnabledFor."""

    def __init__(self) -> None:
        """Start with an empty list of lines."""
        self.lines: list[object] = []

    def debug(self, *line: object) -> None:
        """Record the line."""
        self.lines.append(line)

    info = warning = exception = debug


class LevelLogger(BasicLogger):
    """A logger with isEnabledFor."""

    def __init__(self, answer: Callable[[int], bool]) -> None:
        """Set what isEnabledFor returns."""
        super().__init__()
        self.isEnabledFor = answer


@pytest.mark.parametrize(
    "logger", [BasicLogger(), LevelLogger(lambda level: level > logging.DEBUG), LevelLogger(lambda _: bool(1 / 0))]
)
def test_logger_not_enabled_for_debug_gets_no_lines(make: MakeSession, clock: ManualClock, logger: BasicLogger) -> None:
    """If the logger lacks levels, is set to another level, or raises, nothing is logged, but the event succeeds."""
    assert apply(make(logger=logger), clock, (0, "event")) == ["event: session 1 begins"]
    assert logger.lines == []


def test_custom_logger_enabled_for_debug_gets_the_lines(make: MakeSession, clock: ManualClock) -> None:
    """Decisions are also logged to loggers that are not from the standard library."""
    logger = LevelLogger(lambda level: level == logging.DEBUG)
    session = make(logger=logger)
    apply(session, clock, (0, "event"))
    assert logger.lines == [(str(session.explain()[0]),)]


# The command line.


def test_replay_returns_the_explanations_of_each_input(clock: ManualClock) -> None:
    """Replay yields the explanations that each input added, including those of a session closed by a restart."""
    start = clock.now()
    steps = [
        Step(start + timedelta(seconds=seconds), input_name, event_id(1) if input_name == "event" else None)
        for seconds, input_name in ((0, "event"), (5, "touch"), (700, "event"), (701, "restart"), (702, "event"))
    ]
    run = Replay(steps, MemoryStore(), SessionOptions(continue_on_restart=True))
    moments = list(run.run())
    assert [(moment.input, [explanation.input for explanation in moment.explanations]) for moment in moments] == [
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
    ("saved", "expected"),
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
            attrs.evolve(SAVED, session_start=NOW - timedelta(minutes=30)),
            [BEGAN, PREVIOUS, LAST, "it cannot be resumed: it began without continue_on_restart", NEXT],
        ),
        (
            attrs.evolve(SAVED, background=True, last_activity=NOW - timedelta(minutes=5)),
            [
                BEGAN,
                PREVIOUS,
                "its last activity was at 2026-05-04 09:05:00Z",
                "with continue_on_restart, it would not continue now: idle for 300 s (timeout 300 s)",
                NEXT,
            ],
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
    ids=[
        "no session",
        "resumable",
        "timed out",
        "in the future",
        "ended",
        "not resumable",
        "in the background",
        "empty",
        "written by .NET",
    ],
)
def test_save_file_is_described(saved: Snapshot, expected: list[str]) -> None:
    """The description states the saved session's progress and predicts what a restart would do now."""
    assert list(describe_save_file(saved, NOW, 600, 300)) == expected


@pytest.mark.parametrize(
    ("timeout", "until"),
    [
        (math.inf, "it can always be resumed"),
        (1e300, "it can be resumed until 9999-12-31 23:59:59Z"),
        (sys.maxsize, "it can be resumed until 9999-12-31 23:59:59Z"),
    ],
)
def test_save_file_is_described_with_a_timeout_that_never_ends(timeout: float, until: str) -> None:
    """A session may be resumable beyond the calendar's end."""
    assert list(describe_save_file(SAVED, NOW, timeout, 300))[-2] == until


def test_description_predicts_the_next_start(make: MakeSession, clock: ManualClock) -> None:
    """After a restart, the session does what the description predicted and explains it in the same words."""
    for minutes, verb in ((9, "session 3 continues: idle"), (10, "session 3 (5 events) ended: idle")):
        store = MemoryStore()
        clock.set_wall(NOW)
        store.save(attrs.evolve(SAVED, last_activity=NOW - timedelta(minutes=minutes)))
        saved = store.load()
        assert saved is not None
        prediction = list(describe_save_file(saved, NOW, 600, 300))[3].partition(": ")[2]
        description = descriptions(make(store=store, continue_on_restart=True))[0]
        assert description.startswith(f"start: {verb}")
        assert (
            description.replace(" in the foreground", "")
            .removesuffix("; the next session is pending")
            .endswith(prediction)
        )
