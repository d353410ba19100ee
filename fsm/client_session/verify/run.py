"""Complete verification: exploration, short path, schedules, visitors, logs and model."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from client_session.testing.strategies import timelines
from client_session.verify import exploration, model, offline, offline_check, schedules, short_path, visitors
from client_session.verify.offline_check import Chunk, CutLog, installed
from client_session.verify.tally import Sample, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client_session.input_log import InputRecord
    from client_session.lifecycle import Lifecycle
    from client_session.testing.driver import SessionOptions
    from client_session.testing.trace import Step
    from client_session.verify.exploration import Exploration
    from client_session.verify.offline import LogSettings
    from client_session.verify.schedules import Schedule

INVARIANTS = {
    **exploration.INVARIANTS,
    **short_path.INVARIANTS,
    **schedules.INVARIANTS,
    **visitors.INVARIANTS,
    **offline_check.INVARIANTS,
    **model.INVARIANTS,
}
"""The name and meaning of each invariant, in the order in which the invariants are checked."""

PARTS = ("exploration", "short path", "schedules", "visitors", "offline", "model")


@attrs.frozen
class Failure:
    """A part that failed, and its shortest failing trace (``None`` if the failure does not come from a trace)."""

    part: str
    message: str
    sample: Sample | None


@attrs.define
class Verification:
    """The results of a verification."""

    examples: int
    seed: int
    length: int
    tally: Tally = attrs.field(factory=Tally)
    explored: Exploration | None = None
    timelines: int = 0
    """The number of short timelines in which visitors were compared with a `ClientSession`."""
    logs: int = 0
    """The number of short logs that were sessionized."""
    sessionizers: tuple[str, ...] = ()
    """The names of the engines that sessionized logs."""
    failures: list[Failure] = attrs.field(factory=list["Failure"])
    seconds: float = 0.0
    meanings: Mapping[str, str] = attrs.field(init=False, default=INVARIANTS)
    """The name and meaning of each invariant."""


def totals(examples: int, length: int) -> dict[str, int]:
    """Return the number of cases of each part."""
    chunks = sum(
        offline_check.chunk_count(number, chosen) for chosen in offline.SETTINGS for number in range(1, length + 1)
    )
    return dict.fromkeys(PARTS, examples) | {
        "exploration": 1,
        "visitors": visitors.short_count(length) + examples,
        "offline": chunks + examples,
    }


def verify(examples: int, seed_number: int, length: int, progress: Callable[[str], object]) -> Verification:
    """Run every part and return the results.

    ``examples`` is the number of random cases per part. Visitors are compared on all timelines of at most ``length``
    inputs, and all logs of this length are sessionized; on SQLite, which takes longest, they are one input shorter.
    """
    result = Verification(examples, seed_number, length)
    begin = time.monotonic()
    for part, run in zip(PARTS, (_explore, _short_path, _schedules, _visitors, _offline, _model), strict=True):
        sample: list[Sample] = []
        try:
            run(result, sample, progress)
        except Exception as error:  # noqa: BLE001  # any error that a broken session raises is a failure
            message = f"{type(error).__name__}: {error}"
            shortest = getattr(error, "sample", None) or (sample[-1] if sample else None)
            result.failures.append(Failure(part, message, shortest))
    result.seconds = time.monotonic() - begin
    return result


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),  # Phase.explain is omitted: it takes a minute, and the trace is enough
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]  # its metaclass hides the type
        verbosity=Verbosity.quiet,
    )


def _explore(result: Verification, _: list[Sample], progress: Callable[[str], object]) -> None:
    result.explored = exploration.explore(result.tally)
    progress("exploration")


def _short_path(result: Verification, _: list[Sample], progress: Callable[[str], object]) -> None:
    @seed(result.seed)
    @_settings(result.examples)
    @given(short_path.lifecycles(), st.booleans())
    def compare(drawn: tuple[Lifecycle, float], extend: bool) -> None:  # noqa: FBT001  # Hypothesis passes it by position
        progress("short path")
        short_path.check_short_path(*drawn, result.tally, extend=extend)

    compare()


def _schedules(result: Verification, sample: list[Sample], progress: Callable[[str], object]) -> None:
    @seed(result.seed)
    @_settings(result.examples)
    @given(timelines(), schedules.SCHEDULES, schedules.SCHEDULES, schedules.OPTIONS)
    def compare(timeline: list[Step], first: Schedule, second: Schedule, options: SessionOptions) -> None:
        progress("schedules")
        sample[:] = [Sample(options, schedules.with_ticks(timeline, first))]
        schedules.check_schedules(timeline, first, second, options, result.tally)

    compare()


def _visitors(result: Verification, sample: list[Sample], progress: Callable[[str], object]) -> None:
    def compare(drawn: tuple[list[Step], SessionOptions]) -> None:
        timeline, options = drawn
        sample[:] = [Sample(options, timeline)]
        visitors.check_visitors(timeline, options, result.tally)

    for each in visitors.short_timelines(result.length):
        progress("visitors")
        compare(each)
        result.timelines += 1

    @seed(result.seed)
    @_settings(result.examples)
    @given(visitors.TIMELINES)
    def compare_random(drawn: tuple[list[Step], SessionOptions]) -> None:
        progress("visitors")
        compare(drawn)

    compare_random()


def _offline(result: Verification, _: list[Sample], progress: Callable[[str], object]) -> None:
    sqlite, *others = sessionizers = installed()
    result.sessionizers = tuple(each.name for each in sessionizers)
    chance = random.Random(result.seed)  # noqa: S311  # repeatable, not secret
    for chosen, length in itertools.product(offline.SETTINGS, range(1, result.length + 1)):
        for chunk in offline_check.chunks(length, chosen, chance):
            is_short = length < result.length
            offline_check.check_chunk(chunk, [sqlite, *others] if is_short else others, result.tally)
            result.logs += len(chunk.logs)
            progress("offline")
    # Queries take long to plan, so each runs once for all random logs with the same settings.
    drawn: dict[LogSettings, list[CutLog]] = {}

    @seed(result.seed)
    @_settings(result.examples)
    @given(offline.random_logs(), st.sampled_from(offline.SETTINGS), st.floats(0, 1))
    def draw(records: list[InputRecord], chosen: LogSettings, part: float) -> None:
        progress("offline")
        logs = drawn.setdefault(chosen, [])
        for user_id in dict.fromkeys(record.user_id for record in records):
            log = [attrs.evolve(each, user_id=f"user-{len(logs)}") for each in records if each.user_id == user_id]
            logs.append(CutLog(log, round(part * len(log))))

    draw()
    for chosen, logs in drawn.items():
        offline_check.check_chunk(Chunk(logs, chosen), sessionizers, result.tally)


def _model(result: Verification, sample: list[Sample], progress: Callable[[str], object]) -> None:
    @seed(result.seed)
    class Model(model.SessionModel):
        """The model, with this verification's tally."""

        tally = result.tally

        def teardown(self) -> None:
            """Report progress and record the steps. Hypothesis runs the shortest failing example last."""
            progress("model")
            options, steps = type(self).last_run
            sample[:] = [Sample(options, steps)]
            super().teardown()

    run_state_machine_as_test(Model, settings=_settings(result.examples))
