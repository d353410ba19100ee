"""What was measured: rows of two figures and their ratio, on which machine, and what changed since."""

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

COMPARED = ("attrs", "filelock", "platformdirs", "transitions", "python-statemachine", "pyperf")
AN_EVENT = "an event"
"""The row that the chart begins with."""
TOLERANCE = 0.25
"""How far a ratio may be from the stored one."""


@attrs.frozen
class Bar:
    """What is to be reached."""

    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def used(self, value: float) -> float:
        """Return the share of what is allowed that a value uses: 1.0 is just enough, more is too much."""
        return self.limit / value if self.at_least else value / self.limit

    def __str__(self) -> str:
        """Show it as the issue's table does."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@attrs.frozen(kw_only=True)
class Row:
    """One comparison."""

    name: str
    ours: float
    """In ``unit``, as ``reference``."""
    reference: float | None = None
    """What it is compared with; ``None``: with the bar alone."""
    against: str = ""
    """What the reference is."""
    unit: str
    value: float
    """What the bar judges: a ratio, or, without a reference, ``ours``."""
    low: float
    """The least and the greatest value of any round: how noisy it was."""
    high: float
    bar: Bar | None = None
    """``None``: for information."""

    @classmethod
    def of_rounds(  # noqa: PLR0913  # a row's facts
        cls,
        name: str,
        ours: Sequence[float],
        reference: Sequence[float],
        *,
        against: str,
        unit: str,
        bar: Bar | None = None,
        turned: bool = False,
    ) -> Self:
        """Compare round by round, since what disturbs a round disturbs both; the ratio is the median of the rounds'.

        ``turned``: the ratio is how many times the reference takes ours.
        """
        ratios = [b / a if turned else a / b for a, b in zip(ours, reference, strict=True)]
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
        """Hold a figure against a bar: the least that was measured, since whatever else the machine does only adds."""
        least = min(values)
        return cls(name=name, ours=least, unit=unit, value=least, low=least, high=max(values), bar=bar)

    @property
    def is_ratio(self) -> bool:
        """Whether it can be compared between machines."""
        return self.reference is not None

    @property
    def shown(self) -> str:
        """The value as text."""
        return f"{_three_digits(self.value)} {self._unit_of_value}".rstrip()

    @property
    def to_reach(self) -> str:
        """The bar as text; empty if there is none."""
        return "" if self.bar is None else f"{self.bar} {self._unit_of_value}".rstrip()

    @property
    def _unit_of_value(self) -> str:
        return "\N{MULTIPLICATION SIGN}" if self.is_ratio else self.unit

    @property
    def holds(self) -> bool | None:
        """Whether the bar is reached; ``None`` where there is none."""
        return None if self.bar is None else self.bar.holds(self.value)


def changed(stored: Sequence[Row], measured: Sequence[Row]) -> list[str]:
    """Return a sentence for each measured row that is not as stored.

    That is a ratio more than `TOLERANCE` away from the stored one, or an absolute figure that left its bar.
    """
    before = {row.name: row for row in stored}
    sentences: list[str] = []
    for row in measured:
        if row.bar is None:
            continue
        old = before.get(row.name)
        if old is None:
            sentences.append(f"{row.name}: not stored yet")
        elif not row.is_ratio:
            if old.holds and not row.holds:
                sentences.append(f"{row.name}: {row.value:.3g} {row.unit}, and {row.bar} was reached before")
        elif abs(row.value / old.value - 1) > TOLERANCE:
            sentences.append(f"{row.name}: {row.value:.3g} x, and {old.value:.3g} x is stored")
    return sentences


def machine() -> dict[str, Any]:
    """Say when, on what, and with which versions this is measured."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: version(name) for name in COMPARED},
    }


def write(path: Path, rows: Sequence[Row], measured_on: dict[str, Any]) -> None:
    """Write the results as JSON."""
    content = {"machine": measured_on, "rows": [_as_json(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Read what `write` wrote."""
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
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004  # from there, three digits or more


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
