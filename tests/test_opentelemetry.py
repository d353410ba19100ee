"""Sessions in OpenTelemetry: which session spans and log records name, and what counts as activity in it."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (the extra opentelemetry)")

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult  # after the skip
from opentelemetry.trace import (  # after the skip
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from client_session import ClientSession  # after the skip
from client_session_persistence import MemoryStore  # after the skip
from telemetry import Logs, Traces, nanoseconds  # after the skip

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from client_session.testing import ManualClock, ManualScheduler


class RecordOnly(Sampler):
    """Keeps spans in the program, and exports none."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        """Decide always the same."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Name it."""
        return "record only"


def parent(*, is_remote: bool) -> Context:
    """Return the context of a span elsewhere, in this program or in another."""
    return set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote, TraceFlags(TraceFlags.SAMPLED))))


def test_a_span_starts_a_session_and_names_it(session: ClientSession) -> None:
    """The first one is the session's first event: its trace id is the event's, its start the event's time."""
    traces = Traces(session)
    traces.span(start_time=nanoseconds(datetime(2026, 5, 4, 3, 2, 1, 987654, tzinfo=UTC)) + 321)
    (span,) = traces.spans
    assert traces.attributes == [{"session.id": session.session_id}]
    assert session.first_event_id == str(uuid.UUID(int=span.context.trace_id))
    assert session.first_event_timestamp == "2026-05-04T03:02:01.987654Z"


def test_the_next_session_names_the_one_before(session: ClientSession, clock: ManualClock) -> None:
    """After the timeout, spans and log records carry the previous session's id too, and it is another one."""
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
def test_which_spans_are_activity_by_default(session: ClientSession, kind: SpanKind, context: str | None) -> None:
    """Those of kind SERVER, CLIENT and INTERNAL that have no parent, here or elsewhere; the others name the session."""
    traces = Traces(session)
    traces.span(kind=kind, context=context and parent(is_remote=context == "remote"))
    is_activity = context is None and kind in {SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL}
    assert session.event_index == is_activity
    assert traces.attributes == [{"session.id": session.session_id}]


def test_the_user_says_what_is_activity(session: ClientSession) -> None:
    """A predicate of one's own sees the span as it starts, its name, kind and attributes."""
    traces = Traces(session, lambda span: span.name == "click" and (span.attributes or {}).get("by") == "user")
    traces.span("click", SpanKind.CONSUMER, attributes={"by": "user"}, context=parent(is_remote=True))
    traces.span("click", attributes={"by": "timer"})
    traces.span("poll")
    assert session.event_index == 1
    assert [attributes["session.id"] for attributes in traces.attributes] == 3 * [session.session_id]


def test_what_is_no_activity_extends_nothing(session: ClientSession, clock: ManualClock) -> None:
    """Spans inside others and log records, however many, let the session time out as if they were not there."""
    traces, logs = Traces(session), Logs().of(session)
    with traces.tracer.start_as_current_span("click"):
        for _ in range(9):
            clock.advance(60)
            traces.span("inside")
            logs.logger.emit(body="inside")
        assert session.expires_in == 60.0
    assert session.event_index == 1
    assert {attributes["session.id"] for attributes in [*traces.attributes, *logs.attributes]} == {session.session_id}


def test_a_pending_session_is_named_at_once(session: ClientSession) -> None:
    """What comes before the first event carries the id of the session that this event starts."""
    traces, logs = Traces(session), Logs().of(session)
    logs.logger.emit(body="starting")
    traces.span(kind=SpanKind.PRODUCER)
    assert session.session_index is None
    traces.span()
    assert session.session_index == 1
    assert [*logs.attributes, *traces.attributes] == 3 * [{"session.id": session.session_id}]


def test_what_comes_after_the_timeout_is_no_part_of_the_old_session(session: ClientSession, clock: ManualClock) -> None:
    """Even if no tick came: it names the pending session, whose previous one is not known yet."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    old = session.session_id
    clock.advance(600)
    logs.logger.emit(body="late")
    assert logs.attributes == [{"session.id": session.session_id}]
    assert session.session_id != old
    assert session.session_index is None


def test_while_the_checker_is_stopped_the_session_goes_on(session: ClientSession, clock: ManualClock) -> None:
    """A film is playing: what is logged after the timeout is part of the session."""
    traces, logs = Traces(session), Logs().of(session)
    traces.span()
    session.stop_checker()
    clock.advance(6000)
    logs.logger.emit(body="a scene")
    assert logs.attributes == traces.attributes


def test_a_dropped_span_is_no_activity(session: ClientSession) -> None:
    """No processor sees what the sampler drops; what is recorded and not exported counts."""
    Traces(session, sampler=ALWAYS_OFF).span()
    assert session.event_index == 0
    recorded = Traces(session, sampler=RecordOnly())
    recorded.span()
    assert recorded.spans == ()
    assert session.event_index == 1


def test_a_session_id_of_its_own_is_kept(session: ClientSession) -> None:
    """A span or log record that tells of another session is left alone, and is no activity in this one."""
    traces, logs = Traces(session), Logs().of(session, lambda _: True)
    other = {"session.id": "other", "by": "them"}
    traces.span(attributes=other)
    logs.logger.emit(attributes=other)
    assert [*traces.attributes, *logs.attributes] == [other, other]
    assert session.event_index == 0


def test_a_log_record_keeps_its_attributes(session: ClientSession) -> None:
    """The session's come beside them, also when the record was activity."""
    logs = Logs().of(session, lambda record: record.log_record.event_name == "click")
    logs.logger.emit(event_name="click", attributes={"x": 3}, timestamp=nanoseconds(datetime(2026, 5, 4, tzinfo=UTC)))
    logs.logger.emit(body="drawn", attributes={"ms": 7})
    assert logs.attributes == [{"x": 3, "session.id": session.session_id}, {"ms": 7, "session.id": session.session_id}]
    assert session.event_index == 1
    assert session.first_event_timestamp == "2026-05-04T00:00:00.000Z"


def test_a_log_record_in_a_trace_has_the_traces_event_id(session: ClientSession) -> None:
    """Activity that was logged leads to its trace too; outside of one its id is random."""
    traces, logs = Traces(session, lambda _: False), Logs().of(session, lambda _: True)
    with traces.tracer.start_as_current_span("click") as span:
        logs.logger.emit(body="clicked")
    assert session.first_event_id == str(uuid.UUID(int=span.get_span_context().trace_id))
    session.start_new_session()
    logs.logger.emit(body="clicked")
    assert session.first_event_id not in {None, str(uuid.UUID(int=0))}


def test_threads_share_a_processor(session: ClientSession, switching_fast: None) -> None:
    """Spans of eight threads are all counted, and name one session."""
    del switching_fast
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


def test_both_ids_are_read_of_one_session(clock: ManualClock, scheduler: ManualScheduler) -> None:
    """A session that gives way to the next between the two readings is not named with the next one's previous."""

    class GivingWay(ClientSession):
        """The next session starts while the ids are being read, as another thread may have it."""

        first = ""

        @property
        def previous_session_id(self) -> str | None:
            if not self.first:
                self.first = self.session_id
                self.start_new_session()
                self.get_session_context(event_id(2))
            return super().previous_session_id

    session = GivingWay(store=MemoryStore(), clock=clock, scheduler=scheduler)
    session.get_session_context(event_id(1))
    traces = Traces(session, lambda _: False)
    traces.span()
    assert traces.attributes == [{"session.id": session.session_id, "session.previous_id": session.first}]
    assert session.first != session.session_id
