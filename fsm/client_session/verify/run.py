"""Complete verification: exploration, short path, schedules, visitors and model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from client_session.testing.strategies import timelines
from client_session.verify import exploration, model, schedules, short_path, visitors
from client_session.verify.tally import Sample, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client_session.lifecycle import Lifecycle
    from client_session.testing.driver import SessionOptions
    from client_session.testing.trace import Step
    from client_session.verify.exploration import Exploration
    from client_session.verify.schedules import Schedule

INVARIANTS = {
    **exploration.INVARIANTS,
    **short_path.INVARIANTS,
    **schedules.INVARIANTS,
    **visitors.INVARIANTS,
    **model.INVARIANTS,
}
"""The name and meaning of each invariant, in the order in which the invariants are checked."""

PARTS = ("exploration", "short path", "schedules", "visitors", "model")


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
    tally: Tally = attrs.field(factory=Tally)
    explored: Exploration | None = None
    timelines: int = 0
    """The number of short timelines in which visitors were compared with a `ClientSession`."""
    failures: list[Failure] = attrs.field(factory=list["Failure"])
    seconds: float = 0.0
    meanings: Mapping[str, str] = attrs.field(init=False, default=INVARIANTS)
    """The name and meaning of each invariant."""


def totals(examples: int) -> dict[str, int]:
    """Return the number of cases of each part."""
    return dict.fromkeys(PARTS, examples) | {"exploration": 1, "visitors": visitors.SHORT_COUNT + examples}


def verify(examples: int, seed_number: int, progress: Callable[[str], object]) -> Verification:
    """Run every part and return the results; ``examples`` is the number of random cases per part."""
    result = Verification(examples, seed_number)
    begin = time.monotonic()
    for part, run in zip(PARTS, (_explore, _short_path, _schedules, _visitors, _model), strict=True):
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

    for each in visitors.short_timelines():
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
