"""Processes that run the cases: a pool of workers, fresh single-threaded interpreters, and their forked children."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypedDict

from torture.fault import CannotRunError, Outcome, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_TESTS = Path(__file__).parents[1]
_CHECKOUT = _TESTS.parent


def environment() -> dict[str, str]:
    """Return an environment in which an interpreter can import this checkout's packages, tests and benchmarks."""
    folders = (_TESTS, _CHECKOUT, _CHECKOUT / "fsm", _CHECKOUT / "persistence")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def run_in_workers(run: Callable[[int, int, Scale], Outcome], scale: Scale, shards: int | None = None) -> Outcome:
    """Run ``run(shard, shards, scale)`` for each shard in its own process, and combine the outcomes.

    A worker is single-threaded and has already imported every module, so the children it forks start quickly.
    """
    if shards is None:
        shards = 1 if scale is Scale.SAMPLE else os.cpu_count() or 1
    with ProcessPoolExecutor(shards, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = list(pool.map(run, range(shards), itertools.repeat(shards), itertools.repeat(scale)))
    return Outcome(
        sum(outcome.cases for outcome in outcomes),
        tuple(loss for outcome in outcomes for loss in outcome.losses),
        outcomes[0].figures,
    )


class Report(TypedDict):
    """The JSON that a fresh interpreter prints."""

    cases: int
    losses: list[str]
    counts: dict[str, float]


def run_in_fresh_interpreters(
    module: str, arguments: Iterable[Iterable[str]], variables: Mapping[str, str] | None = None
) -> list[Report]:
    """Run ``python -m module FOLDER argument…`` once for each list of arguments, concurrently; return the reports.

    Each interpreter gets its own temporary folder, and the environment variables in ``variables``.

    Raises:
        CannotRunError: this system cannot fork.

    """
    if not hasattr(os, "fork"):
        message = "needs os.fork(), which this system does not have"
        raise CannotRunError(message)
    with tempfile.TemporaryDirectory(prefix="client-session-processes-") as folder:
        running: list[subprocess.Popen[str]] = []
        variables = {**environment(), **(variables or {})}
        for number, each in enumerate(arguments):
            own_folder = Path(folder, str(number))
            own_folder.mkdir()
            command = [sys.executable, "-m", module, str(own_folder), *each]
            running.append(subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True))  # noqa: S603  # our own
        printed = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [json.loads(text) for text in printed]


def print_report(cases: int, losses: list[str], **counts: float) -> None:
    """Print this interpreter's report."""
    print(json.dumps({"cases": cases, "losses": losses, "counts": counts}))  # noqa: T201  # read by the parent


def fork_child(work: Callable[[], object]) -> int:
    """Fork a child that calls ``work`` and exits, with status 0 on success; return its process id."""
    process = os.fork()
    if process == 0:
        _work_and_exit(work)
    return process


def _work_and_exit(work: Callable[[], object]) -> NoReturn:
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  # a forked child must never continue its parent's program
        traceback.print_exc()
    finally:
        os._exit(1)


def temporary_files(path: Path) -> list[str]:
    """Return the names of a save file's temporary files."""
    return sorted(file.name for file in path.parent.glob(f"{path.name}*.tmp"))
