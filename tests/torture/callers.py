"""Calls from wherever a program may call: callbacks, log handlers, signal handlers, finalizers, and beside a tick.

Each row runs in an interpreter of its own, with a watchdog that ends it where it hangs, and shows where.
"""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torture import calling, closing
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.forking import environment

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a row hangs, and far more than any takes."""

ROWS: dict[str, tuple[str, Callable[[Path, Scale], list[str]]]] = {
    "callbacks": (
        "every method from every callback, of this and another session, here and on another thread that it waits for",
        calling.from_callbacks,
    ),
    "logging": (
        "a log handler of level DEBUG calls the session, here and on another thread that it waits for; 8 threads",
        calling.from_log_handlers,
    ),
    "signals": ("a signal handler calls every method, and closes", calling.from_signal_handlers),
    "finalizers": ("__del__ and weak references' callbacks call every method", calling.from_finalizers),
    "closing": ("close() while a tick is in the store, or in a callback", closing.beside_a_tick),
}


def _watched(row: str, scale: Scale) -> Outcome:
    """Run a row in an interpreter of its own."""
    with tempfile.TemporaryDirectory(prefix="client-session-callers-") as folder:
        done = subprocess.run(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-m", __name__, row, folder, scale.value],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return Outcome(1, (f"it hung or failed: {done.stderr[-2000:]}",))
    told = json.loads(lines[-1])
    if told["cannot"]:
        raise CannotRunError(told["cannot"])
    return Outcome(told["cases"], tuple(told["losses"]))


def _main(row: str, folder: str, scale: str) -> None:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    cannot, cases = "", list[str]()
    try:
        cases = ROWS[row][1](Path(folder), Scale(scale))
    except CannotRunError as error:
        cannot = str(error)
    except Exception:  # noqa: BLE001  # whatever it is, it is a loss
        cases = [traceback.format_exc()]
    losses = [case for case in cases if case]
    print(json.dumps({"cannot": cannot, "cases": len(cases), "losses": losses}))  # noqa: T201  # its output


FAULTS: tuple[Fault, ...] = tuple(
    Fault(name, "it hangs, fails, or numbers are skipped", partial(_watched, row)) for row, (name, _) in ROWS.items()
)

if __name__ == "__main__":
    _main(*sys.argv[1:])
