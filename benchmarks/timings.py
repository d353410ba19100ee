"""Micro-benchmarks, timed by `pyperf` in several rounds: an event, its JSON, constructing, importing.

``python -m benchmarks.timings`` is a pyperf script; each benchmark runs in worker processes of its own, one after the
other. So a round is short, and `measure` takes many: what disturbs one disturbs ours and the reference alike.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyperf  # type: ignore[import-untyped]  # has no types

from benchmarks.results import AN_EVENT, Bar, Row

ROUNDS = 5
_VALUES = 60
"""Short ones, of which even a busy machine leaves some undisturbed: the best of a round is what counts."""
_SECONDS = 0.002
_STARTS = 10
"""Values of what takes an interpreter's start."""

_TRACKING = """
import json, uuid
from benchmarks.floor import Floor
from benchmarks.machines import StatemachineSession, TransitionsSession
from client_session import ClientSession
from client_session_persistence import MemoryStore
tracked = {}
text, made = str(uuid.uuid4()), uuid.uuid4()
track = tracked.get_session_context
track(text)
"""
_SESSION = _TRACKING.format("ClientSession(store=MemoryStore())")
_READING = """
from benchmarks.reading import a_save_file, collected, parsed
from client_session import ClientSession
from client_session.testing import ManualScheduler
scheduler = ManualScheduler()
path = str(a_save_file("construct"))
alive = []
"""
STATEMENTS: dict[str, tuple[str, str]] = {
    "floor": ("track(text)", _TRACKING.format("Floor()")),
    "session": ("track(text)", _SESSION),
    "session, UUID": ("track(made)", _SESSION),
    "transitions": ("track(text)", _TRACKING.format("TransitionsSession()")),
    "statemachine": ("track(text)", _TRACKING.format("StatemachineSession()")),
    "event to JSON": ("track(text).to_json()", _SESSION),
    "dumps": ("json.dumps(entity)", _SESSION + "entity = track(text).to_dict()"),
    "construct": ("alive.append(ClientSession(path))", _READING),
    "construct, no thread": ("alive.append(ClientSession(path, scheduler=scheduler))", _READING),
    "parse": ("parsed(path)", _READING),
    "collect": ("collected(path)", _READING),
}
_COMMANDS = {
    "nothing": "pass",
    "dependencies": "import attrs, filelock, platformdirs, transitions",
    "client_session": "import client_session",
}


def measure() -> list[Row]:
    """Run the rounds, and compare."""
    with TemporaryDirectory() as folder:
        rounds = [_one_round(Path(folder) / f"{number}.json") for number in range(ROUNDS)]

    def best(name: str, scale: float) -> list[float]:
        # Of one round, the best: whatever else the machine does only ever adds.
        return [one[name] * scale for one in rounds]

    nano, micro, milli = 1e9, 1e6, 1e3
    session, floor = best("session", nano), best("floor", nano)
    start = best("nothing", milli)
    without_start = {
        name: [a - b for a, b in zip(best(name, milli), start, strict=True)]
        for name in ("client_session", "dependencies")
    }
    return [
        Row.of_rounds(AN_EVENT, session, floor, against="the floor, by hand", unit="ns", bar=Bar(1.5)),
        Row.of_rounds(
            "an event whose id is a UUID", best("session, UUID", nano), floor, against="the floor, by hand", unit="ns"
        ),
        Row.of_rounds(
            "an event through transitions",
            session,
            best("transitions", nano),
            against="transitions, every event",
            unit="ns",
            bar=Bar(5, at_least=True),
            turned=True,
        ),
        Row.of_rounds(
            "an event through python-statemachine",
            session,
            best("statemachine", nano),
            against="python-statemachine, every event",
            unit="ns",
            bar=Bar(50, at_least=True),
            turned=True,
        ),
        Row.of_rounds(
            "an event to JSON text",
            best("event to JSON", nano),
            best("dumps", nano),
            against="json.dumps of the entity",
            unit="ns",
            bar=Bar(0.6),
        ),
        Row.of_rounds(
            "import of client_session",
            without_start["client_session"],
            without_start["dependencies"],
            against="import of its dependencies",
            unit="ms",
            bar=Bar(1.25),
        ),
        Row.of_rounds(
            "a process that imports client_session",
            best("client_session", milli),
            best("dependencies", milli),
            against="one that imports its dependencies",
            unit="ms",
        ),
        Row.of_rounds(
            "construct on a save file",
            best("construct", micro),
            best("parse", micro),
            against="read, expat",
            unit="µs",
            bar=Bar(4),
        ),
        Row.of_rounds(
            "construct, values collected",
            best("construct", micro),
            best("collect", micro),
            against="read, expat with handlers",
            unit="µs",
        ),
        Row.of_rounds(
            "construct, no thread",
            best("construct, no thread", micro),
            best("parse", micro),
            against="read, expat",
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


def _cpu_of_starts(times: int, code: str) -> float:
    """Return the CPU seconds of interpreters that run the code: none of them waits for anything but its turn."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(times):
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # this interpreter
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run each once, as pyperf's options say."""
    runner = pyperf.Runner(_VALUES, 1, min_time=_SECONDS, program_args=("-m", "benchmarks.timings"))
    options = runner.parse_args()
    for name, (statement, setup) in STATEMENTS.items():
        runner.timeit(name, statement, setup)
    options.values = _STARTS
    for name, code in _COMMANDS.items():
        runner.bench_time_func(name, _cpu_of_starts, code)


if __name__ == "__main__":
    main()
