"""OpenTelemetry: spans and log records get session ids, and some of them count as activity."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (extra: opentelemetry)")

from opentelemetry.sdk.trace import Span  # imported after the skip
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult  # imported after the skip
from opentelemetry.trace import (  # imported after the skip
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from client_session import ClientSession  # imported after the skip
from client_session_persistence import MemoryStore  # imported after the skip
from telemetry import Logs, Traces, nanoseconds  # imported after the skip

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import ReadWriteLogRecord

    from client_session.testing import ManualClock, ManualScheduler


class RecordOnlySampler(Sampler):
    """A sampler that records spans but does not export them."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        """Return the same decision for every span."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Return the sampler's name."""
        return "record only"


def context_with_parent(*, is_remote: bool) -> Context:
    """Return a context whose parent span is local or remote."""
    return set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote, TraceFlags(TraceFlags.SAMPLED))))


def test_root_span_starts_a_session(session: ClientSession) -> None:
    """The first span is the session's first event; its trace id and start time become the event id and time."""
    traces = Traces(session)
    traces.span(start_time=nanoseconds(datetime(2026, 5, 4, 3, 2, 1, 987654, tzinfo=UTC)) + 321)
    (span,) = traces.spans
    assert traces.attributes == [{"session.id": session.session_id}]
    assert session.first_event_id == str(uuid.UUID(int=span.context.trace_id))
    assert session.first_event_timestamp == "2026-05-04T03:02:01.987654Z"


def test_previous_session_id_is_added(session: ClientSession, clock: ManualClock) -> None:
    """After the timeout, spans and log records also include the id of the previous session."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    first = session.session_id
    clock.advance(600)
    traces.span()
    logs.logger.emit(body="hello")
    expected = {"session.id": session.session_id, "session.previous_id": first}
    assert first != session.session_id
    assert traces.attributes == [{"session.id": first}, expected]
    assert logs.attributes == [expected]


@pytest.mark.parametrize("context", [None, "local", "remote"])
@pytest.mark.parametrize("kind", SpanKind)
def test_default_activity_is_a_root_span(session: ClientSession, kind: SpanKind, context: str | None) -> None:
    """Only SERVER, CLIENT and INTERNAL spans without a parent count as activity; others just get the session id."""
    traces = Traces(session)
    traces.span(kind=kind, context=context and context_with_parent(is_remote=context == "remote"))
    is_activity = context is None and kind in {SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL}
    assert session.event_index == is_activity
    assert traces.attributes == [{"session.id": session.session_id}]


def test_custom_predicate_decides_what_is_activity(session: ClientSession) -> None:
    """A custom predicate is called when a span starts, and sees the span's name, kind and attributes."""
    traces = Traces(session, lambda span: span.name == "click" and (span.attributes or {}).get("by") == "user")
    traces.span("click", SpanKind.CONSUMER, attributes={"by": "user"}, context=context_with_parent(is_remote=True))
    traces.span("click", attributes={"by": "timer"})
    traces.span("poll")
    assert session.event_index == 1
    assert [attributes["session.id"] for attributes in traces.attributes] == 3 * [session.session_id]


def test_inner_spans_and_log_records_do_not_extend_the_session(session: ClientSession, clock: ManualClock) -> None:
    """Child spans and log records do not extend the session, no matter how many there are."""
    traces, logs = Traces(session), Logs().of(session)
    with traces.tracer.start_as_current_span("click"):
        for _ in range(9):
            clock.advance(60)
            traces.span("inside")
            logs.logger.emit(body="inside")
        assert session.expires_in == 60.0
    assert session.event_index == 1
    assert {attributes["session.id"] for attributes in [*traces.attributes, *logs.attributes]} == {session.session_id}


def is_heartbeat(item: Span | ReadWriteLogRecord) -> bool:
    """Return whether a span or log record is named heartbeat."""
    return (item.name if isinstance(item, Span) else item.log_record.event_name) == "heartbeat"


def test_passive_spans_and_records_are_counted_without_extending(session: ClientSession, clock: ManualClock) -> None:
    """Passive spans and log records have an event index, but do not extend the session; others have none."""
    traces = Traces(session, lambda span: span.name == "click", is_heartbeat)
    logs = Logs().of(session, lambda _: False, is_heartbeat)
    traces.span("click")
    clock.advance(400)
    traces.span("heartbeat")
    logs.logger.emit(event_name="heartbeat")
    assert session.event_index == 3
    traces.span("other")
    logs.logger.emit(event_name="other")
    assert session.event_index == 3
    assert session.expires_in == 200.0
    assert [*traces.attributes, *logs.attributes] == 5 * [{"session.id": session.session_id}]


@pytest.mark.parametrize("has_ended", [False, True])
def test_passive_span_without_a_session_gets_the_pending_id(
    session: ClientSession, clock: ManualClock, *, has_ended: bool
) -> None:
    """Before the first event or after the timeout, passive spans begin no session and get the pending session's id."""
    traces = Traces(session, lambda span: span.name == "click", is_heartbeat)
    logs = Logs().of(session, lambda _: False, is_heartbeat)
    if has_ended:
        traces.span("click")
        clock.advance(600)
    traces.span("heartbeat")
    logs.logger.emit(event_name="heartbeat")
    assert session.session_index is None
    assert [traces.attributes[-1], *logs.attributes] == 2 * [{"session.id": session.session_id}]
    traces.span("click")
    assert session.session_index == 1 + has_ended
    assert session.event_index == 1
    assert traces.attributes[-1]["session.id"] == logs.attributes[0]["session.id"]


def test_activity_takes_precedence_over_passive(session: ClientSession) -> None:
    """A span or log record for which both predicates are true is activity."""
    Traces(session, is_heartbeat, is_heartbeat).span("heartbeat")
    assert (session.session_index, session.event_index) == (1, 1)
    session.start_new_session()
    Logs().of(session, is_heartbeat, is_heartbeat).logger.emit(event_name="heartbeat")
    assert (session.session_index, session.event_index) == (2, 1)


def test_pending_session_id_is_used_before_the_first_event(session: ClientSession) -> None:
    """Before the first event, spans and log records get the id of the session that the event will start."""
    traces, logs = Traces(session), Logs().of(session)
    logs.logger.emit(body="starting")
    traces.span(kind=SpanKind.PRODUCER)
    assert session.session_index is None
    traces.span()
    assert session.session_index == 1
    assert [*logs.attributes, *traces.attributes] == 3 * [{"session.id": session.session_id}]


def test_log_record_after_the_timeout_gets_the_pending_id(session: ClientSession, clock: ManualClock) -> None:
    """Even without a tick, a log record emitted after the timeout has the pending session's id but no previous id."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    old = session.session_id
    clock.advance(600)
    logs.logger.emit(body="late")
    assert logs.attributes == [{"session.id": session.session_id}]
    assert session.session_id != old
    assert session.session_index is None


def test_stopped_checker_keeps_the_session_current(session: ClientSession, clock: ManualClock) -> None:
    """With the checker stopped, a log record emitted after the timeout still belongs to the session."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    session.stop_checker()
    clock.advance(6000)
    logs.logger.emit(body="after the timeout")
    assert logs.attributes == traces.attributes


def test_unsampled_span_is_not_activity(session: ClientSession) -> None:
    """A span that the sampler drops is not counted, but one that is recorded without being exported is."""
    Traces(session, sampler=ALWAYS_OFF).span()
    assert session.event_index == 0
    recorded = Traces(session, sampler=RecordOnlySampler())
    recorded.span()
    assert recorded.spans == ()
    assert session.event_index == 1


def test_subclass_sees_each_event() -> None:
    """A subclass that overrides get_session_context is called for each span, also for those within a session."""

    class Subclass(ClientSession):
        def get_session_context(self, event_id: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # passed on
            seen.append(event_id)
            return super().get_session_context(event_id, *arguments, **options)

    seen: list[str] = []
    with Subclass(store=MemoryStore()) as session:
        traces = Traces(session)
        for _ in range(3):
            traces.span()
    assert seen == [str(uuid.UUID(int=span.context.trace_id)) for span in traces.spans]


def test_existing_session_id_is_kept(session: ClientSession) -> None:
    """A span or log record that already has a session.id is left unchanged and does not count as activity."""
    traces, logs = Traces(session), Logs().of(session, lambda _: True)
    other = {"session.id": "other", "source": "other"}
    traces.span(attributes=other)
    logs.logger.emit(attributes=other)
    assert [*traces.attributes, *logs.attributes] == [other, other]
    assert session.event_index == 0


def test_log_record_keeps_its_attributes(session: ClientSession) -> None:
    """A log record keeps its own attributes when session attributes are added, even if it counts as activity."""
    logs = Logs().of(session, lambda record: record.log_record.event_name == "click")
    logs.logger.emit(event_name="click", attributes={"x": 3}, timestamp=nanoseconds(datetime(2026, 5, 4, tzinfo=UTC)))
    logs.logger.emit(body="drawn", attributes={"ms": 7})
    assert logs.attributes == [{"x": 3, "session.id": session.session_id}, {"ms": 7, "session.id": session.session_id}]
    assert session.event_index == 1
    assert session.first_event_timestamp == "2026-05-04T00:00:00.000Z"


def test_log_record_in_a_trace_uses_the_trace_id_as_event_id(session: ClientSession) -> None:
    """A log record that counts as activity uses its trace id as the event id or, outside a trace, a random id."""
    traces, logs = Traces(session, lambda _: False), Logs().of(session, lambda _: True)
    with traces.tracer.start_as_current_span("click") as span:
        logs.logger.emit(body="clicked")
    assert session.first_event_id == str(uuid.UUID(int=span.get_span_context().trace_id))
    session.start_new_session()
    logs.logger.emit(body="clicked")
    assert session.first_event_id not in {None, str(uuid.UUID(int=0))}


@pytest.mark.usefixtures("fast_thread_switching")
def test_threads_share_a_processor(session: ClientSession) -> None:
    """Spans from eight threads are all counted in one session."""
    traces = Traces(session)

    def work() -> None:
        for _ in range(50):
            with traces.tracer.start_as_current_span("click"):
                traces.span("inside")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.event_index == 400
    assert traces.attributes == 800 * [{"session.id": session.session_id}]


def test_both_ids_belong_to_the_same_session(clock: ManualClock, scheduler: ManualScheduler) -> None:
    """If the next session starts while the ids are being read, both ids still come from one session."""

    class ReplacedSession(ClientSession):
        """A session that is replaced while its ids are being read, as if by another thread."""

        first = ""

        @property
        def previous_session_id(self) -> str | None:
            if not self.first:
                self.first = self.session_id
                self.start_new_session()
                self.get_session_context(event_id(2))
            return super().previous_session_id

    session = ReplacedSession(store=MemoryStore(), clock=clock, scheduler=scheduler)
    session.get_session_context(event_id(1))
    traces = Traces(session, lambda _: False)
    traces.span()
    assert traces.attributes == [{"session.id": session.session_id, "session.previous_id": session.first}]
    assert session.first != session.session_id
