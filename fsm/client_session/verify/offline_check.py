"""Offline equals live: each sessionizer gives a log the sessions of the fold, which are those of the specification."""

from __future__ import annotations

import itertools
import random
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import attrs

from client_session.testing.invariants import InvariantError
from client_session.verify import offline, reference
from client_session.verify.sessionizers import FoldSessionizer
from client_session.visitors.decision import limit_microseconds, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from client_session.input_log import InputRecord
    from client_session.sessionize.fold import SessionizedEvent, UserState
    from client_session.verify.offline import LogSettings
    from client_session.verify.sessionizers import Sessionizer
    from client_session.verify.tally import Tally

    Result = tuple[list[SessionizedEvent], list[UserState]]
    Compare = Callable[["Chunk"], tuple[object, object]]
    """Returns what a chunk must give, and what it gives."""

INVARIANTS = {
    "log specification": "The fold of a log gives each event the session and the indexes that a reference gives it, "
    "which is based only on the specification.",
    "log engines": "SQLite and, if they are installed, DuckDB and Polars give the entities and the states of the fold.",
    "log parts": "They and the fold also do so if a log is sessionized in two parts, the second from the states after "
    "the first.",
}
LOGS_AT_ONCE = 20_000
"""How many exhaustive logs are sessionized together, so that memory is bounded."""


@attrs.frozen
class CutLog:
    """The log of one user, and how many of its records are in the first of two parts."""

    records: Sequence[InputRecord]
    cut: int

    def without(self, position: int) -> CutLog:
        """Return the log without one of its records."""
        records = [*self.records[:position], *self.records[position + 1 :]]
        return CutLog(records, self.cut - (position < self.cut))


@attrs.define(slots=False)  # for cached_property
class Chunk:
    """Logs of different users that are sessionized together."""

    logs: Sequence[CutLog]
    settings: LogSettings

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings as arguments of sessionizers."""
        return attrs.asdict(self.settings)

    @cached_property
    def records(self) -> list[InputRecord]:
        """All records, in each user's order."""
        return list(itertools.chain.from_iterable(log.records for log in self.logs))

    @cached_property
    def parts(self) -> tuple[list[InputRecord], list[InputRecord]]:
        """The records of the first parts, and those of the second parts."""
        return (
            _shuffled(itertools.chain.from_iterable(log.records[: log.cut] for log in self.logs)),
            _shuffled(itertools.chain.from_iterable(log.records[log.cut :] for log in self.logs)),
        )

    @cached_property
    def folded(self) -> Result:
        """What the fold gives."""
        events, states = offline.expected(self.records, self.settings)
        return _sorted(events), sorted(states, key=lambda state: state.user_id)


def chunks(length: int, settings: LogSettings, chance: random.Random) -> Iterator[Chunk]:
    """Yield all distinct logs of ``length`` inputs, cut at random places."""
    logs = offline.distinct_logs(length, settings)
    while chunk := list(itertools.islice(logs, LOGS_AT_ONCE)):
        yield Chunk([CutLog(log, chance.randint(0, len(log))) for log in chunk], settings)


def chunk_count(length: int, settings: LogSettings) -> int:
    """Return the number of `chunks`."""
    return -(-offline.distinct_log_count(length, settings) // LOGS_AT_ONCE)


def check_chunk(chunk: Chunk, sessionizers: Iterable[Sessionizer], tally: Tally) -> None:
    """Check all invariants.

    Raises:
        InvariantError: one does not hold; the message has the shortest log that was found.

    """
    _compare("log specification", "the fold", _with_reference, chunk, tally)
    fold = FoldSessionizer()
    _compare("log parts", fold.name, partial(_in_two_parts, fold), chunk, tally)
    for sessionizer in sessionizers:
        _compare("log engines", sessionizer.name, partial(_in_one_run, sessionizer), chunk, tally)
        _compare("log parts", sessionizer.name, partial(_in_two_parts, sessionizer), chunk, tally)


def _compare(invariant: str, name: str, compare: Compare, chunk: Chunk, tally: Tally) -> None:
    tally.invariants[invariant] += len(chunk.logs)
    wanted, found = compare(chunk)
    if wanted == found:
        return
    shortest = _shortest(chunk, compare)
    wanted, found = compare(shortest)
    lines = [f"{name}, with {shortest.settings}: expected {wanted}, got {found}."]
    for log in shortest.logs:
        lines += [f"The log, of which the first part has {log.cut} records:", *(each.to_json() for each in log.records)]
    raise InvariantError(invariant, "\n".join(lines))


def _with_reference(chunk: Chunk) -> tuple[object, object]:
    settings, places = chunk.settings, list[tuple[object, ...]]()
    fold = reference.Fold(
        limit_microseconds(settings.foreground_timeout),
        limit_microseconds(settings.background_timeout),
        limit_microseconds(settings.max_duration or float("inf")),
        settings.extend_on_focus_change,
    )
    for record in chunk.records:
        place = fold.add(record.user_id, microseconds(record.time), record.input, record.event_id)
        if place is not None:
            places.append((record.sequence, *attrs.astuple(place)))
    folded = [
        (event.sequence, event.user_id, event.session_index, event.event_index, event.first_event_id)
        for event in chunk.folded[0]
    ]
    return sorted(places), sorted(folded)


def _in_one_run(sessionizer: Sessionizer, chunk: Chunk) -> tuple[Result, Result]:
    return chunk.folded, sessionizer.run(_shuffled(chunk.records), chunk.arguments)


def _in_two_parts(sessionizer: Sessionizer, chunk: Chunk) -> tuple[Result, Result]:
    first, second = chunk.parts
    events, states = sessionizer.run(first, chunk.arguments)
    more, states = sessionizer.run(second, chunk.arguments, states)
    return chunk.folded, (_sorted([*events, *more]), states)


def _shortest(chunk: Chunk, compare: Compare) -> Chunk:
    """Return as few logs, and as few of their records, as still differ."""

    def differs(logs: Sequence[CutLog]) -> bool:
        wanted, found = compare(Chunk(logs, chunk.settings))
        return wanted != found

    logs = list(chunk.logs)
    while len(logs) > 1:
        middle = len(logs) // 2
        half = next(filter(differs, (logs[:middle], logs[middle:])), None)
        if half is None:
            break
        logs = half
    for number, log in enumerate(logs):
        for position in reversed(range(len(log.records))):
            shorter = [*logs[:number], logs[number].without(position), *logs[number + 1 :]]
            if differs(shorter):
                logs = shorter
    return Chunk(logs, chunk.settings)


def _shuffled(records: Iterable[InputRecord]) -> list[InputRecord]:
    shuffled = list(records)
    random.Random(len(shuffled)).shuffle(shuffled)  # noqa: S311  # an order, which must be the same each time
    return shuffled


def _sorted(events: Iterable[SessionizedEvent]) -> list[SessionizedEvent]:
    return sorted(events, key=lambda event: (event.user_id, event.sequence))
