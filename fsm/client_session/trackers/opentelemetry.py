"""Sessions in OpenTelemetry's Python SDK: spans and log records that say which session they belong to.

>>> from opentelemetry.sdk.trace import TracerProvider
>>> from client_session import ClientSession
>>> from client_session.trackers.opentelemetry import SessionSpanProcessor
>>> provider = TracerProvider()
>>> provider.add_span_processor(SessionSpanProcessor(ClientSession("session.xml")))

The names are those of OpenTelemetry's semantic conventions for sessions (``docs/general/session.md``): the attributes
``session.id`` and ``session.previous_id``, the events ``session.start`` and ``session.end``.

To belong to a session is one thing, to be activity in it another (opentelemetry-android#2049). Whatever a processor
sees gets the attributes; only what its predicate says is activity is recorded as an event, and starts or extends a
session.

Needs the package ``opentelemetry-sdk``, 1.39 or newer (the extra ``opentelemetry``); without it the import raises
`ImportError`.
"""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta
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
    """Return whether a span has no parent and is of kind SERVER, CLIENT or INTERNAL: what is activity by default.

    A span with a parent is a part of what was counted already, or of what another program does; messages (PRODUCER,
    CONSUMER) come and go without a user.
    """
    return span.parent is None and span.kind in {SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL}


def is_never_activity(record: ReadWriteLogRecord) -> bool:
    """Return ``False``: no log record is activity by default, since programs log without a user too."""
    del record
    return False


class SessionSpanProcessor(SpanProcessor):
    """Sets ``session.id`` and ``session.previous_id`` on each span that starts, and records those that are activity.

    A span that is activity is an event of the session: it starts one, or extends it. Its event id is its trace id in
    the form of a UUID, so that the session's ``first_event_id`` leads to the trace; its time is its start. Any other
    span names the session that goes on at that moment, or the pending one that waits for its first event (whose
    previous session is not known yet), and extends nothing. A span that has a ``session.id`` already keeps it and is no
    activity here: it tells of another session.

    A span that the sampler drops is seen by no processor: it is no activity. Whoever samples calls
    `ClientSession.touch` where the user does something, or the session times out between two spans that are kept.

    May be used by any thread. No failure (of the predicate, or in the session, such as a closed one) is raised into the
    program that starts the span: the span lacks the attributes, and the first failure of each streak is logged.
    Shutting the processor down leaves the session alone: closing it is its owner's.
    """

    def __init__(self, session: ClientSession, is_activity: Callable[[Span], bool] = is_root_operation) -> None:
        """Take the session, and what says whether a span that starts is activity.

        Raises:
            TypeError: ``session`` is no session, or ``is_activity`` cannot be called.

        """
        self._session = _checked(session, is_activity)
        self._is_activity = is_activity
        self._failures = Failures(logging.getLogger(__name__))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the attributes of a span; the SDK calls it, of spans that are recorded alone."""
        del parent_context
        with self._failures.caught("A span lacks its session's attributes"):
            if SESSION_ID not in (span.attributes or {}):
                if self._is_activity(span):
                    found = _recorded(self._session, span.get_span_context().trace_id, span.start_time)
                else:
                    found = _current(self._session)
                span.set_attributes(found)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return ``True``: nothing waits here."""
        del timeout_millis
        return True  # the base's None, in older SDKs, keeps the processors after this one from being flushed


class SessionLogRecordProcessor(LogRecordProcessor):
    """Sets ``session.id`` and ``session.previous_id`` on each log record; by default none of them is activity.

    Add it to the provider before the processor that exports: processors run in the order in which they were added. What
    is said of spans and `SessionSpanProcessor` is true of log records too; the event id of one that is activity is its
    trace's, or random if it has none.
    """

    def __init__(
        self, session: ClientSession, is_activity: Callable[[ReadWriteLogRecord], bool] = is_never_activity
    ) -> None:
        """Take the session, and what says whether a log record is activity.

        Raises:
            TypeError: ``session`` is no session, or ``is_activity`` cannot be called.

        """
        self._session = _checked(session, is_activity)
        self._is_activity = is_activity
        self._failures = Failures(logging.getLogger(__name__))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Set the attributes of a log record; the SDK calls it."""
        with self._failures.caught("A log record lacks its session's attributes"):
            record = log_record.log_record
            attributes = cast("MutableMapping[str, AnyValue]", record.attributes)  # the SDK makes it so
            if SESSION_ID not in attributes:
                if self._is_activity(log_record):
                    found = _recorded(self._session, record.trace_id, record.timestamp or record.observed_timestamp)
                else:
                    found = _current(self._session)
                attributes.update(found)

    def enabled(self, **_: object) -> bool:
        """Return ``False``: this processor emits nothing, so for it alone no log record need be made."""
        return False

    def shutdown(self) -> None:
        """Do nothing: closing the session is its owner's."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return ``True``: nothing waits here."""
        del timeout_millis
        return True


class SessionEvents:
    """Emits the events ``session.start`` and ``session.end`` as log records.

    ``session.start`` comes with a session's first event and has its time. ``session.end`` comes when the end is
    noticed, before the next start where one call causes both, and has the time of the last event. A session that a
    restart continues has neither between. May be shared by threads and by sessions; a failure is logged by the session,
    as that of any callback.

    Examples:
        >>> events = SessionEvents()
        >>> session = ClientSession("session.xml", on_session_start=events.started, on_session_end=events.ended)

    """

    def __init__(self, logger_provider: LoggerProvider | None = None) -> None:
        """Emit to ``logger_provider``; ``None``: to the global one, even if that is set later."""
        self._logger = get_logger(__name__, logger_provider=logger_provider)

    def started(self, context: SessionContext) -> None:
        """Emit ``session.start``; give this as the session's ``on_session_start``."""
        time = context.first_event_timestamp
        self._logger.emit(
            timestamp=None if time is None else _nanoseconds(datetime.fromisoformat(time)),
            event_name="session.start",
            attributes=_attributes(context.session_id, context.previous_session_id),
        )

    def ended(self, summary: SessionSummary) -> None:
        """Emit ``session.end``; give this as the session's ``on_session_end``."""
        self._logger.emit(
            timestamp=_nanoseconds(summary.last_event_time),
            event_name="session.end",
            attributes=_attributes(summary.session_id),
        )


def _checked(session: ClientSession, is_activity: object) -> ClientSession:
    arguments.require_methods("session", session, "get_session_context", "tick")
    if not callable(is_activity):
        msg = f"is_activity must be callable, not {is_activity!r}"
        raise TypeError(msg)
    return session


def _recorded(session: ClientSession, trace_id: int | None, nanoseconds: int | None) -> dict[str, str]:
    """Record activity as an event of the session, and return the attributes of what was active."""
    event_id = uuid.UUID(int=trace_id) if trace_id else uuid.uuid4()
    time = None if nanoseconds is None else _EPOCH + nanoseconds // 1000 * _MICROSECOND
    context = session.get_session_context(event_id, time)
    return _attributes(context.session_id, context.previous_session_id)


def _current(session: ClientSession) -> dict[str, str]:
    """Return the attributes of what belongs to the session at this moment, without extending it."""
    if session.expires_in == 0:
        session.tick()  # it has timed out, and no tick has noticed yet
    while True:  # until both are read of one session
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
