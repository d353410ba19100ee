"""Processes by the thousand: forked from an interpreter of their own that has everything loaded, and one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypedDict

from torture.fault import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Report(TypedDict):
    """What such an interpreter prints, as JSON."""

    cases: int
    losses: list[str]
    counts: dict[str, float]


_FOLDER = Path(__file__).parents[1]


def in_fresh_interpreters(module: str, arguments: Iterable[Iterable[str]]) -> list[Report]:
    """Run ``python -m module FOLDER argument…`` once for each arguments, at the same time; return what each printed.

    Each has a folder of its own, which is gone afterwards.

    Raises:
        CannotRunError: this system cannot fork.

    """
    if not hasattr(os, "fork"):
        message = "needs os.fork(), which this system has not got"
        raise CannotRunError(message)
    with tempfile.TemporaryDirectory(prefix="client-session-processes-") as folder:
        running: list[subprocess.Popen[str]] = []
        for number, each in enumerate(arguments):
            own = Path(folder, str(number))
            own.mkdir()
            command = [sys.executable, "-m", module, str(own), *each]
            running.append(subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True))  # noqa: S603  # our own
        printed = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [json.loads(text) for text in printed]


def environment() -> dict[str, str]:
    """Return that of an interpreter that finds these modules, and ours."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(_FOLDER), str(_FOLDER.parent)))}


def report(cases: int, losses: list[str], **counts: float) -> None:
    """Print what an interpreter found."""
    print(json.dumps({"cases": cases, "losses": losses, "counts": counts}))  # noqa: T201  # its output


def forked(work: Callable[[], object]) -> int:
    """Fork a child that does the work, tells by its exit status whether it could, and does nothing else."""
    process = os.fork()
    if process == 0:
        _work_and_leave(work)
    return process


def _work_and_leave(work: Callable[[], object]) -> NoReturn:
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  # whatever it is, a forked child must not run its parent's program
        traceback.print_exc()
    finally:
        os._exit(1)


def leftovers(path: Path) -> list[str]:
    """Return the names of a save file's temporary files."""
    return sorted(file.name for file in path.parent.glob(f"{path.name}*.tmp"))
