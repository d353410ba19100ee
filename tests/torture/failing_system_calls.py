"""Make each system call in a load and a save fail with each possible error, both once and permanently."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session_persistence import SqliteStore, XmlStore
from client_session_persistence.atomic_file import check_folder
from torture.fault import Fault, Outcome, Scale
from torture.strace import Call, TracedRun, run_traced
from torture.survivor import Survivor, create_old_file
from torture.worker_pool import run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torture.survivor import FileStoreClass

ERRORS = {
    XmlStore: ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "EMFILE", "EINTR", "ENOMEM"),
    SqliteStore: ("EIO", "ENOSPC", "EACCES", "EMFILE", "EINTR"),  # SQLite distinguishes even fewer
}
"""The errors of each store's calls. If fcntl fails, SQLite waits as if another program had a lock, up to ten seconds in
total, so the torture lets it fail only with EIO and only once."""

# These calls do not involve a file or cannot fail.
UNAFFECTED_CALLS = {
    "clock_nanosleep",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "rt_sigaction",
    "rt_sigprocmask",
}
_CALLS_THAT_SAVING_NEEDS = {XmlStore: {"write", "fsync", "rename"}, SqliteStore: {"fdatasync"}}
_CALLS_WITHOUT_FALLBACK = {XmlStore: {"write", "fsync"}, SqliteStore: {"fdatasync"}}
SAMPLING_INTERVAL = {XmlStore: 61, SqliteStore: 401}
"""The interval at which the test suite samples cases."""


@attrs.frozen
class Scenario:
    """The state of the session and its files when the errors begin."""

    name: str
    has_file: bool
    running: bool
    linked: bool = False
    closing: bool = False
    store: FileStoreClass = XmlStore

    def prepare(self, folder: Path) -> Path:
        """Create the scenario's files in a folder, and return the save path."""
        shutil.rmtree(folder / "created", ignore_errors=True)
        path = folder / "created" / "session" / "session.xml"
        if self.has_file:
            create_old_file(path, self.store)
        check_folder.cache_clear()  # a new folder may have the inode of one that this process has checked
        if not self.linked:
            return path
        link = folder / "created" / "link.xml"
        link.symlink_to(path)
        return link


SCENARIOS = (
    Scenario("first start", has_file=False, running=False),
    Scenario("later start", has_file=True, running=False),
    Scenario("later start through a link", has_file=True, running=False, linked=True),
    Scenario("running session", has_file=True, running=True),
    Scenario("close", has_file=True, running=True, closing=True),
)


@attrs.frozen
class Injection:
    """One error, injected into one system call and, if ``permanent``, into all later calls of the same name."""

    call: Call
    error: str
    permanent: bool

    def __str__(self) -> str:
        """Describe the error."""
        duration = "permanently" if self.permanent else "once"
        return f"{self.call.name} {self.call.number} fails with {self.error} {duration}"

    @property
    def expression(self) -> str:
        """The strace expression. EINTR is injected at most 100 times, since interrupted calls are retried."""
        first = self.call.number
        when = f"{first}..{first + 99}" if self.error == "EINTR" else f"{first}+"
        return f"inject={self.call.name}:error={self.error}:when={when if self.permanent else first}"


@attrs.frozen(str=False)
class Case(Injection):
    """One error in one scenario."""

    scenario: Scenario

    def __str__(self) -> str:
        """Describe the case."""
        return f"{self.scenario.name}, {super().__str__()}"

    @property
    def saves_fail(self) -> bool:
        """Whether every subsequent save fails or is not durable."""
        needed = _CALLS_THAT_SAVING_NEEDS[self.scenario.store]
        return self.permanent and self.error != "EINTR" and self.call.name in needed

    @property
    def must_log(self) -> bool:
        """Whether a failure must be logged because the call has no fallback."""
        return self.error != "EINTR" and self.call.name in _CALLS_WITHOUT_FALLBACK[self.scenario.store]

    def set_expectations(self, survivor: Survivor) -> None:
        """Set a survivor's expectations for this case."""
        survivor.transient, survivor.can_unlink = not self.permanent, self.call.name != "unlink"
        survivor.saves_fail, survivor.must_log = self.saves_fail, self.must_log


def run_survivor(survivor: Survivor, scenario: Scenario, fault: AbstractContextManager[object]) -> list[str]:
    """Expose a survivor to a fault in a scenario, and return the survivor's losses."""
    if scenario.closing:
        survivor.close_during(fault)
    else:
        survivor.run_through(fault)
    return survivor.losses


def run(scenario: Scenario, folder: Path, case: Case | None = None) -> TracedRun:
    """Run a survivor in a traced child that returns the losses; if a case is given, inject its error."""
    path = scenario.prepare(folder)

    def work(traced: AbstractContextManager[None]) -> list[str]:
        survivor = Survivor(path, scenario.running, store=scenario.store)
        if case is not None:
            case.set_expectations(survivor)
        return run_survivor(survivor, scenario, traced)

    return run_traced(work, folder / "trace", case.expression if case else "trace=all")


def _is_ignored_sync(before: Call, call: Call) -> bool:
    """Return whether SQLite syncs a folder, and ignores whether that fails; `SqliteStore` syncs it too."""
    return call.name == "fdatasync" and before.name == "openat"


def find_cases(folder: Path, store: FileStoreClass) -> list[Case]:
    """Trace every scenario, and return a case for each error in each system call that the session makes."""
    found: list[Case] = []
    for each in SCENARIOS:
        scenario = attrs.evolve(each, store=store)
        # Run once untraced, so that every traced child makes the same calls.
        survivor = Survivor(scenario.prepare(folder), scenario.running, store=store)
        lost = run_survivor(survivor, scenario, contextlib.nullcontext())
        traced = run(scenario, folder)
        assert not lost + traced.returned, (scenario.name, lost, traced.returned)
        calls = [call for call in traced.calls if call.name not in UNAFFECTED_CALLS]
        if store is SqliteStore:
            calls = [call for before, call in itertools.pairwise(calls) if not _is_ignored_sync(before, call)]
        cases = itertools.starmap(Case, itertools.product(calls, ERRORS[store], (False, True), (scenario,)))
        found += [case for case in cases if not (case.call.name == "fcntl" and (case.permanent or case.error != "EIO"))]
    return found


def _run_shard(shard: int, shards: int, scale: Scale, *, store: FileStoreClass) -> Outcome:
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as name:
        folder = Path(name)
        all_cases = find_cases(folder, store)
        cases = all_cases[shard :: shards * (SAMPLING_INTERVAL[store] if scale is Scale.SAMPLE else 1)]
        for case in cases:
            traced = run(case.scenario, folder, case)
            lost = traced.returned
            if traced.status != 0:
                lost = [f"the process ended with status {traced.status}"]
            elif not traced.injected:
                lost = ["the error was not injected"]
            losses.extend(f"{case}: {loss}" for loss in lost)
    names = sorted({case.call.name for case in all_cases})
    return Outcome(
        len(cases), tuple(losses), f"{len(names)} system calls ({', '.join(names)}), {len(ERRORS[store])} errors"
    )


def _run_all(store: FileStoreClass) -> Callable[[Scale], Outcome]:
    return partial(run_in_workers, partial(_run_shard, store=store))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "each system call of a load and a save fails with each error, both once and permanently",
        "a call raises, the user id is lost, the file has neither the old nor the new contents, the next tick does "
        "not save, or a failure is not logged exactly once",
        _run_all(XmlStore),
    ),
    Fault(
        "each system call of a load and a save of a database fails with each error, both once and permanently",
        "a call raises, the user id is lost, the database has neither the old nor the new contents, the next tick does "
        "not save, or a failure is not logged exactly once",
        _run_all(SqliteStore),
    ),
)
