"""The short path: an event that skips the machine has the same effect as one that goes through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from client_session.graph import Input, SessionState
from client_session.lifecycle import Lifecycle
from client_session.testing.invariants import require

if TYPE_CHECKING:
    from client_session.verify.tally import Tally

INVARIANTS = {
    "short path": "An event, passive or not, takes the short path exactly when the session is being checked and the "
    "machine would only count the event. Its effect is the same, even one ULP away from a limit.",
}

SECONDS = st.floats(1e-6, 1e9) | st.sampled_from([0.25, 300.0, 600.0])


@st.composite
def lifecycles(draw: st.DrawFn) -> tuple[Lifecycle, float]:
    """Draw a lifecycle in any state, and the time of the next event, often at or near a limit."""
    started, state = draw(st.floats(0, 1e9)), draw(st.sampled_from(SessionState))
    is_expired = state is SessionState.EXPIRED_CHECKER_STOPPED
    lifecycle = Lifecycle(
        draw(SECONDS),
        draw(SECONDS),
        last_activity=started + draw(st.sampled_from([0.0, 0.25, 299.75]) | st.floats(0, 1e6)),
        max_duration=draw(st.sampled_from([math.inf, 300.0, 1e9]) | SECONDS),
        started=started,
        event_count=0 if is_expired else draw(st.sampled_from([1, 2, 0])),
        state=state,
        checker_running=not is_expired and draw(st.sampled_from([True, True, False])),
    )
    ends = [lifecycle.last_activity + lifecycle.timeout, lifecycle.over_at]
    near = [time for end in ends for time in (end, math.nextafter(end, math.inf), math.nextafter(end, 0.0), end + 1.0)]
    now = draw(
        st.sampled_from([lifecycle.last_activity, *near])
        | st.floats(0, 1.5).map(lambda ratio: lifecycle.last_activity + ratio * lifecycle.timeout)
    )
    return lifecycle, max(now, lifecycle.last_activity)


def _values(lifecycle: Lifecycle) -> tuple[object, ...]:
    return (
        lifecycle.state,
        lifecycle.checker_running,
        lifecycle.event_count,
        lifecycle.last_activity,
        lifecycle.last_event,
        lifecycle.started,
        lifecycle.foreground_timeout,
        lifecycle.background_timeout,
    )


def check_short_path(lifecycle: Lifecycle, now: float, tally: Tally, *, extend: bool) -> None:
    """Check that an event has the same effect through the short path as through the machine.

    Raises:
        InvariantError: the results differ.

    """
    short, machine = lifecycle.copy(), lifecycle.copy()
    number = short.try_count_event(now, extend)
    decisions = machine.decide(Input.EVENT if extend else Input.PASSIVE, now)
    only_counts = (
        lifecycle.checker_running
        and not decisions
        and machine.event_count == lifecycle.event_count + 1 > 1
        and machine.checker_running is lifecycle.checker_running
        and machine.state is lifecycle.state
    )
    tally.invariants["short path"] += 1
    require(
        "short path",
        bool(number) is only_counts,
        f"{lifecycle} at {now!r}, extend={extend}: got {number} and {decisions}.",
    )
    if number:
        require(
            "short path",
            _values(short) == _values(machine),
            f"{lifecycle} at {now!r}, extend={extend}: {short} != {machine}.",
        )
        require(
            "short path",
            number == machine.event_count,
            f"{lifecycle} at {now!r}, extend={extend}: event number {number}.",
        )
    else:
        require(
            "short path",
            _values(short) == _values(lifecycle),
            f"{lifecycle} at {now!r}, extend={extend}: changed to {short}.",
        )
