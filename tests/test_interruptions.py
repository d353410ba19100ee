"""Exceptions from outside: a signal handler raises in the middle of a call."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from client_session import MemoryStore, SessionClosedError
from event_ids import event_id
from torture.interruptions import INTERRUPTED_OPERATIONS, count_points, interrupt, raise_at_point
from torture.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Generator

    from client_session import ClientSession, SessionContext
    from client_session_persistence import Snapshot
    from conftest import MakeSession

STEP = 5
"""These tests interrupt every fifth point; the torture suite interrupts every point."""


class TimeLimitError(Exception):
    """Raised by the signal handler, as Celery does at a soft time limit."""


def _interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(params=[TimeLimitError, TimeoutError, KeyboardInterrupt])
def error(request: pytest.FixtureRequest) -> Generator[type[BaseException]]:
    """Install a signal handler that raises an exception of this type, which a store's error may also have."""
    raised: type[BaseException] = request.param

    def handle(*_: object) -> None:
        raise raised

    before = signal.signal(signal.SIGINT, handle)
    yield raised
    signal.signal(signal.SIGINT, before)


class InterruptedStore(MemoryStore):
    """A store in which the signal arrives during the first `save`."""

    is_interrupted = False

    def save(self, snapshot: Snapshot) -> None:
        """Receive the signal if the snapshot is the first one with a session."""
        if snapshot.session_id and not self.is_interrupted:
            self.is_interrupted = True
            _interrupt()
        super().save(snapshot)


@pytest.mark.parametrize("operation", INTERRUPTED_OPERATIONS)
def test_interrupted_call_takes_effect_as_a_whole(operation: str) -> None:
    """The exception reaches the caller, no lock is held, and numbers and callbacks match."""
    prepare, operate = INTERRUPTED_OPERATIONS[operation]
    recorder = Recorder(MemoryStore())
    prepare(recorder)
    for point in range(0, count_points(recorder, operate), STEP):
        recorder = Recorder(MemoryStore())
        prepare(recorder)
        assert not interrupt(recorder, operate, point), f"at point {point}"


def test_interrupted_close_reports_the_end() -> None:
    """Wherever close() is interrupted, if it has closed the session, then it has also reported the end."""
    prepare, close = INTERRUPTED_OPERATIONS["a close"]
    recorder = Recorder(MemoryStore())
    prepare(recorder)
    for point in range(count_points(recorder, close)):
        recorder = Recorder(MemoryStore())
        prepare(recorder)
        raise_at_point(recorder, close, point)
        reported = len(recorder.ended)  # before a later call can make up for it
        try:
            recorder.event()
        except SessionClosedError:
            assert reported == 1, f"at point {point}"


def test_exception_during_a_save_is_not_a_save_error(make: MakeSession, error: type[BaseException]) -> None:
    """An exception that a signal handler raises in a store's code reaches the caller; the next event is the first."""
    session = make(store=InterruptedStore())
    with pytest.raises(error):
        session.get_session_context(event_id(1))
    assert session.save_error is None
    context = session.get_session_context(event_id(2))
    assert (context.session_index, context.event_index, context.first_event_id) == (1, 1, event_id(2))


def test_index_of_an_interrupted_save_is_not_used_twice(make: MakeSession, error: type[BaseException]) -> None:
    """If another session on the store gets the index in the meantime, the interrupted session gets the next one."""
    store = InterruptedStore()
    interrupted, other = make(store=store), make(store=store)
    with pytest.raises(error):
        interrupted.get_session_context(event_id(1))
    first, second = other.get_session_context(event_id(2)), interrupted.get_session_context(event_id(3))
    assert (first.session_index, second.session_index) == (1, 2)
    assert second.previous_session_id == first.session_id


def test_exception_during_a_callback_reaches_the_caller(make: MakeSession, error: type[BaseException]) -> None:
    """An exception that a signal handler raises in a callback is not taken for a failure of the callback."""
    session = make(on_session_start=_interrupt)
    with pytest.raises(error):
        session.get_session_context(event_id(1))
    assert session.get_session_context(event_id(2)).event_index == 2


def test_exception_during_logging_reaches_the_caller(make: MakeSession, error: type[BaseException]) -> None:
    """An exception that a signal handler raises in a logger is not taken for a failure of the logger."""

    class Logger:
        def info(self, *_: object) -> None:
            pass

        warning = info

        def exception(self, *_: object) -> None:
            _interrupt()

    def fail(_: SessionContext) -> None:
        raise ZeroDivisionError

    session: ClientSession = make(logger=Logger(), on_session_start=fail)
    with pytest.raises(error):
        session.get_session_context(uuid.uuid4())
    assert session.get_session_context(event_id(2)).event_index == 2
