"""Sessions in OpenTelemetry: what the SDK's own exporters get of spans, log records and the session's events."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (the extra opentelemetry)")

from opentelemetry._logs import NoOpLogger  # after the skip
from opentelemetry.sdk._logs import LoggerProvider  # after the skip
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor  # likewise
from opentelemetry.sdk.trace import TracerProvider  # after the skip
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # after the skip
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # after the skip
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult  # likewise
from opentelemetry.trace import (  # after the skip
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from fsm import ClientSession  # after the skip
from fsm.trackers.opentelemetry import (  # after the skip
    SessionEvents,
    SessionLogRecordProcessor,
    SessionSpanProcessor,
)
from persistence import MemoryStore  # after the skip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import MakeSession
    from opentelemetry._logs import Logger, LogRecord
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

    from fsm.testing import ManualClock, ManualScheduler

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAILURES = "fsm.trackers.opentelemetry"


class Traces:
    """A tracer whose spans a session's processor sees, and what was exported of them."""

    def __init__(self, session: ClientSession, *processing: Any, sampler: Sampler | None = None) -> None:  # noqa: ANN401
        """Export to memory."""
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.provider.add_span_processor(SessionSpanProcessor(session, *processing))
        self.tracer: Tracer = self.provider.get_tracer(__name__)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """What ended so far."""
        return self._exporter.get_finished_spans()

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The attributes of each."""
        return [dict(span.attributes or {}) for span in self.spans]

    def span(self, name: str = "click", kind: SpanKind = SpanKind.INTERNAL, **options: Any) -> None:  # noqa: ANN401
        """Start and end a span."""
        self.tracer.start_span(name, kind=kind, **options).end()


class Logs:
    """A logger whose records a session's processor sees, and what was exported of them."""

    def __init__(self) -> None:
        """Export to memory, once a session is there."""
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK left its types out
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.logger: Logger = self.provider.get_logger(__name__)

    def of(self, session: ClientSession, *processing: Any) -> Logs:  # noqa: ANN401
        """Add the processors, ours before the exporter's."""
        self.provider.add_log_record_processor(SessionLogRecordProcessor(session, *processing))
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        return self

    @property
    def records(self) -> list[LogRecord]:
        """What was emitted so far."""
        return [exported.log_record for exported in self._exporter.get_finished_logs()]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The attributes of each."""
        return [dict(record.attributes or {}) for record in self.records]


class RecordOnly(Sampler):
    """Keeps spans in the program, and exports none."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        """Decide always the same."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Name it."""
        return "record only"


def nanoseconds(time: datetime) -> int:
    """Return a time as OpenTelemetry has it."""
    return (time - EPOCH) // timedelta(microseconds=1) * 1000


def parent(*, is_remote: bool) -> Context:
    """Return the context of a span elsewhere, in this program or in another."""
    return set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote, TraceFlags(TraceFlags.SAMPLED))))


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of failures."""
    return [record.getMessage() for record in caplog.records if record.name == FAILURES and record.exc_info]


@pytest.fixture
def session(make: MakeSession) -> ClientSession:
    """Return a session on the test's clock."""
    return make()


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


def test_events_tell_of_start_and_end(make: MakeSession, clock: ManualClock) -> None:
    """session.start and session.end, the end before the next start, with the conventions' attributes and times."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = make(on_session_start=events.started, on_session_end=events.ended)
    logs.of(session)
    first, last = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 0, 5, 0, 42, tzinfo=UTC)
    old = session.session_id
    session.get_session_context(event_id(1), first)
    session.get_session_context(event_id(2), last)
    clock.advance(600)
    session.get_session_context(event_id(3))
    new = session.session_id
    session.close()
    assert [(record.event_name, record.timestamp) for record in logs.records] == [
        ("session.start", nanoseconds(first)),
        ("session.end", nanoseconds(last)),
        ("session.start", nanoseconds(clock.now())),
        ("session.end", nanoseconds(clock.now())),
    ]
    assert logs.attributes == [
        {"session.id": old},
        {"session.id": old},
        {"session.id": new, "session.previous_id": old},
        {"session.id": new},
    ]


def test_a_session_that_a_restart_continues_neither_ends_nor_starts(make: MakeSession) -> None:
    """Its spans name it after the restart as before, and session.start came once."""
    logs = Logs()
    logs.of(make())
    events = SessionEvents(logs.provider)
    named: list[dict[str, Any]] = []
    for _ in range(2):
        session = make(on_session_start=events.started, on_session_end=events.ended, continue_on_restart=True)
        traces = Traces(session)
        traces.span()
        named += traces.attributes
        session.close()
    assert named[0] == named[1]
    assert [record.event_name for record in logs.records] == ["session.start"]
    assert logs.attributes == named[:1]


def test_the_sessions_own_events_are_no_activity(make: MakeSession, clock: ManualClock) -> None:
    """Even where every log record is activity, the end of a session starts no other."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = make(on_session_start=events.started, on_session_end=events.ended)
    logs.of(session, lambda _: True)
    logs.logger.emit(body="hello")
    clock.advance(600)
    session.tick()
    assert session.session_index is None
    assert [record.event_name for record in logs.records] == ["session.start", None, "session.end"]


def test_a_late_log_record_tells_of_the_end_first(make: MakeSession, clock: ManualClock) -> None:
    """session.end comes before the first record that is no longer part of the session."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = make(on_session_start=events.started, on_session_end=events.ended)
    logs.of(session)
    session.get_session_context(event_id(1))
    clock.advance(600)
    logs.logger.emit(body="late")
    assert [record.event_name for record in logs.records] == ["session.start", "session.end", None]
    ids = [attributes["session.id"] for attributes in logs.attributes]
    assert ids[0] == ids[1] != ids[2]


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


def test_three_lines_are_enough(tmp_path: Path) -> None:
    """A newcomer's program, run as one: spans, log records and the session's events come out of the console exporters.

    The events go to the global provider, even though it is set after they were made.
    """
    program = """
import sys
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from fsm import ClientSession
from fsm.trackers.opentelemetry import SessionEvents, SessionLogRecordProcessor, SessionSpanProcessor

events = SessionEvents()
session = ClientSession("session.xml", on_session_start=events.started, on_session_end=events.ended)
tracer_provider, logger_provider = TracerProvider(), LoggerProvider()
tracer_provider.add_span_processor(SessionSpanProcessor(session))
logger_provider.add_log_record_processor(SessionLogRecordProcessor(session))

one_line = {"formatter": lambda it: " ".join(it.to_json().split()) + "\\n"}
tracer_provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(**one_line)))
logger_provider.add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(out=sys.stderr, **one_line)))
set_logger_provider(logger_provider)
with tracer_provider.get_tracer("app").start_as_current_span("click"):
    logger_provider.get_logger("app").emit(body="clicked")
session.close()
tracer_provider.shutdown()
logger_provider.shutdown()
"""
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (span,) = map(json.loads, done.stdout.splitlines())
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event_name"] for record in records] == ["session.start", "", "session.end"]
    assert [record["attributes"] for record in records] == 3 * [span["attributes"]]
    assert span["attributes"].keys() == {"session.id"}
