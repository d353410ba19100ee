"""``make torture``: run every fault in full, print one table and write it to SECURITY.md."""

from __future__ import annotations

import platform
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from torture.catalog import FAULTS
from torture.fault import CannotRunError, Outcome, Scale

SECURITY = Path(__file__).parents[2] / "SECURITY.md"
_TABLE = re.compile(r"(?<=<!-- torture -->\n).*(?=<!-- /torture -->)", re.DOTALL)


def main() -> None:
    """Run all faults, or those whose names contain one of the arguments; exit with status 1 if anything is lost."""
    wanted = sys.argv[1:]
    console = Console(highlight=False, soft_wrap=True)
    rows: list[str] = []
    lost = 0
    begin = time.monotonic()
    for fault in FAULTS:
        if wanted and not any(word in fault.name for word in wanted):
            continue
        start = time.monotonic()
        try:
            outcome = fault.run(Scale.FULL)
        except CannotRunError as error:
            outcome, shown = Outcome(0, (), f"skipped: {error}"), "-"
        else:
            shown = str(len(outcome.losses))
        seconds = time.monotonic() - start
        lost += len(outcome.losses)
        style = "red" if outcome.losses else "yellow" if shown == "-" else "green"
        console.print(f"[{style}]{shown:>5} lost[/] of {outcome.cases:>9,}  {seconds:6.1f} s  {fault.name}", end="")
        console.print(f"  [dim]{outcome.figures}[/]" if outcome.figures else "")
        for loss in outcome.losses[:10]:
            console.print(f"      {loss}", markup=False)
        rows.append(f"| {fault.name} | {outcome.cases:,} | {fault.lost} | {shown} | {outcome.figures} |\n")
    seconds = time.monotonic() - begin
    console.print(f"{len(rows)} faults, {lost} lost, {seconds:.0f} s")
    if lost:
        sys.exit(1)
    if not wanted:
        _write(rows, seconds)


def _write(rows: list[str], seconds: float) -> None:
    table = (
        f"{platform.system()} {platform.release().partition('-')[0]}, CPython {platform.python_version()}, "
        f"{seconds:.0f} s.\n\n"
        f"| fault | cases | what counts as lost | lost | measured |\n|---|---:|---|---:|---|\n{''.join(rows)}\n"
    )
    text = SECURITY.read_text(encoding="utf-8")
    SECURITY.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main()
