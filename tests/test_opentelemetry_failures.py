"""What a session costs a program with OpenTelemetry when something fails or shuts down: nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (the extra opentelemetry)")

from opentelemetry._logs import NoOpLogger  # after the skip
from opentelemetry.sdk._logs import LoggerProvider  # after the skip

from client_session.trackers.opentelemetry import SessionLogRecordProcessor, SessionSpanProcessor  # after the skip
from telemetry import Logs, Traces  # after the skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import ClientSession

FAILURES = "client_session.trackers.opentelemetry"


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of failures."""
    return [record.getMessage() for record in caplog.records if record.name == FAILURES and record.exc_info]


def test_a_failing_session_costs_neither_span_nor_record(
    session: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """They are exported without the attributes; nothing is raised, and the log says so once a streak."""
    traces, logs = Traces(session), Logs().of(session, lambda _: True)
    session.close()
    for _ in range(3):
        traces.span(attributes={"x": 1})
        logs.logger.emit(body="hello", attributes={"y": 2})
    assert traces.attributes == 3 * [{"x": 1}]
    assert logs.attributes == 3 * [{"y": 2}]
    assert failures(caplog) == ["A span lacks its session's attributes", "A log record lacks its session's attributes"]


def test_a_closed_session_is_still_named_by_what_is_no_activity(session: ClientSession) -> None:
    """What a program logs on its way out belongs to the session that it closed, however late."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    session.close()
    logs.logger.emit(body="bye")
    assert logs.attributes == traces.attributes == [{"session.id": session.session_id}]


def test_a_failing_predicate_costs_nothing(session: ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the span goes on, and the session has no event."""
    traces = Traces(session, lambda span: span.attributes["kind"] == "click")
    traces.span()
    assert traces.attributes == [{}]
    assert failures(caplog) == ["A span lacks its session's attributes"]
    assert session.event_index == 0


def test_a_failure_whose_log_line_fails_likewise_ends(session: ClientSession) -> None:
    """Where the log goes to OpenTelemetry, and its records fail in turn, each is exported and the program goes on."""
    logs = Logs().of(session, lambda _: True)

    class Bridge(logging.Handler):
        """Emits what is logged as a log record."""

        def emit(self, record: logging.LogRecord) -> None:
            """Emit it."""
            logs.logger.emit(body=record.getMessage())

    session.close()
    bridge, logger = Bridge(), logging.getLogger(FAILURES)
    logger.addHandler(bridge)
    try:
        logs.logger.emit(body="hello")
    finally:
        logger.removeHandler(bridge)
    assert [record.body for record in logs.records] == ["A log record lacks its session's attributes", "hello"]


def test_shutting_down_leaves_the_session_to_its_owner(session: ClientSession) -> None:
    """Providers that flush find nothing to wait for here, and after their shutdown the session goes on."""
    traces, logs = Traces(session), Logs().of(session)
    for provider in (traces.provider, logs.provider):
        assert provider.force_flush()
        provider.shutdown()
    assert session.get_session_context(event_id(1)).event_index == 1


@pytest.mark.skipif(not hasattr(NoOpLogger, "enabled"), reason="loggers of this version cannot be asked")
def test_a_log_record_that_nobody_exports_need_not_be_made(session: ClientSession) -> None:
    """The processor alone does not make a logger say that it is enabled; beside an exporter it does not forbid it."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SessionLogRecordProcessor(session))
    assert not provider.get_logger(__name__).enabled(event_name="click")
    assert Logs().of(session).logger.enabled(event_name="click")


@pytest.mark.parametrize("make_processor", [SessionSpanProcessor, SessionLogRecordProcessor])
def test_wrong_arguments_are_named(
    session: ClientSession, make_processor: Callable[..., SessionSpanProcessor | SessionLogRecordProcessor]
) -> None:
    """What is no session, or cannot be called, is refused when the processor is made."""
    with pytest.raises(TypeError, match=r"session must have the methods get_session_context, tick; 'session\.xml' la"):
        make_processor("session.xml")
    with pytest.raises(TypeError, match="is_activity must be callable, not 7"):
        make_processor(session, 7)
