"""``make torture``: run all cases of every fault, print a table, and write it to SECURITY.md."""

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
    name_parts = sys.argv[1:]
    console = Console(highlight=False, soft_wrap=True)
    rows: list[str] = []
    total_losses = 0
    begin = time.monotonic()
    for fault in FAULTS:
        if name_parts and not any(part in fault.name for part in name_parts):
            continue
        start = time.monotonic()
        try:
            outcome = fault.run(Scale.FULL)
        except CannotRunError as error:
            outcome, loss_count = Outcome(0, (), f"skipped: {error}"), "-"
        else:
            loss_count = str(len(outcome.losses))
        seconds = time.monotonic() - start
        total_losses += len(outcome.losses)
        style = "red" if outcome.losses else "yellow" if loss_count == "-" else "green"
        console.print(
            f"[{style}]{loss_count:>5} losses[/] in {outcome.cases:>9,} cases  {seconds:6.1f} s  {fault.name}", end=""
        )
        console.print(f"  [dim]{outcome.figures}[/]" if outcome.figures else "")
        for loss in outcome.losses[:10]:
            console.print(f"      {loss}", markup=False)
        rows.append(f"| {fault.name} | {outcome.cases:,} | {fault.loss} | {loss_count} | {outcome.figures} |\n")
    seconds = time.monotonic() - begin
    console.print(f"{len(rows)} faults, {total_losses} losses, {seconds:.0f} s")
    if total_losses:
        sys.exit(1)
    if not name_parts:
        _write(rows, seconds)


def _write(rows: list[str], seconds: float) -> None:
    table = (
        f"{platform.system()} {platform.release().partition('-')[0]}, CPython {platform.python_version()}, "
        f"{seconds:.0f} s.\n\n"
        f"| fault | cases | what counts as a loss | losses | measured |\n|---|---:|---|---:|---|\n{''.join(rows)}\n"
    )
    text = SECURITY.read_text(encoding="utf-8")
    SECURITY.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main()
