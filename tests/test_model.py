"""The model-based test: a real session and its save file must match the oracle after every sequence of inputs."""

from __future__ import annotations

import math
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from client_session.testing import Driver, SessionOptions
from client_session.testing.manual import START
from client_session.testing.strategies import GAPS
from client_session.verify.model import OPTIONS, SessionModel
from client_session.verify.oracle import ExpectedSession, Options, Oracle
from client_session_persistence import MemoryStore, Snapshot
from event_ids import event_id

TestSession = SessionModel.TestCase
TestSession.settings = settings(stateful_step_count=30)

AGES = GAPS | GAPS.map(lambda seconds: -seconds)
"""Seconds since a saved time. A negative age is a time in the future."""


def test_model_that_has_run_no_rules_can_be_torn_down() -> None:
    """A model can be torn down before any rule has run, as Hypothesis sometimes does."""
    SessionModel().teardown()


@given(OPTIONS, st.none() | AGES, st.none() | AGES, st.none() | st.booleans())
def test_start_with_any_saved_session_matches_the_oracle(
    options: SessionOptions,
    idle: float | None,
    age: float | None,
    background: bool | None,  # noqa: FBT001  # drawn
) -> None:
    """A saved session, even with times in the future or an unknown start, is resumed, or ends with the same reason."""
    last_activity, start = (None if seconds is None else -seconds for seconds in (idle, age))
    saved = Snapshot(
        user_id=event_id(9),
        session_id=event_id(1),
        session_index=4,
        first_event_id=event_id(2),
        event_index=3,
        last_activity=None if last_activity is None else START + timedelta(seconds=last_activity),
        session_start=None if start is None else START + timedelta(seconds=start),
        background=background,
    )
    store = MemoryStore()
    store.save(saved)
    session = Driver(START, store, options)
    oracle = Oracle(
        Options(
            options.foreground_timeout,
            options.background_timeout,
            math.inf if options.max_duration is None else options.max_duration,
            options.extend_on_focus_change,
            options.continue_on_restart,
        ),
        file=ExpectedSession(1, 4, None, event_id(2), 0.0, 3, last_activity, start, background),
    )
    assert [each.reason.value for each in session.ended] == [reason for _, reason in oracle.ended]
    assert session.session.event_index == (oracle.current.events if oracle.current else 0)
    assert session.session.expires_in == oracle.expires_in
    found, expected = store.load(), oracle.file
    assert found is not None
    assert expected is not None
    assert (found.last_activity is None) == (expected.last_activity is None)
    assert (found.background, found.session_start) == (expected.background, saved.session_start)
