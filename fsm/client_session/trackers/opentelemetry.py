"""Sessions for OpenTelemetry's Python SDK: session attributes on spans and log records.

>>> from opentelemetry.sdk.trace import TracerProvider
>>> from client_session import ClientSession
>>> from client_session.trackers.opentelemetry import SessionSpanProcessor
>>> provider = TracerProvider()
>>> provider.add_span_processor(SessionSpanProcessor(ClientSession("session.xml")))

Names follow OpenTelemetry's semantic conventions for sessions (``docs/general/session.md``): the attributes
``session.id`` and ``session.previous_id``, and the events ``session.start`` and ``session.end``.

Belonging to a session and extending it are different (opentelemetry-android#2049). Every span or log record that a
processor sees gets the attributes. Only activity, as decided by the processor's predicate, is recorded as an event and
starts or extends a session.

Requires ``opentelemetry-sdk`` 1.39 or newer (the ``opentelemetry`` extra); otherwise the import raises `ImportError`.
"""

from __future__ import annotations

import logging
import sys
import uuid
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import TYPE_CHECKING, cast

from client_session import arguments
from client_session.trackers.failures import Failures

try:
    from opentelemetry._logs import get_logger
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
    from opentelemetry.sdk.trace import Span, SpanProcessor
    from opentelemetry.trace import SpanKind
except ImportError as error:
    msg = f"{__name__} needs opentelemetry-sdk 1.39 or newer: pip install 'client-session[opentelemetry]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context
    from opentelemetry.util.types import AnyValue

    from client_session import ClientSession, SessionContext, SessionSummary

SESSION_ID = "session.id"
SESSION_PREVIOUS_ID = "session.previous_id"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_root_operation(span: Span) -> bool:
    """Return whether a span is a root span of kind SERVER, CLIENT or INTERNAL. This is the default predicate.

    A span with a parent belongs to an operation that was already counted or began in another program. Programs
    also send and receive messages (PRODUCER, CONSUMER) without user activity.
    """
    return span.parent is None and span.kind in {SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL}


def is_never_activity(record: ReadWriteLogRecord) -> bool:
    """Return ``False``. This is the default predicate, since programs also log when the user is idle."""
    del record
    return False


class SessionSpanProcessor(SpanProcessor):
    """Span processor that sets ``session.id`` and ``session.previous_id``, and records activity in the session.

    If a span is activity, it is recorded as an event, which starts or extends the session. Its event id is the trace id
    as a UUID, so the session's ``first_event_id`` identifies the trace; the timestamp is the span's start. Any other
    span gets the current session's id without extending the session. A pending session has no ``session.previous_id``
    yet. A span that already has a ``session.id`` belongs to another session: it is left unchanged and is not recorded.

    Processors do not see spans that the sampler drops, so such spans never extend the session. With sampling, call
    `ClientSession.touch` whenever the user is active; otherwise the session may time out between two sampled spans.

    Thread-safe. Errors from the predicate or the session (such as `SessionClosedError`) never reach the program:
    the span lacks the attributes, and only the first of several consecutive failures is logged. `shutdown` does not
    close the session; the session's owner must.
    """

    def __init__(self, session: ClientSession, is_activity: Callable[[Span], bool] = is_root_operation) -> None:
        """Initialize with a session and the predicate that decides whether a span is activity.

        Raises:
            TypeError: ``session`` is not a session, or ``is_activity`` is not callable.

        """
        self._session = _require_session(session, is_activity)
        self._is_activity = is_activity
        self._failures = Failures(logging.getLogger(__name__))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the session attributes on a span. The SDK calls this for each recorded span."""
        del parent_context
        with self._failures.log_errors("A span lacks its session's attributes"):
            if SESSION_ID not in (span.attributes or {}):
                if self._is_activity(span):
                    found = _record_event(self._session, span.get_span_context().trace_id, span.start_time)
                else:
                    found = _current_attributes(self._session)
                span.set_attributes(found)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return ``True``: there is nothing to flush."""
        del timeout_millis
        return True  # in older SDKs, the base class returns None, so later processors are not flushed


class SessionLogRecordProcessor(LogRecordProcessor):
    """Log record processor that sets ``session.id`` and ``session.previous_id``; by default, it records no activity.

    Add it to the provider before the exporting processor: processors run in the order in which they were added. It
    treats log records the way `SessionSpanProcessor` treats spans. If a record is activity, the event id is its trace
    id, or a random id if the record has no trace.
    """

    def __init__(
        self, session: ClientSession, is_activity: Callable[[ReadWriteLogRecord], bool] = is_never_activity
    ) -> None:
        """Initialize with a session and the predicate that decides whether a log record is activity.

        Raises:
            TypeError: ``session`` is not a session, or ``is_activity`` is not callable.

        """
        self._session = _require_session(session, is_activity)
        self._is_activity = is_activity
        self._failures = Failures(logging.getLogger(__name__))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Set the session attributes on a log record. The SDK calls this for each record."""
        with self._failures.log_errors("A log record lacks its session's attributes"):
            record = log_record.log_record
            attributes = cast("MutableMapping[str, AnyValue]", record.attributes)  # the SDK creates a mutable mapping
            if SESSION_ID not in attributes:
                if self._is_activity(log_record):
                    found = _record_event(self._session, record.trace_id, record.timestamp or record.observed_timestamp)
                else:
                    found = _current_attributes(self._session)
                attributes.update(found)

    def enabled(self, **_: object) -> bool:
        """Return ``False``: this processor exports nothing, so the SDK need not create log records for it."""
        return False

    def shutdown(self) -> None:
        """Do nothing: the session's owner closes it."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return ``True``: there is nothing to flush."""
        del timeout_millis
        return True


class SessionEvents:
    """Callbacks that emit the events ``session.start`` and ``session.end`` as log records.

    ``session.start`` is emitted at a session's first event, with that event's own time. ``session.end`` is emitted when
    the end is detected, with the time at which the session's last event was recorded, but never an earlier time than
    that of ``session.start``. If one call ends a session and starts another,
    ``session.end`` comes first. Neither event is emitted when a session continues after a restart. Threads and
    sessions may share an instance. The session logs exceptions raised here, as it does for any callback.

    Examples:
        >>> events = SessionEvents()
        >>> session = ClientSession("session.xml", on_session_start=events.started, on_session_end=events.ended)

    """

    def __init__(self, logger_provider: LoggerProvider | None = None) -> None:
        """Emit to ``logger_provider``, or, if it is ``None``, to the global provider (which may be set later)."""
        self._logger = get_logger(__name__, logger_provider=logger_provider)
        self._starts_in_future: dict[str, int] = {}
        """By session id, the start of each session whose first event's own time was in the future."""

    def started(self, context: SessionContext) -> None:
        """Emit ``session.start``; pass this method as ``on_session_start``."""
        time = context.first_event_timestamp
        start = None if time is None else _nanoseconds(datetime.fromisoformat(time))
        if start is not None and start > time_ns():
            self._starts_in_future[context.session_id] = start
        self._logger.emit(
            timestamp=start,
            event_name="session.start",
            attributes=_attributes(context.session_id, context.previous_session_id),
        )

    def ended(self, summary: SessionSummary) -> None:
        """Emit ``session.end``; pass this method as ``on_session_end``."""
        self._logger.emit(
            timestamp=max(
                _nanoseconds(summary.last_event_time), self._starts_in_future.pop(summary.session_id, -sys.maxsize)
            ),
            event_name="session.end",
            attributes=_attributes(summary.session_id),
        )


def _require_session(session: ClientSession, is_activity: object) -> ClientSession:
    arguments.require_methods("session", session, "get_session_context", "tick")
    if not callable(is_activity):
        msg = f"is_activity must be callable, not {is_activity!r}"
        raise TypeError(msg)
    return session


def _record_event(session: ClientSession, trace_id: int | None, nanoseconds: int | None) -> dict[str, str]:
    """Record activity as an event in the session, and return the session's attributes."""
    event_id = uuid.UUID(int=trace_id) if trace_id else uuid.uuid4()
    time = None if nanoseconds is None else _EPOCH + nanoseconds // 1000 * _MICROSECOND
    context = session.get_session_context(event_id, time)
    return _attributes(context.session_id, context.previous_session_id)


def _current_attributes(session: ClientSession) -> dict[str, str]:
    """Return the current session's attributes without extending the session."""
    if session.expires_in == 0:
        session.tick()  # the session has timed out, but no tick has run yet
    while True:  # retry until both ids belong to the same session
        session_id, previous_id = session.session_id, session.previous_session_id
        if session.session_id == session_id:
            return _attributes(session_id, previous_id)


def _attributes(session_id: str, previous_id: str | None = None) -> dict[str, str]:
    attributes = {SESSION_ID: session_id}
    if previous_id is not None:
        attributes[SESSION_PREVIOUS_ID] = previous_id
    return attributes


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000
