"""OpenTelemetry: neither a failing session nor a provider's shutdown breaks the program."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (extra: opentelemetry)")

from opentelemetry._logs import NoOpLogger  # imported after the skip
from opentelemetry.sdk._logs import LoggerProvider  # imported after the skip

from client_session.trackers.opentelemetry import (
    SessionLogRecordProcessor,
    SessionSpanProcessor,
)  # imported after the skip
from telemetry import Logs, Traces  # imported after the skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import ClientSession

LOGGER = "client_session.trackers.opentelemetry"


def logged_failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the logged failures."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.exc_info]


def test_failing_session_does_not_lose_spans_or_records(
    session: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """No call raises, spans and log records are exported unchanged, and each series of failures is logged once."""
    traces, logs = Traces(session), Logs().of(session, lambda _: True)
    session.close()
    for _ in range(3):
        traces.span(attributes={"x": 1})
        logs.logger.emit(body="hello", attributes={"y": 2})
    assert traces.attributes == 3 * [{"x": 1}]
    assert logs.attributes == 3 * [{"y": 2}]
    assert logged_failures(caplog) == [
        "A span lacks its session's attributes",
        "A log record lacks its session's attributes",
    ]


def test_closed_session_still_labels_log_records(session: ClientSession) -> None:
    """Log records that a program emits after close() have the id of the closed session."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    session.close()
    logs.logger.emit(body="bye")
    assert logs.attributes == traces.attributes == [{"session.id": session.session_id}]


@pytest.mark.parametrize("is_activity_failing", [True, False])
def test_failing_predicate_is_logged(
    session: ClientSession, caplog: pytest.LogCaptureFixture, *, is_activity_failing: bool
) -> None:
    """If a predicate raises, the span is exported, the failure is logged, and no event is counted."""
    predicates = [lambda _: False, lambda span: span.attributes["kind"] == "click"]
    traces = Traces(session, *(predicates[::-1] if is_activity_failing else predicates))
    traces.span()
    assert traces.attributes == [{}]
    assert logged_failures(caplog) == ["A span lacks its session's attributes"]
    assert session.event_index == 0


def test_failure_logged_through_opentelemetry_does_not_recurse(session: ClientSession) -> None:
    """If logging the failure emits another log record that also fails, both records are exported."""
    logs = Logs().of(session, lambda _: True)

    class LogRecordHandler(logging.Handler):
        """A handler that emits each message as an OpenTelemetry log record."""

        def emit(self, record: logging.LogRecord) -> None:
            """Emit the message as a log record."""
            logs.logger.emit(body=record.getMessage())

    session.close()
    handler, logger = LogRecordHandler(), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        logs.logger.emit(body="hello")
    finally:
        logger.removeHandler(handler)
    assert [record.body for record in logs.records] == ["A log record lacks its session's attributes", "hello"]


def test_provider_shutdown_leaves_the_session_open(session: ClientSession) -> None:
    """Flushing a provider does not wait for the session, and the session still works after providers shut down."""
    traces, logs = Traces(session), Logs().of(session)
    for provider in (traces.provider, logs.provider):
        assert provider.force_flush()
        provider.shutdown()
    assert session.get_session_context(event_id(1)).event_index == 1


@pytest.mark.skipif(
    not hasattr(NoOpLogger, "enabled"), reason="this version of opentelemetry-sdk has no Logger.enabled"
)
def test_processor_does_not_change_whether_a_logger_is_enabled(session: ClientSession) -> None:
    """The processor alone does not enable a logger; adding an exporter does."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SessionLogRecordProcessor(session))
    assert not provider.get_logger(__name__).enabled(event_name="click")
    assert Logs().of(session).logger.enabled(event_name="click")


@pytest.mark.parametrize("make_processor", [SessionSpanProcessor, SessionLogRecordProcessor])
def test_invalid_processor_argument_is_named_in_the_error(
    session: ClientSession, make_processor: Callable[..., SessionSpanProcessor | SessionLogRecordProcessor]
) -> None:
    """An invalid session or predicate is rejected when the processor is created."""
    with pytest.raises(TypeError, match=r"'session\.xml' lacks .*; did you mean ClientSession\('session\.xml'\)"):
        make_processor("session.xml")
    with pytest.raises(TypeError, match="session must have the methods get_session_context, tick; it is None"):
        make_processor(None)
    with pytest.raises(TypeError, match="is_activity must be callable, not 7"):
        make_processor(session, 7)
    with pytest.raises(TypeError, match="is_passive must be callable, not None"):
        make_processor(session, is_passive=None)
