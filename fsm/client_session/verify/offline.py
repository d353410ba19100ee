"""Offline: logs, exhaustive and random, and what sessionizing them must give on any engine, which the fold decides.

A kind is the name of an input, or `REPEAT`. Times in the logs are whole seconds in exhaustive logs, and microseconds in
random ones. The timeouts of `SETTINGS` are a few seconds, so that short gaps reach them.
"""

from __future__ import annotations

import itertools
import math
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
from hypothesis import strategies as st

from client_session.graph import Command, Input
from client_session.input_log import CLOCK, REMEMBERED_EVENTS, InputRecord
from client_session.sessionize.fold import Fold
from client_session.sessionize.settings import EVENTS, INPUTS, RESETS
from client_session.testing.manual import START

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from client_session.sessionize.fold import SessionizedEvent, UserState

REPEAT = "repeat"
"""The kind of an event that has the id of an earlier one."""
KINDS: tuple[str, ...] = (*INPUTS, REPEAT)
GAPS: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
"""Seconds between inputs: below, at and above both timeouts."""
SET_BACK = timedelta(seconds=3)
"""By how much the record `clock` is behind the record before it, beyond its gap."""


@attrs.frozen
class LogSettings:
    """Arguments of `Fold` and of the engines' functions."""

    foreground_timeout: float = 4
    background_timeout: float = 2
    max_duration: float | None = None
    extend_on_focus_change: bool = False
    namespace: str = "default"


SETTINGS: tuple[LogSettings, ...] = (
    LogSettings(),
    LogSettings(extend_on_focus_change=True),
    LogSettings(max_duration=3, extend_on_focus_change=True),
    LogSettings(max_duration=5),
    LogSettings(foreground_timeout=2, background_timeout=float("inf"), max_duration=4, namespace="shop"),
)
"""Each setting on and off, and maximum durations between the timeouts and above them."""


def exhaustive_logs(
    length: int, kinds: Sequence[str] = KINDS, gaps: Sequence[int] = GAPS
) -> Iterator[list[InputRecord]]:
    """Yield every log of ``length`` inputs, each with another user id, so that one log can hold them all.

    The gap before the first input changes nothing, so there are ``len(kinds)**length * len(gaps)**(length - 1)``.
    """
    traces = itertools.product(itertools.product(kinds, repeat=length), itertools.product(gaps, repeat=length - 1))
    for number, (names, between) in enumerate(traces):
        yield _log(
            f"user-{number}",
            ((name, timedelta(seconds=gap), 1) for name, gap in zip(names, (0, *between), strict=True)),
        )


FIRST_KINDS: tuple[str, ...] = (Input.EVENT, Input.PASSIVE, Input.BACKGROUND, Command.STOP_CHECKER)
"""The kinds that change a new user."""
_TIMELESS_KINDS: tuple[str, ...] = (Command.NEW_SESSION, *RESETS, CLOCK)
"""The kinds after which the gap before them no longer matters."""


def distinct_logs(length: int, settings: LogSettings) -> Iterator[list[InputRecord]]:
    """Yield logs of ``length`` inputs, each with another user id, that stand for all such logs.

    The logs have all kinds of inputs, with gaps of whole seconds. Every other such log must have the same sessions as
    one of these or of the shorter ones, because:

    - A gap that is longer than all finite limits exceeds each of them, as the longest limit does.
    - Time matters only from the first event on. A gap before it changes nothing.
    - A gap before ``new-session``, ``start`` or ``forget`` changes nothing, because no session is current after these.
      Nor does one before ``clock``, after which times continue from those before it.
    - A first input other than an event, ``background`` and ``stop-checker`` leaves the user new. What follows is a
      shorter log.
    - A ``repeat`` that has no event to repeat is an event.

    The tests compare logs of up to three inputs without leaving any out.
    """
    number = itertools.count()
    for names in _distinct_kinds(length):
        for gaps in itertools.product(*_distinct_gaps(names, settings)):
            steps = ((name, timedelta(seconds=gap), 1) for name, gap in zip(names, gaps, strict=True))
            yield _log(f"user-{next(number)}", steps)


def distinct_log_count(length: int, settings: LogSettings) -> int:
    """Return the number of `distinct_logs`."""
    return sum(math.prod(map(len, _distinct_gaps(names, settings))) for names in _distinct_kinds(length))


def _distinct_kinds(length: int) -> Iterator[tuple[str, ...]]:
    for names in itertools.product(FIRST_KINDS, *[KINDS] * (length - 1)):
        ids = (number for number, kind in enumerate(names) if kind in EVENTS)
        if REPEAT not in names or next(ids, length) < names.index(REPEAT):
            yield names


def _distinct_gaps(names: Sequence[str], settings: LogSettings) -> list[range]:
    limits = (settings.foreground_timeout, settings.background_timeout, settings.max_duration or math.inf)
    longest = int(max(limit for limit in limits if limit < math.inf))
    return [
        range(longest + 1) if Input.EVENT in names[:position] and name not in _TIMELESS_KINDS else range(1)
        for position, name in enumerate(names)
    ]


_MICROSECONDS = st.sampled_from([0, 0, 1, 1_999_999, 2_000_000, 3_999_999, 4_000_000]) | st.integers(0, 6_000_000)


@st.composite
def random_logs(
    draw: st.DrawFn, max_size: int = 40, kinds: Sequence[str] = (*KINDS, Input.EVENT, Input.EVENT, REPEAT)
) -> list[InputRecord]:
    """Draw a log of up to three users, which alternate. The records of each user are in order."""
    step = st.tuples(
        st.sampled_from(kinds),
        _MICROSECONDS.map(lambda gap: timedelta(microseconds=gap)),
        st.integers(1, REMEMBERED_EVENTS + 2),
    )
    users = draw(st.lists(st.lists(step, min_size=1, max_size=max_size), min_size=1, max_size=3))
    logs = [_log(f"user-{number}", steps) for number, steps in enumerate(users)]
    turns = draw(st.permutations([number for number, log in enumerate(logs) for _ in log]))
    queues = [iter(log) for log in logs]
    return [next(queues[number]) for number in turns]


def _log(user_id: str, steps: Iterable[tuple[str, timedelta, int]]) -> list[InputRecord]:
    """Return a user's log. Each step has a kind, the gap before it, and how many events ago a repeated id was."""
    time, records, event_ids = START, list[InputRecord](), list[str]()
    for sequence, (kind, gap, ago) in enumerate(steps):
        time += gap - SET_BACK if kind == CLOCK else gap
        given, event_id = str(Input.EVENT) if kind == REPEAT else kind, None
        if given in EVENTS:
            is_repeated = kind == REPEAT and ago <= len(event_ids)
            event_id = event_ids[-ago] if is_repeated else f"{user_id}-event-{sequence}"
            event_ids.append(event_id)
        records.append(InputRecord(user_id, time, sequence, given, event_id))
    return records


def expected(
    records: Iterable[InputRecord], settings: LogSettings, carried: Iterable[UserState] = ()
) -> tuple[list[SessionizedEvent], list[UserState]]:
    """Return the events of a log that belong to a session, and the state of each user, as the fold gives them."""
    log = Fold(**attrs.asdict(settings), carried=carried)
    events = [event for record in records if (event := log.add(record)) is not None]
    return events, list(log.states())
