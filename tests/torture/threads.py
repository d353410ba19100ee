"""Use one session from many threads, and from signal handlers and finalizers at each point in each operation."""

from __future__ import annotations

import errno
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from client_session import ClientSession
from client_session.testing import check_invariants
from client_session_persistence import MemoryStore, XmlStore
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.recorder import OPERATIONS, Recorder, ignore_closed
from torture.reentrancy import call_at_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext
    from client_session_persistence import SnapshotStore


def _new_session_and_event(recorder: Recorder) -> None:
    recorder.session.start_new_session()
    recorder.event()


def _event_and_new_session(recorder: Recorder) -> None:
    recorder.event()
    recorder.session.start_new_session()


def _stop_and_start(recorder: Recorder) -> None:
    recorder.session.stop_checker()
    recorder.session.start_checker()


REENTRANT_CALLS: dict[str, Callable[[Recorder], object]] = {
    "an event": Recorder.event,
    "a new session and an event": _new_session_and_event,
    "an event and a new session": _event_and_new_session,
    "a move to the background": lambda r: r.session.set_background(True),
    "a save": lambda r: r.session.save(),
    "stopping and starting the checker": _stop_and_start,
}
"""Calls that a signal handler or a finalizer may make."""


def _call_at_each_point(store: Callable[[], SnapshotStore], step: int) -> Outcome:
    cases, losses = 0, list[str]()
    for name, (prepare, operation) in OPERATIONS.items():
        for call_name, call in REENTRANT_CALLS.items():
            point = cases % step
            points = point + 1
            while point < points:
                recorder = Recorder(store())
                prepare(recorder)
                points = _run_case(recorder, operation, call, point, f"{call_name} during {name}", losses)
                cases += 1
                point += step
    return Outcome(cases, tuple(losses))


def _run_case(  # noqa: PLR0913, PLR0917  # one case
    recorder: Recorder,
    operation: Callable[[Recorder], object],
    call: Callable[[Recorder], object],
    point: int,
    name: str,
    losses: list[str],
) -> int:
    try:
        points = call_at_point(
            lambda: ignore_closed(lambda: operation(recorder)), lambda: ignore_closed(lambda: call(recorder)), point
        )
        recorder.check()
    except Exception as error:  # noqa: BLE001  # any exception is a loss
        losses.append(f"{name}, at point {point}: {type(error).__name__}: {error}")
        return 0
    return points


def _interrupt_memory_session(scale: Scale) -> Outcome:
    return _call_at_each_point(MemoryStore, 1 if scale is Scale.FULL else 23)


def _interrupt_file_session(scale: Scale) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        paths = (Path(folder) / uuid.uuid4().hex / "session.xml" for _ in iter(int, 1))
        return _call_at_each_point(lambda: XmlStore(next(paths)), 97 if scale is Scale.FULL else 997)


def _mix_calls(scale: Scale) -> Outcome:
    threads, calls = 8, 100_000 if scale is Scale.FULL else 1_000
    contexts: list[list[SessionContext]] = [[] for _ in range(threads)]
    first_contexts: list[SessionContext] = []
    failures: list[str] = []
    session = ClientSession(store=MemoryStore(), check_interval=0.001, on_session_start=first_contexts.append)
    properties = (
        "state", "background", "user_id", "session_id", "previous_session_id", "session_index", "first_event_id",
        "first_event_timestamp", "event_index", "storage_mechanism", "expires_in", "foreground_timeout",
        "background_timeout", "check_interval", "checker_running", "save_error",
    )  # fmt: skip

    def set_randomly(name: str, values: list[float], chance: random.Random) -> None:
        setattr(session, name, chance.choice(values))

    def work(thread: int) -> None:
        chance = random.Random(thread)  # noqa: S311  # repeatable, not secret
        ids = f"{thread:08x}-0000-4000-8000-"

        def event(number: int) -> None:
            contexts[thread].append(session.get_session_context(f"{ids}{number:012x}"))

        others: list[Callable[[], object]] = [
            lambda: session.set_background(True),
            lambda: session.set_background(False),
            session.tick,
            session.touch,
            session.stop_checker,
            session.start_checker,
            session.save,
            lambda: set_randomly("foreground_timeout", [1e-5, 600.0], chance),
            lambda: set_randomly("background_timeout", [1e-5, 300.0], chance),
            lambda: set_randomly("check_interval", [0.001, 15.0], chance),
            lambda: [getattr(session, name) for name in properties],
        ]
        try:
            for number in range(calls):
                if number % 3:
                    event(number)
                elif number % 50 == 0:
                    session.start_new_session()
                else:
                    chance.choice(others)()
        except Exception as error:  # noqa: BLE001  # any exception is a loss
            failures.append(f"thread {thread}: {error!r}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        running = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(before)
        session.close()
    failures += _check_numbers(contexts, first_contexts)
    return Outcome(
        threads * calls, tuple(failures), f"{len(first_contexts):,} sessions, {sum(map(len, contexts)):,} events"
    )


def _check_numbers(contexts: list[list[SessionContext]], first_contexts: list[SessionContext]) -> list[str]:
    ordered = sorted(
        (context for of_thread in contexts for context in of_thread),
        key=lambda context: (context.session_index, context.event_index),
    )
    try:
        check_invariants(ordered)
        expected = [context for context in ordered if context.event_index == 1]
        assert sorted(first_contexts, key=lambda context: context.session_index) == expected, "on_session_start"
    except AssertionError as error:
        return [str(error)]
    return []


def _call_from_signal_handler(scale: Scale) -> Outcome:
    """Call the session from a timer's signal handler, between the main thread's bytecode instructions."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        message = "needs signal.setitimer and the main thread; run this test on Linux or with make torture"
        raise CannotRunError(message)
    handled, failures = 0, list[str]()
    chance = random.Random(1)  # noqa: S311  # repeatable, not secret
    calls = list(REENTRANT_CALLS.values())
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(XmlStore(Path(folder) / "session.xml"))

        def handle(*_: object) -> None:
            nonlocal handled
            handled += 1
            try:
                calls[handled % len(calls)](recorder)
            except Exception as error:  # noqa: BLE001  # any exception is a loss
                # A save is refused while the interrupted call is acquiring the lock.
                if getattr(error, "errno", None) != errno.EDEADLK:
                    failures.append(repr(error))
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.02))

        before = signal.signal(signal.SIGALRM, handle)
        end = time.monotonic() + (15.0 if scale is Scale.FULL else 0.7)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            while time.monotonic() < end:
                for _ in range(20):
                    recorder.event()
                recorder.session.set_background(False)
                recorder.session.tick()
                recorder.session.save()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        try:
            recorder.check()
        except AssertionError as error:
            failures.append(str(error))
    return Outcome(handled, tuple(failures), f"{len(recorder.contexts):,} events")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "8 threads make all kinds of calls to one session, switching as often as the interpreter allows",
        "a session or event number is skipped or duplicated, or a session does not have exactly one first event",
        _mix_calls,
    ),
    Fault(
        "a signal handler or finalizer calls an in-memory session at each point in each operation",
        "a number is skipped or duplicated, or callbacks do not match the entities",
        _interrupt_memory_session,
    ),
    Fault(
        "a signal handler or finalizer calls a session with a save file at every 97th point in each operation",
        "a number is skipped or duplicated, callbacks do not match the entities, or the file lacks a numbered session",
        _interrupt_file_session,
    ),
    Fault(
        "a timer's signal handler calls the session between the main thread's bytecode instructions",
        "a number is skipped or duplicated, callbacks do not match the entities, or the file lacks a numbered session",
        _call_from_signal_handler,
    ),
)
