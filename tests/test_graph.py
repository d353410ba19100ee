"""The transition table matches the specification and is validated at import time."""

from __future__ import annotations

import re

import attrs
import pytest

from client_session.graph import TABLE, Effect, Guard, Input, Row, SessionState, check

# A copy of the table in section 2 of the specification.
SPECIFIED_TABLE = """
| foreground-active | event | | (same) | activity |
| foreground-active | passive | has events | (same) | count |
| foreground-active | tick | over | (same) | renew |
| foreground-active | background | | background-active | touch if so configured |
| foreground-active | foreground | | (same) | start checker |
| background-active | event | | (same) | activity |
| background-active | passive | has events | (same) | count |
| background-active | tick | over | expired-checker-stopped | renew, stop checker |
| background-active | foreground | | foreground-active | start checker, touch if so configured |
| background-active | background | | (same) | |
| expired-checker-stopped | event | | background-active | start checker, activity |
| expired-checker-stopped | foreground | | foreground-active | start checker |
| expired-checker-stopped | resume | | background-active | start checker |
| expired-checker-stopped | passive | | (same) | |
| expired-checker-stopped | tick | | (same) | |
| expired-checker-stopped | background | | (same) | |
"""


def test_states_match_the_specification() -> None:
    """There are exactly three states, and `str()` of a state returns its value."""
    assert {state.name: str(state) for state in SessionState} == {
        "FOREGROUND_ACTIVE": "foreground-active",
        "BACKGROUND_ACTIVE": "background-active",
        "EXPIRED_CHECKER_STOPPED": "expired-checker-stopped",
    }


def test_table_matches_the_specification() -> None:
    """Every row has the source, input, guard, destination and effects that the specification gives."""
    specified = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in SPECIFIED_TABLE.strip().splitlines()]
    assert specified == [
        (
            row.source.value,
            row.input.value,
            row.guard.value if row.guard else "",
            "(same)" if row.destination is row.source else row.destination.value,
            ", ".join(row.effects),
        )
        for row in TABLE
    ]


def test_every_row_has_a_reason() -> None:
    """Each reason is a sentence that ends with a period."""
    assert all(len(row.why) > 10 and row.why.endswith(".") for row in TABLE)


def test_row_is_shown_in_uml_notation() -> None:
    """A row's label has the form ``input [guard] / effects``."""
    row = TABLE[7]
    assert row.label == "tick [over] / renew, stop checker"
    assert str(row) == ("row 'background-active, tick [over] / renew, stop checker → expired-checker-stopped'")


FOREGROUND, BACKGROUND, EXPIRED = SessionState
INVALID_ROW = Row(FOREGROUND, Input.RESUME, None, FOREGROUND, (Effect.START_CHECKER,), "Not in the graph.")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*TABLE, attrs.evolve(TABLE[0], guard=Guard.IS_OVER)],
            f"{attrs.evolve(TABLE[0], guard=Guard.IS_OVER)} covers the same case as {TABLE[0]}",
        ),
        ([*TABLE[:5], *TABLE[6:]], "input 'event' in state 'background-active' has no row"),
        ([*TABLE, INVALID_ROW], "input 'resume' in state 'foreground-active' has a row"),
        (
            [attrs.evolve(row, destination=row.source) for row in TABLE],
            "no row leads to ['background-active', 'expired-checker-stopped'] from 'foreground-active'",
        ),
        (
            [attrs.evolve(TABLE[0], why=" "), *TABLE[1:]],
            "row 'foreground-active, event / activity → foreground-active' has no reason",
        ),
    ],
)
def test_invalid_table_is_rejected(rows: list[Row], message: str) -> None:
    """The error names the row, state or input at fault."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(rows)
