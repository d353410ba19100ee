"""``make torture``: run all cases of every fault, print the outcomes, and write them to SECURITY.md."""

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
    """Run all faults, or those whose names contain one of the arguments; update their rows in SECURITY.md.

    Exit with status 1, without writing, if anything is lost.
    """
    name_parts = sys.argv[1:]
    console = Console(highlight=False, soft_wrap=True)
    rows: dict[str, str] = {}
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
        rows[fault.name] = f"| {fault.name} | {outcome.cases:,} | {fault.loss} | {loss_count} | {outcome.figures} |\n"
    seconds = time.monotonic() - begin
    console.print(f"{len(rows)} faults, {total_losses} losses, {seconds:.0f} s")
    if total_losses:
        sys.exit(1)
    _write(rows)


def _write(rows: dict[str, str]) -> None:
    """Write these rows to the table; keep the other rows of faults that still exist."""
    text = SECURITY.read_text(encoding="utf-8")
    found = _TABLE.search(text)
    for line in found[0].splitlines(keepends=True) if found else ():
        rows.setdefault(line.removeprefix("| ").partition(" | ")[0], line)
    ordered = "".join(rows[fault.name] for fault in FAULTS if fault.name in rows)
    table = (
        f"{platform.system()} {platform.release().partition('-')[0]}, CPython {platform.python_version()}.\n\n"
        f"| fault | cases | what counts as a loss | losses | measured |\n|---|---:|---|---:|---|\n{ordered}\n"
    )
    SECURITY.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main()
