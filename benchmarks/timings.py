"""Micro-benchmarks of events, JSON, construction and import, timed by `pyperf` in several rounds.

``python -m benchmarks.timings`` is a pyperf script that runs each benchmark in its own worker processes, one after
another. `measure` runs it several times, in short rounds, so that other load slows both a figure and its reference.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyperf  # type: ignore[import-untyped]  # pyperf has no type hints

from benchmarks.results import EVENT_COMPARISON, EVENT_ROW, Bar, Row

ROUNDS = 5
_VALUES = 60
"""The number of short measurements of each benchmark per round. Only the fastest is used."""
_MIN_SECONDS = 0.002
_STARTS = 10
"""The number of measurements per round of each benchmark that starts an interpreter."""

_TRACKING = """
import json, uuid
from benchmarks.minimal import MinimalSession
from benchmarks.state_machines import StatemachineSession, TransitionsSession
from client_session import ClientSession
from client_session_persistence import MemoryStore
tracked = {}
text, uuid_object = str(uuid.uuid4()), uuid.uuid4()
track = tracked.get_session_context
track(text)
"""
_SESSION = _TRACKING.format("ClientSession(store=MemoryStore())")
_CONSTRUCTION = """
from benchmarks.parsing import collect_values, create_save_file, parse
from client_session import ClientSession
from client_session.testing import ManualScheduler
scheduler = ManualScheduler()
path = str(create_save_file("construct"))
alive = []
"""
STATEMENTS: dict[str, tuple[str, str]] = {
    "minimal": ("track(text)", _TRACKING.format("MinimalSession()")),
    "session": ("track(text)", _SESSION),
    "session, UUID": ("track(uuid_object)", _SESSION),
    "transitions": ("track(text)", _TRACKING.format("TransitionsSession()")),
    "statemachine": ("track(text)", _TRACKING.format("StatemachineSession()")),
    "event to JSON": ("track(text).to_json()", _SESSION),
    "dumps": ("json.dumps(entity)", _SESSION + "entity = track(text).to_dict()"),
    "construct": ("alive.append(ClientSession(path))", _CONSTRUCTION),
    "construct, no thread": ("alive.append(ClientSession(path, scheduler=scheduler))", _CONSTRUCTION),
    "parse": ("parse(path)", _CONSTRUCTION),
    "collect": ("collect_values(path)", _CONSTRUCTION),
}
_COMMANDS = {
    "nothing": "pass",
    "dependencies": "import attrs, filelock, platformdirs, transitions",
    "client_session": "import client_session",
}


def measure() -> list[Row]:
    """Run the rounds, and compare the figures."""
    with TemporaryDirectory() as folder:
        rounds = [_one_round(Path(folder) / f"{number}.json") for number in range(ROUNDS)]

    def best(name: str, scale: float) -> list[float]:
        # Each round's figure is already the fastest of many values, since other load can only add time.
        return [one[name] * scale for one in rounds]

    nano, micro, milli = 1e9, 1e6, 1e3
    session, minimal = best("session", nano), best("minimal", nano)
    start = best("nothing", milli)
    without_start = {
        name: [a - b for a, b in zip(best(name, milli), start, strict=True)]
        for name in ("client_session", "dependencies")
    }
    return [
        Row.of_rounds(EVENT_ROW, session, minimal, against="minimal implementation", unit="ns", bar=Bar(1.35)),
        Row.of_rounds(
            "event with a UUID object as id",
            best("session, UUID", nano),
            minimal,
            against="minimal implementation",
            unit="ns",
        ),
        Row.of_rounds(
            f"{EVENT_COMPARISON}transitions",
            session,
            best("transitions", nano),
            against="transitions for every event",
            unit="ns",
            bar=Bar(5, at_least=True),
            speedup=True,
        ),
        Row.of_rounds(
            f"{EVENT_COMPARISON}python-statemachine",
            session,
            best("statemachine", nano),
            against="python-statemachine for every event",
            unit="ns",
            bar=Bar(50, at_least=True),
            speedup=True,
        ),
        Row.of_rounds(
            "event to JSON text",
            best("event to JSON", nano),
            best("dumps", nano),
            against="json.dumps of the entity",
            unit="ns",
            bar=Bar(2.8, at_least=True),
            speedup=True,
        ),
        Row.of_rounds(
            "importing client_session",
            without_start["client_session"],
            without_start["dependencies"],
            against="importing its dependencies",
            unit="ms",
            bar=Bar(1.1),
        ),
        Row.of_rounds(
            "process that imports client_session",
            best("client_session", milli),
            best("dependencies", milli),
            against="process that imports its dependencies",
            unit="ms",
        ),
        Row.of_rounds(
            "constructing a session from a save file",
            best("construct", micro),
            best("parse", micro),
            against="expat parse",
            unit="µs",
            bar=Bar(4),
        ),
        Row.of_rounds(
            "constructing a session versus reading values",
            best("construct", micro),
            best("collect", micro),
            against="expat parse that collects values",
            unit="µs",
        ),
        Row.of_rounds(
            "constructing a session without a thread",
            best("construct, no thread", micro),
            best("parse", micro),
            against="expat parse",
            unit="µs",
        ),
    ]


def _one_round(file: Path) -> dict[str, float]:
    subprocess.run(  # noqa: S603  # this module itself
        [sys.executable, "-m", "benchmarks.timings", "--quiet", f"--output={file}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    suite = pyperf.BenchmarkSuite.load(str(file))
    return {bench.get_name(): min(bench.get_values()) for bench in suite.get_benchmarks()}


def _cpu_seconds(loops: int, code: str) -> float:
    """Return the total CPU seconds (not wall-clock time) that ``loops`` new interpreters use to run the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(loops):
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # this interpreter
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run each benchmark with the options that pyperf reads from the command line."""
    runner = pyperf.Runner(_VALUES, 1, min_time=_MIN_SECONDS, program_args=("-m", "benchmarks.timings"))
    options = runner.parse_args()
    for name, (statement, setup) in STATEMENTS.items():
        runner.timeit(name, statement, setup)
    options.values = _STARTS
    for name, code in _COMMANDS.items():
        runner.bench_time_func(name, _cpu_seconds, code)


if __name__ == "__main__":
    main()
