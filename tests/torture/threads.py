"""Many threads, callbacks, handlers and signals on one session."""

from __future__ import annotations

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
from torture.coming_between import come_between
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.witness import OPERATIONS, Witness, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext
    from client_session_persistence import SnapshotStore


def _new_session_and_event(witness: Witness) -> None:
    witness.session.start_new_session()
    witness.event()


def _event_and_new_session(witness: Witness) -> None:
    witness.event()
    witness.session.start_new_session()


def _stop_and_start(witness: Witness) -> None:
    witness.session.stop_checker()
    witness.session.start_checker()


COMING_BETWEEN: dict[str, Callable[[Witness], object]] = {
    "an event": Witness.event,
    "a new session and an event": _new_session_and_event,
    "an event and a new session": _event_and_new_session,
    "a toggle": lambda w: w.session.set_background(True),
    "a save": lambda w: w.session.save(),
    "a checker's stop and start": _stop_and_start,
}
"""What a signal handler or a finalizer may do."""


def _coming_between(store: Callable[[], SnapshotStore], step: int) -> Outcome:
    cases, losses = 0, list[str]()
    for name, (prepare, operation) in OPERATIONS.items():
        for other, call in COMING_BETWEEN.items():
            point = cases % step
            points = point + 1
            while point < points:
                witness = Witness(store())
                prepare(witness)
                points = _run(witness, operation, call, point, f"{other} within {name}", losses)
                cases += 1
                point += step
    return Outcome(cases, tuple(losses))


def _run(  # noqa: PLR0913, PLR0917  # one case
    witness: Witness,
    operation: Callable[[Witness], object],
    call: Callable[[Witness], object],
    point: int,
    name: str,
    losses: list[str],
) -> int:
    try:
        points = come_between(
            lambda: refused(lambda: operation(witness)), lambda: refused(lambda: call(witness)), point
        )
        witness.check()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a loss
        losses.append(f"{name}, at point {point}: {type(error).__name__}: {error}")
        return 0
    return points


def _coming_between_in_memory(scale: Scale) -> Outcome:
    return _coming_between(MemoryStore, 1 if scale is Scale.WHOLE else 23)


def _coming_between_on_file(scale: Scale) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        names = (Path(folder) / uuid.uuid4().hex / "session.xml" for _ in iter(int, 1))
        return _coming_between(lambda: XmlStore(next(names)), 97 if scale is Scale.WHOLE else 997)


def _mixed_calls(scale: Scale) -> Outcome:
    threads, calls = 8, 100_000 if scale is Scale.WHOLE else 1_000
    contexts: list[list[SessionContext]] = [[] for _ in range(threads)]
    firsts: list[SessionContext] = []
    failures: list[str] = []
    session = ClientSession(store=MemoryStore(), check_interval=0.001, on_session_start=firsts.append)
    seen = (
        "state", "background", "user_id", "session_id", "previous_session_id", "session_index", "first_event_id",
        "first_event_timestamp", "event_index", "storage_mechanism", "expires_in", "foreground_timeout",
        "background_timeout", "check_interval", "checker_running", "save_error",
    )  # fmt: skip

    def setting(name: str, values: list[float], chance: random.Random) -> None:
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
            lambda: setting("foreground_timeout", [1e-5, 600.0], chance),
            lambda: setting("background_timeout", [1e-5, 300.0], chance),
            lambda: setting("check_interval", [0.001, 15.0], chance),
            lambda: [getattr(session, name) for name in seen],
        ]
        try:
            for number in range(calls):
                if number % 3:
                    event(number)
                elif number % 50 == 0:
                    session.start_new_session()
                else:
                    chance.choice(others)()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a loss
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
    failures += _wrong(contexts, firsts)
    return Outcome(threads * calls, tuple(failures), f"{len(firsts):,} sessions, {sum(map(len, contexts)):,} events")


def _wrong(contexts: list[list[SessionContext]], firsts: list[SessionContext]) -> list[str]:
    ordered = sorted(
        (context for mine in contexts for context in mine),
        key=lambda context: (context.session_index, context.event_index),
    )
    try:
        check_invariants(ordered)
        counted = [context for context in ordered if context.event_index == 1]
        assert sorted(firsts, key=lambda context: context.session_index) == counted, "on_session_start"
    except AssertionError as error:
        return [str(error)]
    return []


def _signals(scale: Scale) -> Outcome:
    """A timer's signal calls the session between the main thread's byte codes, as often as it can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        message = "signals need signal.setitimer and the main thread; run it on Linux, or by make torture"
        raise CannotRunError(message)
    handled, failures = 0, list[str]()
    chance = random.Random(1)  # noqa: S311  # repeatable, not secret
    calls = list(COMING_BETWEEN.values())
    with tempfile.TemporaryDirectory() as folder:
        witness = Witness(XmlStore(Path(folder) / "session.xml"))

        def handle(*_: object) -> None:
            nonlocal handled
            handled += 1
            try:
                calls[handled % len(calls)](witness)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a loss
                if "this thread's" not in str(error):  # a save within its thread's own locking is refused
                    failures.append(repr(error))
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.02))

        before = signal.signal(signal.SIGALRM, handle)
        end = time.monotonic() + (15.0 if scale is Scale.WHOLE else 0.7)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            while time.monotonic() < end:
                for _ in range(20):
                    witness.event()
                witness.session.set_background(False)
                witness.session.tick()
                witness.session.save()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        try:
            witness.check()
        except AssertionError as error:
            failures.append(str(error))
    return Outcome(handled, tuple(failures), f"{len(witness.contexts):,} events")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "8 threads mix all calls on one session, switched as often as the interpreter can",
        "a session's or event's number is skipped or doubled, or a session has not just one first event",
        _mixed_calls,
    ),
    Fault(
        "a signal handler or finalizer calls a session in memory at each point within each operation",
        "a number is skipped or doubled, or a callback tells something else than was handed out",
        _coming_between_in_memory,
    ),
    Fault(
        "the same with a save file, at every 97th point",
        "the same, or the file lacks what was numbered",
        _coming_between_on_file,
    ),
    Fault(
        "a timer's signal handler calls the session between the main thread's byte codes",
        "the same",
        _signals,
    ),
)
