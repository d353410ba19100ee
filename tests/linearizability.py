"""A checker: what concurrent hosts were told about visitors equals one host's answers, in one serial order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs

from client_session.microseconds import microseconds
from client_session.verify.reference import Fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session import InputRecord, SessionContext, SessionSummary


@attrs.define
class History:
    """What hosts saw: the inputs that they applied, the entities that they got, and the ends that they reported."""

    inputs: list[InputRecord] = attrs.field(factory=list["InputRecord"])
    answers: list[tuple[str, SessionContext | None]] = attrs.field(factory=list[tuple[str, "SessionContext | None"]])
    """The id of each event, and its entity."""
    ends: list[SessionSummary] = attrs.field(factory=list["SessionSummary"])

    def add(self, other: History) -> None:
        """Add what another host saw."""
        self.inputs += other.inputs
        self.answers += other.answers
        self.ends += other.ends


def find_violations(history: History, foreground_timeout: float, background_timeout: float) -> list[str]:
    """Replay the inputs in the order in which the store applied them, and return what differs.

    The replay counts microseconds, as the store does: in seconds, a float could not tell whether a limit is reached.
    """
    fold = Fold(round(foreground_timeout * 1e6), round(background_timeout * 1e6))
    places: dict[str, tuple[str, int, int, str]] = {}
    violations: list[str] = []
    by_user: dict[str, list[InputRecord]] = {}
    for record in history.inputs:
        by_user.setdefault(record.user_id, []).append(record)
    for user, records in by_user.items():
        records.sort(key=lambda record: record.sequence)
        if [record.sequence for record in records] != list(range(1, len(records) + 1)):
            violations.append(f"user {user}: the inputs are not numbered 1 to {len(records)}")
        if any(after.time < before.time for before, after in itertools.pairwise(records)):
            violations.append(f"user {user}: time goes backwards")
        for record in records:
            place = fold.add(user, microseconds(record.time), record.input, record.event_id)
            if place is not None and record.event_id is not None:
                if record.event_id in places:
                    violations.append(f"event {record.event_id} is counted twice")
                places[record.event_id] = attrs.astuple(place)
    violations += _compare_answers(history.answers, places)
    violations += _compare_ends(history.ends, places.values())
    return violations


def _compare_answers(
    answers: Iterable[tuple[str, SessionContext | None]], places: dict[str, tuple[str, int, int, str]]
) -> Iterable[str]:
    session_ids: dict[tuple[str, int], str] = {}
    previous_ids: dict[tuple[str, int], str | None] = {}
    for event_id, context in answers:
        answer = context and (context.user_id, context.session_index, context.event_index, context.first_event_id)
        if answer != places.get(event_id):
            yield f"event {event_id}: answered {answer}, but by the replay it is {places.get(event_id)}"
        if context is not None:
            key = context.user_id, context.session_index
            if session_ids.setdefault(key, context.session_id) != context.session_id:
                yield f"session {key} has two ids"
            previous_ids[key] = context.previous_session_id
    for (user, index), previous in previous_ids.items():
        if previous != (session_ids.get((user, index - 1)) if index > 1 else None):
            yield f"session {index} of user {user} has the previous session {previous}"


def _compare_ends(ends: Iterable[SessionSummary], places: Iterable[tuple[str, int, int, str]]) -> Iterable[str]:
    counts: dict[tuple[str, int], int] = {}
    for user, index, number, _ in places:
        counts[user, index] = max(counts.get((user, index), 0), number)
    reported: dict[tuple[str, int], int] = {}
    for summary in ends:
        key = summary.user_id, summary.session_index
        if key in reported:
            yield f"the end of session {key} is reported twice"
        reported[key] = summary.event_count
        if counts.get(key) != summary.event_count:
            yield f"session {key} ended with {summary.event_count} events, but by the replay it has {counts.get(key)}"
    newest = {user: max(index for other, index in counts if other == user) for user, _ in counts}
    for user, index in counts.keys() - reported.keys():
        if index != newest[user]:
            yield f"the end of session {index} of user {user} is not reported"
