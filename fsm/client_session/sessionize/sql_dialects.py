"""What the SQL of engines differs in, and the literals and names in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TABLES = frozenset(
    [
        "ages",
        "active",
        "carried_states",
        "checked",
        "clock_inputs",
        "clock_shifts",
        "clock_steps",
        "compared",
        "counted",
        "divided",
        "focus",
        "grouped",
        "hashed",
        "inputs",
        "known",
        "latest",
        "limits",
        "linked",
        "long_groups",
        "long_inputs",
        "long_lists",
        "marked",
        "newest",
        "numbered",
        "ordered",
        "placed",
        "pointers",
        "problems",
    ]
)
"""The names of all tables that a query defines."""
_TABLE_READ = re.compile(r"""(?:^|\bfrom\b|\bjoin\b)\s*["`]?(\w+)["`]?(?![\w.("`])""", re.IGNORECASE)


@attrs.frozen
class Dialect:
    """What an engine names differently. ``{}`` in a template is its argument."""

    microseconds: str
    """The microseconds since 1970 of a time."""
    time: str
    """The time of a number of microseconds since 1970."""
    position: str
    """The function that finds a text in another, from 1."""
    text: str = "VARCHAR"
    quote: str = '"'
    escaped: str = ""
    """The characters in literals that need a backslash; without any, quotes are doubled."""
    ignoring_nulls: str = ""
    """The call of a window function, with its arguments, that ignores nulls; empty if there is none."""
    has_lambdas: bool = False
    """Whether a function can fold an array, which is used instead of recursion."""
    inline: str = " NOT MATERIALIZED"
    """The keywords for a table that is read more than once, but is not worth storing."""

    few: str = ""
    """The hint that a query's rows are few, so that a join need not sort and send the other side's."""

    def name(self, text: str) -> str:
        """Return the name of a column or table."""
        return self.quote + text.replace(self.quote, self.quote * 2) + self.quote

    def literal(self, text: str) -> str:
        """Return a text."""
        for character in self.escaped:
            text = text.replace(character, f"\\{character}")
        return "'" + (text if self.escaped else text.replace("'", "''")) + "'"

    def uuid(self, digits: str) -> str:
        """Return the UUIDv8 with the digits of a hexadecimal hash, as `client_session.ids` does."""
        variant = f"substr('89ab', ({self.position}('0123456789abcdef', substr({digits}, 17, 1)) - 1) % 4 + 1, 1)"
        return (
            f"substr({digits}, 1, 8) || '-' || substr({digits}, 9, 4) || '-8' || substr({digits}, 14, 3) || '-' ||\n"
            f"         {variant} ||\n"
            f"         substr({digits}, 18, 3) || '-' || substr({digits}, 21, 12)"
        )


DIALECTS: Mapping[str, Dialect] = {
    "sqlite": Dialect("client_session_microseconds({})", "client_session_time({})", "instr"),
    "duckdb": Dialect("epoch_us({})", "make_timestamptz({})", "strpos", ignoring_nulls="{}({} IGNORE NULLS)"),
    "postgres": Dialect(
        "CAST(EXTRACT(EPOCH FROM {}) * 1000000 AS BIGINT)",
        "TIMESTAMPTZ '1970-01-01 00:00:00+00' + ({}) * INTERVAL '1 microsecond'",
        "strpos",
    ),
    "spark": Dialect(
        "unix_micros({})",
        "timestamp_micros({})",
        "instr",
        text="STRING",
        quote="`",
        escaped="\\'",
        ignoring_nulls="{}({}) IGNORE NULLS",
        has_lambdas=True,
        inline="",
        few="/*+ BROADCAST({}) */ ",
    ),
}


def dialect_named(name: str) -> Dialect:
    """Return a dialect; raise `ValueError` if there is none of this name."""
    if name not in DIALECTS:
        msg = f"dialect must be one of {', '.join(DIALECTS)}, not {shown(name)}"
        raise ValueError(msg)
    return DIALECTS[name]


def listed(names: Iterable[str]) -> str:
    """Return names of inputs for ``IN``."""
    return ", ".join(f"'{name}'" for name in names)


def case(*cases: tuple[str, object], otherwise: object = None) -> str:
    """Return the value of the first condition that is true."""
    text = " ".join(f"WHEN {condition} THEN {value}" for condition, value in cases)
    return f"CASE {text}{'' if otherwise is None else f' ELSE {otherwise}'} END"


def relation(argument: str, value: object) -> str:
    """Return what comes after ``FROM``.

    Raises:
        TypeError: it is not text.
        ValueError: it is empty, or reads a table with the name of one that the query defines.

    """
    if not isinstance(value, str) or not value.strip():
        msg = f"{argument} must be the text of a table or a subquery, not {shown(value)}"
        raise (ValueError if isinstance(value, str) else TypeError)(msg)
    if own := next((name for name in _TABLE_READ.findall(value.strip()) if name.lower() in TABLES), None):
        msg = f"{argument} must not read a table {own}, since the query defines one; add the schema: main.{own}"
        raise ValueError(msg)
    return value
