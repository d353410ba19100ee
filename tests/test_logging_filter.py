"""The logging filter: records get the session's id, and logging never extends or breaks the session."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session.trackers.logging import SessionFilter
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import MakeSession


class Log(logging.Handler):
    """A handler of a logger of its own, which lists the records and their session ids."""

    def __init__(self) -> None:
        """Handle every record of the logger ``client_session_test``."""
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.getLogger("client_session_test")

    def emit(self, record: logging.LogRecord) -> None:
        """List the record."""
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        """Return the messages."""
        return [record.getMessage() for record in self.records]

    @property
    def session_ids(self) -> list[str | None]:
        """Return each record's session id."""
        return [getattr(record, "session_id", None) for record in self.records]


@pytest.fixture
def log() -> Iterator[Log]:
    """Yield a log without filters, which is removed from its logger after the test."""
    log = Log()
    log.logger.addHandler(log)
    log.logger.setLevel(logging.INFO)
    yield log
    log.logger.removeHandler(log)
    log.logger.filters.clear()


@pytest.mark.parametrize("get_target", [lambda log: log, lambda log: log.logger], ids=["handler", "logger"])
def test_record_has_the_session_id(
    session: ClientSession, log: Log, get_target: Callable[[Log], logging.Filterer]
) -> None:
    """A filter of a handler or a logger adds the id of the session, from before the first event until after close()."""
    get_target(log).addFilter(SessionFilter(session))
    log.logger.info("starting")
    session.get_session_context(event_id(1))
    log.logger.info("running")
    session.close()
    log.logger.info("closed")
    assert log.messages == ["starting", "running", "closed"]
    assert log.session_ids == 3 * [session.session_id]


def test_formatter_can_use_the_session_id(session: ClientSession, log: Log) -> None:
    """A format string that names session_id works for each record that the filter has seen."""
    log.addFilter(SessionFilter(session))
    log.logger.info("hello")
    assert logging.Formatter("%(session_id)s %(message)s").format(log.records[0]) == f"{session.session_id} hello"


def test_logging_does_not_extend_the_session(session: ClientSession, clock: ManualClock, log: Log) -> None:
    """Log records neither begin nor extend a session, no matter how many there are."""
    log.addFilter(SessionFilter(session))
    log.logger.info("starting")
    assert session.session_index is None
    session.get_session_context(event_id(1))
    for _ in range(9):
        clock.advance(60)
        log.logger.info("working")
    assert session.expires_in == 60.0
    assert session.event_index == 1


def test_record_after_the_timeout_has_the_next_sessions_id(
    session: ClientSession, clock: ManualClock, log: Log
) -> None:
    """Even if no tick has run, a record after the timeout has the id of the session that the next event begins."""
    log.addFilter(SessionFilter(session))
    old_id = session.get_session_context(event_id(1)).session_id
    clock.advance(600)
    log.logger.info("late")
    assert log.session_ids == [session.get_session_context(event_id(2)).session_id] != [old_id]


def test_existing_session_id_is_kept(session: ClientSession, make: MakeSession, log: Log) -> None:
    """The first filter and the caller's own session_id win, so programs can log about several sessions."""
    log.addFilter(SessionFilter(session))
    log.addFilter(SessionFilter(make(store=MemoryStore())))
    log.logger.info("hello")
    log.logger.info("hello", extra={"session_id": "other"})
    assert log.session_ids == [session.session_id, "other"]


def test_lines_logged_during_the_check_have_a_session_id(make: MakeSession, clock: ManualClock, log: Log) -> None:
    """The session's own lines and its callbacks' lines precede the record that caused the check, and have its id."""
    session = make(logger=log.logger, on_session_end=lambda summary: log.logger.info("%s ended", summary.session_id))
    log.addFilter(SessionFilter(session))
    old_id = session.get_session_context(event_id(1)).session_id
    clock.advance(600)
    log.logger.setLevel(logging.DEBUG)
    log.logger.info("late")
    ended, decision, late = log.messages
    assert (ended, late) == (f"{old_id} ended", "late")
    assert "tick: session 1 (1 event) ended" in decision
    assert log.session_ids == 3 * [session.session_id]


def test_clock_that_logs_does_not_recurse(scheduler: ManualScheduler, log: Log) -> None:
    """If reading the clock logs a line, that line has the session's id without another check."""

    class LoggingClock(ManualClock):
        """A clock that logs each reading of the monotonic time."""

        def monotonic(self) -> float:
            """Log, then return the time."""
            log.logger.info("reading the clock")
            return super().monotonic()

    session = ClientSession(store=MemoryStore(), clock=LoggingClock(), scheduler=scheduler)
    log.addFilter(SessionFilter(session))
    log.records.clear()
    log.logger.info("hello")
    assert log.messages == ["reading the clock", "hello"]
    assert log.session_ids == 2 * [session.session_id]


def test_failing_check_does_not_lose_the_record(
    make: MakeSession, clock: ManualClock, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """If the check raises, the record has the session's id, and the failure is logged once."""

    class FailingScheduler(ManualScheduler):
        """A scheduler that cannot be stopped."""

        def stop(self, session: Any) -> None:  # noqa: ANN401  # the base class's argument
            """Raise an error."""
            raise OSError(session)

    session = make(scheduler=FailingScheduler())
    log.addFilter(SessionFilter(session))
    session.set_background(True)
    session.get_session_context(event_id(1))
    clock.advance(300)
    log.logger.info("late")
    log.logger.info("later")
    assert log.session_ids == 2 * [session.session_id]
    (failure,) = [record for record in caplog.records if record.name == "client_session.trackers.logging"]
    assert failure.getMessage() == "The session could not be checked for a log record"
    assert failure.exc_info


def test_session_closed_during_the_check_is_not_a_failure(
    clock: ManualClock, scheduler: ManualScheduler, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """If another thread closes the session between the filter's steps, the record has the closed session's id."""

    class ClosedSession(ClientSession):
        """A session that another thread closes as soon as its expiry has been read."""

        @property
        def expires_in(self) -> float | None:
            expires_in = super().expires_in
            thread = threading.Thread(target=self.close)
            thread.start()
            thread.join()
            return expires_in

    session = ClosedSession(store=MemoryStore(), clock=clock, scheduler=scheduler)
    session.get_session_context(event_id(1))
    clock.advance(600)
    log.addFilter(SessionFilter(session))
    log.logger.info("bye")
    assert log.session_ids == [session.session_id]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("value", [None, "session.xml", ClientSession])
def test_invalid_session_is_rejected(value: Any) -> None:  # noqa: ANN401  # wrong on purpose
    """The error names the argument, its value, and what is allowed."""
    hint = r"; did you mean ClientSession\('session\.xml'\)\?" if value == "session.xml" else ""
    with pytest.raises(TypeError, match=rf"session must be a ClientSession, not [^;]*{hint}$"):
        SessionFilter(value)
