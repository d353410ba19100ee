"""Sessions for OpenTelemetry's Python SDK: session attributes on spans and log records.

>>> from opentelemetry.sdk.trace import TracerProvider
>>> from client_session import ClientSession
>>> from client_session.trackers.opentelemetry import SessionSpanProcessor
>>> provider = TracerProvider()
>>> provider.add_span_processor(SessionSpanProcessor(ClientSession("session.xml")))

Names follow OpenTelemetry's semantic conventions for sessions (``docs/general/session.md``): the attributes
``session.id`` and ``session.previous_id``, and the events ``session.start`` and ``session.end``.

Belonging to a session and extending it are different (opentelemetry-android#2049). Every span or log record that a
processor sees gets the attributes. Two predicates decide what else happens:

- *Activity* is recorded as an event: it starts or extends a session.
- *Passive* spans and records, such as those of a heartbeat, are counted in the current session without extending it.
- The others are neither counted nor extend the session.

In a server, each visitor has a session. Pass a callable that returns the session of the visitor whose request is being
handled, such as the method ``get`` of a `contextvars.ContextVar` that a middleware sets:

>>> from contextvars import ContextVar
>>> from client_session.visitors import VisitorSession
>>> visitor: ContextVar[VisitorSession | None] = ContextVar("visitor", default=None)
>>> provider.add_span_processor(SessionSpanProcessor(visitor.get))

Requires ``opentelemetry-sdk`` 1.39 or newer (the ``opentelemetry`` extra); otherwise the import raises `ImportError`.
"""

from __future__ import annotations

import logging
import sys
import uuid
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, partial
from time import time_ns
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from client_session import ClientSession
from client_session.microseconds import microseconds, time_at
from client_session.trackers.due_check import check_if_due
from client_session.trackers.failures import Failures
from client_session.trackers.requirements import require_predicate, require_session
from client_session.visitors import VisitorSession
from client_session_persistence.snapshot import shown

try:
    from opentelemetry._logs import LoggerProvider, get_logger
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
    from opentelemetry.sdk.trace import Span, SpanProcessor
    from opentelemetry.trace import SpanKind, get_current_span
except ImportError as error:
    msg = f"{__name__} needs opentelemetry-sdk 1.39 or newer: pip install 'client-session[opentelemetry]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AnyValue

    from client_session import SessionContext, SessionSummary

SESSION_ID = "session.id"
SESSION_PREVIOUS_ID = "session.previous_id"

_Item = TypeVar("_Item")

_ROOT_KINDS = (SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT)  # a tuple, since hashing an enum member is slow

_MAX_STARTS = 10_000
"""How many starts in the future `SessionEvents` remembers. A visitor's session may end in another process, or never."""

_is_counting: ContextVar[bool] = ContextVar("_is_counting", default=False)
"""Whether a visitor's session is being called. The call may itself be traced and logged, by the store's client."""


def is_root_operation(span: Span) -> bool:
    """Return whether a span is a root span of kind SERVER, CLIENT or INTERNAL. By default, such spans are activity.

    A span with a parent belongs to an operation that was already counted or began in another program. Programs
    also send and receive messages (PRODUCER, CONSUMER) without user activity.
    """
    return span.parent is None and span.kind in _ROOT_KINDS


def never(_: object) -> bool:
    """Return ``False``. By default, nothing is passive, and log records are not activity: idle programs log, too."""
    return False


class SessionSpanProcessor(SpanProcessor):
    """Span processor that sets ``session.id`` and ``session.previous_id``, and counts spans in the session.

    - A span that is *activity* is recorded as an event, which starts or extends the session. Its event id is the trace
      id as a UUID, so the session's ``first_event_id`` identifies the trace; the timestamp is the span's start.
    - A *passive* span is counted as an event of the current session, but neither starts nor extends a session. If the
      session has no events yet, the span is not counted.
    - Any other span is not counted.

    All three get the current session's ids. A pending session has no ``session.previous_id`` yet. A span that already
    has a ``session.id`` belongs to another session: it is left unchanged and is not counted.

    Processors do not see spans that the sampler drops, so such spans never extend the session. With sampling, call
    `ClientSession.touch` whenever the user is active; otherwise the session may time out between two sampled spans.

    The session of a visitor, a `VisitorSession`, differs because each call uses the store of all visitors:

    - A span that is not counted gets the ids of the span that it is in, if that has a ``session.id``, without a call.
    - Without a session that has events, a span has no attributes: there are no pending sessions.
    - The spans of one trace that are counted are one event, because they have the same event id.
    - Spans that the call itself starts, such as those of an instrumented Redis client, have no attributes.

    Thread-safe. Errors from a predicate, the callable or the session (such as `SessionClosedError`, or the
    `TimeoutError` of a visitor's) never reach the program: the span lacks the attributes, and only the first of several
    consecutive failures is logged. `shutdown` does not close the session; the session's owner must.
    """

    def __init__(
        self,
        session: ClientSession | VisitorSession | Callable[[], ClientSession | VisitorSession | None],
        is_activity: Callable[[Span], bool] = is_root_operation,
        is_passive: Callable[[Span], bool] = never,
    ) -> None:
        """Initialize with a session and the predicates, which are called when a span starts.

        Args:
            session: the session that counts the spans, or a callable that returns the session of the span that is
                about to start, or ``None`` if it belongs to no session.
            is_activity: whether a span is activity.
            is_passive: whether a span that is not activity is passive.

        Raises:
            TypeError: ``session`` is neither a session nor callable, or a predicate is not callable, or one of them is
                a coroutine function or has coroutine functions as its methods.

        """
        self._counter = _Counter(session, is_activity, is_passive, _span_event)
        self._failures = Failures(logging.getLogger(__name__), "A span lacks its session's attributes")

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the session attributes on a span. The SDK calls this for each recorded span."""
        with self._failures:
            if SESSION_ID not in (span.attributes or {}):
                span.set_attributes(self._counter.count(span, parent_context))

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return ``True``: there is nothing to flush."""
        del timeout_millis
        return True  # in older SDKs, the base class returns None, so later processors are not flushed


class SessionLogRecordProcessor(LogRecordProcessor):
    """Log record processor that sets ``session.id`` and ``session.previous_id``; by default, it counts no records.

    Add it to the provider before the exporting processor: processors run in the order in which they were added. It
    treats log records the way `SessionSpanProcessor` treats spans. The event id of a record that is counted is its
    trace id, or a random id if the record has no trace.
    """

    def __init__(
        self,
        session: ClientSession | VisitorSession | Callable[[], ClientSession | VisitorSession | None],
        is_activity: Callable[[ReadWriteLogRecord], bool] = never,
        is_passive: Callable[[ReadWriteLogRecord], bool] = never,
    ) -> None:
        """Initialize with a session and the predicates, which are called when a log record is emitted.

        Args:
            session: the session that counts the log records, or a callable that returns the session of the record that
                is being emitted, or ``None`` if it belongs to no session.
            is_activity: whether a log record is activity.
            is_passive: whether a log record that is not activity is passive.

        Raises:
            TypeError: ``session`` is neither a session nor callable, or a predicate is not callable, or one of them is
                a coroutine function or has coroutine functions as its methods.

        """
        self._counter = _Counter(session, is_activity, is_passive, _record_event)
        self._failures = Failures(logging.getLogger(__name__), "A log record lacks its session's attributes")

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Set the session attributes on a log record. The SDK calls this for each record."""
        with self._failures:
            record = log_record.log_record
            attributes = cast("MutableMapping[str, AnyValue]", record.attributes)  # the SDK creates a mutable mapping
            if SESSION_ID not in attributes:
                attributes.update(self._counter.count(log_record, record.context))

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
    the end is detected, with the time at which the session's last event was recorded; within one run, that is never
    earlier than the time of ``session.start``. If one call ends a session and starts another, ``session.end`` comes
    first. Neither event is emitted when a session continues after a restart.

    With ``continue_on_restart``, the start of a run also emits the ``session.end`` of an earlier run's session that is
    over, even if that program was killed. The session's constructor emits it, so the provider must be able to export
    before the session is created.

    Threads and sessions may share an instance. The session logs exceptions raised here, as it does for any callback.

    Examples:
        >>> events = SessionEvents()
        >>> session = ClientSession("session.xml", on_session_start=events.started, on_session_end=events.ended)

    """

    def __init__(self, logger_provider: LoggerProvider | None = None) -> None:
        """Emit to ``logger_provider``, or, if it is ``None``, to the global provider (which may be set later).

        Raises:
            TypeError: ``logger_provider`` is neither a `LoggerProvider` nor ``None``.

        """
        if not (logger_provider is None or isinstance(logger_provider, LoggerProvider)):
            msg = f"logger_provider must be a LoggerProvider of OpenTelemetry or None, not {shown(logger_provider)}"
            raise TypeError(msg)
        self._logger = get_logger(__name__, logger_provider=logger_provider)
        self._starts_in_future: dict[str, int] = {}
        """By session id, the start of each session whose first event's own time was in the future."""

    def started(self, context: SessionContext) -> None:
        """Emit ``session.start``; pass this method as ``on_session_start``."""
        time = context.first_event_timestamp
        start = None if time is None else microseconds(datetime.fromisoformat(time)) * 1000
        if start is not None and start > time_ns():
            if len(self._starts_in_future) >= _MAX_STARTS:
                self._starts_in_future.clear()
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
                microseconds(summary.last_event_time) * 1000,
                self._starts_in_future.pop(summary.session_id, -sys.maxsize),
            ),
            event_name="session.end",
            attributes=_attributes(summary.session_id),
        )


class _Counter(Generic[_Item]):
    """Counts spans or log records in a session."""

    def __init__(
        self,
        session: ClientSession | VisitorSession | Callable[[], ClientSession | VisitorSession | None],
        is_activity: Callable[[_Item], bool],
        is_passive: Callable[[_Item], bool],
        event_of: Callable[[_Item], tuple[str, datetime | None]],
    ) -> None:
        self._session: ClientSession | None = None
        """The session of all items, unless it is a visitor's or must be found for each."""
        self._find_session: Callable[[], ClientSession | VisitorSession | None]
        if callable(session) and not isinstance(session, type):
            require_predicate("session", session)
            self._find_session = partial(_find_checked, session)
        else:
            only = _checked(session)
            self._session = None if isinstance(only, VisitorSession) else only
            self._find_session = partial(_find_checked, lambda: only)
        require_predicate("is_activity", is_activity)
        require_predicate("is_passive", is_passive)
        self._is_activity = is_activity
        self._is_passive = is_passive
        self._event_of = event_of

    def count(self, item: _Item, parent: Context | None) -> Mapping[str, str]:
        """Count a span or log record unless it is neither activity nor passive; return its session's attributes."""
        session = self._session if self._session is not None else self._find_session()
        if session is None:
            return {}
        extend = bool(self._is_activity(item))
        is_counted = extend or self._is_passive(item)
        context = None
        if is_counted and type(session) is ClientSession:  # a subclass may override get_session_context
            # Most events need neither their id nor their time: formatting these takes longer than counting.
            context = session._try_count(extend)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the package's own class
        elif isinstance(session, VisitorSession):
            if is_counted:
                return _visitor_attributes(partial(session.get_session_context, *self._event_of(item), extend=extend))
            return _inherited_attributes(parent) or _visitor_attributes(session.current)
        if context is None and is_counted:
            context = session.get_session_context(*self._event_of(item), extend=extend)
        if context is None:
            return _current_attributes(session)
        return _shared_attributes(context.session_id, context.previous_session_id)


def _span_event(span: Span) -> tuple[str, datetime | None]:
    return _event(span.get_span_context().trace_id, span.start_time)


def _record_event(log_record: ReadWriteLogRecord) -> tuple[str, datetime | None]:
    record = log_record.log_record
    return _event(record.trace_id, record.timestamp or record.observed_timestamp)


def _event(trace_id: int | None, nanoseconds: int | None) -> tuple[str, datetime | None]:
    """Return an event's id and time."""
    event_id = _uuid_text(trace_id) if trace_id else str(uuid.uuid4())
    return event_id, None if nanoseconds is None else time_at(nanoseconds // 1000)


def _find_checked(find: Callable[[], object]) -> ClientSession | VisitorSession | None:
    found = None if _is_counting.get() else find()
    return None if found is None else _checked(found)


def _checked(session: object) -> ClientSession | VisitorSession:
    if isinstance(session, ClientSession | VisitorSession):
        return session
    require_session(session, "get_session_context", "tick")
    return cast("ClientSession", session)


def _current_attributes(session: ClientSession) -> Mapping[str, str]:
    """Return the current session's attributes without extending the session."""
    check_if_due(session)
    while True:  # retry until both ids belong to the same session
        session_id, previous_id = session.session_id, session.previous_session_id
        if session.session_id == session_id:
            return _shared_attributes(session_id, previous_id)


def _inherited_attributes(parent: Context | None) -> dict[str, str]:
    """Return the session attributes of the span that a span or log record is in, if any."""
    attributes: Mapping[str, str] = getattr(get_current_span(parent), "attributes", None) or {}
    if SESSION_ID not in attributes:
        return {}
    return {name: attributes[name] for name in (SESSION_ID, SESSION_PREVIOUS_ID) if name in attributes}


def _visitor_attributes(find_context: Callable[[], SessionContext | None]) -> dict[str, str]:
    """Return the attributes of a visitor's session, which one call to the store finds."""
    token = _is_counting.set(True)
    try:
        context = find_context()
    finally:
        _is_counting.reset(token)
    return {} if context is None else _attributes(context.session_id, context.previous_session_id)


@lru_cache
def _shared_attributes(session_id: str, previous_id: str | None) -> Mapping[str, str]:
    """Return a session's attributes. Consecutive spans of a session share them, so they must not be changed."""
    return _attributes(session_id, previous_id)


def _attributes(session_id: str, previous_id: str | None = None) -> dict[str, str]:
    attributes = {SESSION_ID: session_id}
    if previous_id is not None:
        attributes[SESSION_PREVIOUS_ID] = previous_id
    return attributes


def _uuid_text(trace_id: int) -> str:
    """Return a trace id as a UUID's text, without the cost of a `uuid.UUID`."""
    digits = f"{trace_id:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
