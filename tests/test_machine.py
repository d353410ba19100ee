"""The state machine matches the transition table."""

from __future__ import annotations

import logging

import pytest
from transitions import Machine

from client_session.graph import TABLE, Command, Guard, Input, Row, SessionState
from client_session.lifecycle import Lifecycle
from client_session.machine import MACHINE, effect_method, guard_method


def test_machine_matches_the_table() -> None:
    """The machine's transitions match the table's rows."""
    machine_rows = {
        (
            transition.source,
            event.name,
            transition.dest,
            tuple(condition.func for condition in transition.conditions),
            tuple(transition.before),
        )
        for event in MACHINE.events.values()
        for transition in MACHINE.get_transitions(event.name)
    }
    table_rows = {
        (
            row.source.name,
            row.input.value,
            None if row.destination is row.source else row.destination.name,
            (guard_method(row.guard),) if row.guard else (),
            tuple(effect_method(effect) for effect in row.effects),
        )
        for row in TABLE
    }
    assert machine_rows == table_rows
    assert len(MACHINE.get_transitions()) == len(TABLE)


def test_machine_does_not_retain_state() -> None:
    """The machine has no models, so it does not retain state between decisions."""
    before = len(MACHINE.models)
    lifecycle = Lifecycle(600.0, 300.0, 0.0)
    lifecycle.decide(Input.EVENT, 1.0)
    lifecycle.decide(Input.BACKGROUND, 2.0)
    assert before == len(MACHINE.models) == 0


def test_core_implements_every_guard_and_effect() -> None:
    """The lifecycle has a method for each guard and effect in the table."""
    for row in TABLE:
        assert not row.guard or callable(getattr(Lifecycle, guard_method(row.guard)))
        assert all(callable(getattr(Lifecycle, effect_method(effect))) for effect in row.effects)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_core_follows_each_row(row: Row) -> None:
    """In a row's source state, the row's input leads to the row's destination and effects."""
    lifecycle = Lifecycle(600.0, 300.0, 0.0)
    lifecycle.decide(Input.EVENT, 0.0)
    if row.source is not SessionState.FOREGROUND_ACTIVE:
        lifecycle.decide(Input.BACKGROUND, 0.0)
    now = 1.0
    if row.source is SessionState.EXPIRED_CHECKER_STOPPED:
        lifecycle.decide(Input.TICK, 300.0)
        now = 301.0
    elif row.guard is Guard.IS_OVER:
        now = lifecycle.timeout
    assert lifecycle.state is row.source
    events = lifecycle.event_count
    lifecycle.decide(Command.START_CHECKER if row.input is Input.RESUME else row.input, now)
    assert lifecycle.state is row.destination
    assert lifecycle.checker_running is (row.destination is not SessionState.EXPIRED_CHECKER_STOPPED)
    renewed = "renew" in row.effects
    assert lifecycle.event_count == (0 if renewed else events + bool({"activity", "count"}.intersection(row.effects)))


def test_transitions_log_lines_are_suppressed(caplog: pytest.LogCaptureFixture) -> None:
    """INFO messages from our machine do not reach the host program's log, but those from other machines do."""
    caplog.set_level(logging.DEBUG)
    lifecycle = Lifecycle(600.0, 300.0, 0.0)
    lifecycle.decide(Input.EVENT, 0.0)
    lifecycle.decide(Input.BACKGROUND, 300.0)
    assert caplog.records == []
    other_machine = Machine(states=["a", "b"], initial="a", transitions=[["go", "a", "b"]], name="other")
    other_machine.trigger("go")
    assert any("other" in record.getMessage() for record in caplog.records)
