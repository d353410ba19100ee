"""Benchmark results: rows of measured figures, the machine, and differences from the stored results."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSIONED = (
    "attrs", "filelock", "platformdirs", "transitions", "python-statemachine", "pyperf", "snowplow-tracker",
    "opentelemetry-sdk",
)  # fmt: skip
EVENT_ROW = "event"
"""The name of the chart's first row."""
EVENT_COMPARISON = "event versus "
"""The name prefix of the rows that compare the cost of an event with that of other implementations."""
TOLERANCE = 0.25
"""The largest relative difference allowed between a measured ratio and the stored one."""


@attrs.frozen
class Bar:
    """A limit for a value: an upper limit, or a lower limit if ``at_least`` is true."""

    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit

    def used_share(self, value: float) -> float:
        """Return a value as a share of the limit. A share above 1.0 means that the limit is not met."""
        if value == self.limit:  # both may be 0
            return 1.0
        return self.limit / value if self.at_least else value / self.limit

    def __str__(self) -> str:
        """Return the limit as a string, such as ``≤ 1.5``."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@attrs.frozen(kw_only=True)
class Row:
    """A measured figure and the reference to compare it with."""

    name: str
    ours: float
    """The session's figure, in ``unit``."""
    reference: float | None = None
    """The figure to compare ``ours`` with, in ``unit``; ``None`` if the row has no reference."""
    against: str = ""
    """The name of the reference."""
    unit: str
    value: float
    """The value that `bar` applies to: a ratio, or ``ours`` if there is no reference."""
    low: float
    """The smallest value in any round."""
    high: float
    """The largest value in any round."""
    bar: Bar | None = None
    """The limit for ``value``; ``None`` if the row is only informational."""

    @classmethod
    def of_rounds(  # noqa: PLR0913  # the fields of a row
        cls,
        name: str,
        ours: Sequence[float],
        reference: Sequence[float],
        *,
        against: str,
        unit: str,
        bar: Bar | None = None,
        speedup: bool = False,
    ) -> Self:
        """Create a row from rounds in which other load slows both figures equally. The value is the median ratio.

        The ratio is the session's figure divided by the reference, or the inverse if ``speedup`` is true.
        """
        ratios = [b / a if speedup else a / b for a, b in zip(ours, reference, strict=True)]
        return cls(
            name=name,
            ours=statistics.median(ours),
            reference=statistics.median(reference),
            against=against,
            unit=unit,
            value=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            bar=bar,
        )

    @classmethod
    def of_values(cls, name: str, values: Sequence[float], *, unit: str, bar: Bar | None = None) -> Self:
        """Create a row from the smallest measured figure, since other load on the machine can only increase figures."""
        smallest = min(values)
        return cls(name=name, ours=smallest, unit=unit, value=smallest, low=smallest, high=max(values), bar=bar)

    @property
    def is_ratio(self) -> bool:
        """Whether the value is a ratio, which can be compared across machines."""
        return self.reference is not None

    @property
    def shown(self) -> str:
        """The value as a string, with its unit."""
        return f"{_three_digits(self.value)} {self._unit_of_value}".rstrip()

    @property
    def limit(self) -> str:
        """The limit as a string, with its unit, or an empty string if there is no limit."""
        return "" if self.bar is None else f"{self.bar} {self._unit_of_value}".rstrip()

    @property
    def _unit_of_value(self) -> str:
        return "\N{MULTIPLICATION SIGN}" if self.is_ratio else self.unit

    @property
    def holds(self) -> bool | None:
        """Whether the value meets its limit; ``None`` if the row has no limit."""
        return None if self.bar is None else self.bar.holds(self.value)


def find_changes(stored: Sequence[Row], measured: Sequence[Row]) -> list[str]:
    """Return a message for each measured row that differs from the stored row of the same name.

    A ratio differs if its relative deviation from the stored one exceeds `TOLERANCE`. An absolute figure differs if it
    no longer meets its limit.
    """
    before = {row.name: row for row in stored}
    changes: list[str] = []
    for row in measured:
        if row.bar is None:
            continue
        old = before.get(row.name)
        if old is None:
            changes.append(f"{row.name}: no stored result")
        elif not row.is_ratio:
            if old.holds and not row.holds:
                changes.append(f"{row.name}: {row.value:.3g} {row.unit} no longer meets the limit {row.bar}")
        elif abs(row.value / old.value - 1) > TOLERANCE:
            changes.append(f"{row.name}: {row.value:.3g} x, but the stored result is {old.value:.3g} x")
    return changes


def machine(packages: Sequence[str] = VERSIONED) -> dict[str, Any]:
    """Return the date, the machine and the package versions of this measurement."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: version(name) for name in packages},
    }


def write(path: Path, rows: Sequence[Row], measured_on: dict[str, Any]) -> None:
    """Write the results as JSON."""
    content = {"machine": measured_on, "rows": [_as_json(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Read the results from a file that `write` created."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_from_json(row) for row in content["rows"]], content["machine"]


def _as_json(row: Row) -> dict[str, Any]:
    rounded = {
        key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in attrs.asdict(row).items()
    }
    return rounded | {"holds": row.holds}


def _from_json(fields: dict[str, Any]) -> Row:
    bar = fields["bar"] and Bar(**fields["bar"])
    return Row(**{key: value for key, value in fields.items() if key not in {"bar", "holds"}}, bar=bar)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004  # integers from 100 up have at least three digits


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
