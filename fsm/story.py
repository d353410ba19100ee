"""The story that a save file tells, in the words of `fsm.explanation`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fsm.explanation import events_text, restart, time_text
from fsm.identity import age_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from persistence import Snapshot


def tell(saved: Snapshot, now: datetime, timeout: float) -> Iterator[str]:
    """Say in sentences how far the newest session came, and what a start ``now`` would make of it."""
    if saved.session_id is None:
        yield "no session yet: the next event begins session 1"
        return
    index = saved.session_index
    events = "" if saved.event_index is None else f" ({events_text(saved.event_index)})"
    began = f"began at {time_text(saved.first_event_timestamp)}" if saved.first_event_timestamp else "came"
    rank = f"after session {saved.previous_session_id}" if saved.previous_session_id else "as the user's first"
    yield f"session {index}{events} {began} {rank}"
    if saved.last_activity:
        yield f"its last activity was at {time_text(saved.last_activity)}"
    age, otherwise = age_of(saved, now), ""
    if age is None:
        yield f"{_why_over(saved)}, so that no start goes on with it"
    else:
        yield f"a start now with continue_on_restart: {restart(index, age.total_seconds(), timeout)}"
        if timedelta(0) <= age < timedelta(seconds=timeout):
            yield f"so would any until {time_text(now + timedelta(seconds=timeout) - age)}"
            otherwise = "otherwise "
    yield f"{otherwise}the next event begins session {index + 1}"


def _why_over(saved: Snapshot) -> str:
    if saved.event_index is None:
        return "how far it came is not noted, as by the .NET tracker"
    return "it has ended" if saved.event_index else "it has had no event"
