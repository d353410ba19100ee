"""OpenTelemetry SDK providers with a session's processors and in-memory exporters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from client_session.trackers.opentelemetry import SessionLogRecordProcessor, SessionSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import Logger, LogRecord
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Tracer

    from client_session import ClientSession
    from client_session.visitors import VisitorSession

    Session: TypeAlias = ClientSession | VisitorSession
    SessionSource: TypeAlias = Session | Callable[[], Session | None]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Traces:
    """A tracer that uses a session's span processor, and the spans that it exported."""

    def __init__(self, session: SessionSource, *processing: Any, sampler: Sampler | None = None) -> None:  # noqa: ANN401
        """Set up a provider that exports to memory."""
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.provider.add_span_processor(SessionSpanProcessor(session, *processing))
        self.tracer: Tracer = self.provider.get_tracer(__name__)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended."""
        return self._exporter.get_finished_spans()

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Return the attributes of each exported span."""
        return [dict(span.attributes or {}) for span in self.spans]

    def span(self, name: str = "click", kind: SpanKind = SpanKind.INTERNAL, **options: Any) -> None:  # noqa: ANN401
        """Start and end a span."""
        self.tracer.start_span(name, kind=kind, **options).end()


class Logs:
    """A logger that uses a session's log record processor, and the records that it exported."""

    def __init__(self) -> None:
        """Set up a provider without processors; `of` adds them."""
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # untyped in the SDK
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.logger: Logger = self.provider.get_logger(__name__)

    def of(self, session: SessionSource, *processing: Any) -> Logs:  # noqa: ANN401
        """Add the session's processor, then the exporter's."""
        self.provider.add_log_record_processor(SessionLogRecordProcessor(session, *processing))
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        return self

    @property
    def records(self) -> list[LogRecord]:
        """Return the exported log records."""
        return [exported.log_record for exported in self._exporter.get_finished_logs()]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Return the attributes of each exported log record."""
        return [dict(record.attributes or {}) for record in self.records]


def nanoseconds(time: datetime) -> int:
    """Convert a time to nanoseconds since the epoch, the unit that OpenTelemetry uses."""
    return (time - EPOCH) // timedelta(microseconds=1) * 1000
