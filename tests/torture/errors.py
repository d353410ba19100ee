"""Every error at every system call of a load and a save, once and for ever."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from torture.fault import Fault, Outcome, Scale
from torture.living import Life, make_old
from torture.strace import Call, Ending, run_traced
from torture.warm import share_out

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "EMFILE", "EINTR", "ENOMEM")

# They concern no file, or cannot fail.
_NO_FILE = {"clock_nanosleep", "exit_group", "futex", "getpid", "getrandom", "gettid", "rt_sigaction", "rt_sigprocmask"}
_INDISPENSABLE = {"write", "fsync", "rename"}
_IRREPLACEABLE = {"write", "fsync"}
SAMPLE = 61
"""Of so many cases, one is taken for the suite."""


@attrs.frozen
class Scenario:
    """When the errors begin: at a start or later, with or without an old file."""

    name: str
    old: bool
    running: bool
    linked: bool = False
    closing: bool = False

    def begin(self, place: Path) -> Path:
        """Make the folder as it is before, and return the save path."""
        shutil.rmtree(place / "made", ignore_errors=True)
        path = place / "made" / "session" / "session.xml"
        if self.old:
            make_old(path)
        if not self.linked:
            return path
        link = place / "made" / "link.xml"
        link.symlink_to(path)
        return link


SCENARIOS = (
    Scenario("a first start", old=False, running=False),
    Scenario("a later start", old=True, running=False),
    Scenario("a later start by a link", old=True, running=False, linked=True),
    Scenario("a running session", old=True, running=True),
    Scenario("a close", old=True, running=True, closing=True),
)


@attrs.frozen
class Case:
    """One error, at one system call or from there on."""

    scenario: Scenario
    call: Call
    error: str
    for_ever: bool

    def __str__(self) -> str:
        """Name it."""
        span = "from there on" if self.for_ever else "once"
        return f"{self.scenario.name}, {self.call.name} {self.call.number} fails with {self.error} {span}"

    @property
    def expression(self) -> str:
        """For strace. Interruptions come in a long row at most: what is interrupted is tried again."""
        first = self.call.number
        when = f"{first}..{first + 99}" if self.error == "EINTR" else f"{first}+"
        return f"inject={self.call.name}:error={self.error}:when={when if self.for_ever else first}"

    @property
    def fails(self) -> bool:
        """Tell whether no save can be made, or made durable, from there on."""
        return self.for_ever and self.error != "EINTR" and self.call.name in _INDISPENSABLE

    @property
    def told(self) -> bool:
        """Tell whether nothing makes up for it, so that it is to be told."""
        return self.error != "EINTR" and self.call.name in _IRREPLACEABLE

    def apply(self, life: Life) -> None:
        """Tell a life what to expect."""
        life.once, life.removes = not self.for_ever, self.call.name != "unlink"
        life.fails, life.told = self.fails, self.told


def live(life: Life, scenario: Scenario, fault: AbstractContextManager[object]) -> list[str]:
    """Go through a fault as the scenario says, and return what was lost."""
    if scenario.closing:
        life.close_during(fault)
    else:
        life.go_through(fault)
    return life.losses


def run(scenario: Scenario, place: Path, case: Case | None = None) -> Ending:
    """Let a child's session live through a case, or through nothing; the ending has what it lost."""
    path = scenario.begin(place)

    def work(traced: AbstractContextManager[None]) -> list[str]:
        life = Life(path, scenario.running)
        if case is not None:
            case.apply(life)
        return live(life, scenario, traced)

    return run_traced(work, place / "trace", case.expression if case else "trace=all")


def all_cases(place: Path) -> list[Case]:
    """Return every error at every system call that a session makes in the scenarios, as they are found by tracing."""
    found: list[Case] = []
    for scenario in SCENARIOS:
        lost = live(Life(scenario.begin(place), scenario.running), scenario, contextlib.nullcontext())  # warms up
        ending = run(scenario, place)
        assert not lost + ending.returned, (scenario.name, lost, ending.returned)
        calls = [call for call in ending.calls if call.name not in _NO_FILE]
        found += itertools.starmap(Case, itertools.product((scenario,), calls, ERRORS, (False, True)))
    return found


def fail_share(share: int, shares: int, scale: Scale) -> Outcome:
    """Go through one share of the cases."""
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as folder:
        place = Path(folder)
        everything = all_cases(place)
        cases = everything[share :: shares * (SAMPLE if scale is Scale.FAST else 1)]
        for case in cases:
            ending = run(case.scenario, place, case)
            lost = ending.returned
            if ending.status != 0:
                lost = [f"the process ended with {ending.status}"]
            elif not ending.injected:
                lost = ["it did not happen"]
            losses.extend(f"{case}: {loss}" for loss in lost)
    names = sorted({case.call.name for case in everything})
    return Outcome(len(cases), tuple(losses), f"{len(names)} system calls ({', '.join(names)}), {len(ERRORS)} errors")


def fail(scale: Scale) -> Outcome:
    """Go through all of them."""
    return share_out(fail_share, scale)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "each system call of loading and saving fails with each error, once and for ever",
        "an exception, a user id, a file neither old nor new, a save at the next tick, a failure told of not once",
        fail,
    ),
)
