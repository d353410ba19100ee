"""OpenTelemetry in a server: spans and log records get the ids of the visitor whose request is being handled."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from client_session.testing import ManualClock, ManualStates
from client_session.visitors import AsyncVisitorSessions, VisitorSession, VisitorSessions, exchange
from client_session_persistence import MemoryStates, SqliteStates
from rivals import ContendedStates

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (extra: opentelemetry)")

from opentelemetry.trace import (  # imported after the skip
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from client_session.trackers import opentelemetry  # imported after the skip
from client_session.trackers.opentelemetry import (  # imported after the skip
    SessionEvents,
    SessionLogRecordProcessor,
    SessionSpanProcessor,
)
from telemetry import Logs, Traces, nanoseconds  # imported after the skip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opentelemetry.sdk.trace import Span

    from client_session import ClientSession
    from client_session_persistence import ReadResult, SwapResult

LOGGER = "client_session.trackers.opentelemetry"


class TracedStates(ManualStates):
    """A store that counts its calls and starts a span in each, as an instrumented client of a database does."""

    def __init__(self, clock: ManualClock) -> None:
        """Start empty, without a tracer."""
        super().__init__(clock)
        self.calls = 0
        self.tracer: Tracer | None = None

    def read(self, key: str) -> ReadResult:
        """Trace the call, and read the value."""
        self._trace()
        return super().read(key)

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Trace the call, and replace the value."""
        self._trace()
        return super().swap(key, old, new, keep)

    def _trace(self) -> None:
        self.calls += 1
        if self.tracer is not None:
            self.tracer.start_span("EVALSHA", kind=SpanKind.CLIENT).end()


@pytest.fixture
def states(clock: ManualClock) -> TracedStates:
    """Return a store that counts its calls."""
    return TracedStates(clock)


@pytest.fixture
def visitor(states: TracedStates) -> VisitorSession:
    """Return a visitor's session."""
    return VisitorSessions(states).of("anna")


def current(visitor: VisitorSession) -> dict[str, str]:
    """Return the attributes of the visitor's current session."""
    context = visitor.current()
    assert context is not None
    attributes = {"session.id": context.session_id, "session.previous_id": context.previous_session_id}
    return {name: value for name, value in attributes.items() if value is not None}


def remote_parent() -> Any:  # noqa: ANN401  # a context
    """Return a context whose parent span is in another program."""
    return set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))))


@pytest.mark.usefixtures("fast_thread_switching")
def test_each_request_belongs_to_its_visitor() -> None:
    """Requests on eight threads, which set a context variable, get the sessions of their own visitors."""
    sessions = VisitorSessions(MemoryStates())
    visitor: ContextVar[VisitorSession | None] = ContextVar("visitor", default=None)
    traces, logs = Traces(visitor.get), Logs().of(visitor.get)

    def handle(number: int) -> None:
        token = visitor.set(sessions.of(f"visitor {number % 4}"))
        with traces.tracer.start_as_current_span("GET", attributes={"visitor": number % 4}):
            logs.logger.emit(body="hello", attributes={"visitor": number % 4})
        visitor.reset(token)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(handle, range(80)))
    ids = [current(sessions.of(f"visitor {number}"))["session.id"] for number in range(4)]
    assert len(set(ids)) == 4
    assert [attributes["session.id"] for attributes in traces.attributes] == [
        ids[attributes["visitor"]] for attributes in traces.attributes
    ]
    assert len(traces.attributes) == len(logs.attributes) == 80
    assert all(attributes["session.id"] == ids[attributes["visitor"]] for attributes in logs.attributes)
    entities = [sessions.of(f"visitor {number}").current() for number in range(4)]
    assert [entity and entity.event_index for entity in entities] == 4 * [20]


def test_without_a_visitor_there_are_no_attributes() -> None:
    """If the callable returns None, as outside requests, spans and log records are exported unchanged."""
    traces, logs = Traces(lambda: None), Logs().of(lambda: None, lambda _: True)
    traces.span(attributes={"x": 1})
    logs.logger.emit(body="hello", attributes={"y": 2})
    assert [*traces.attributes, *logs.attributes] == [{"x": 1}, {"y": 2}]


def test_callable_may_return_a_client_session(session: ClientSession) -> None:
    """A callable that returns a ClientSession is the same as the session itself, also before its first event."""
    traces, logs = Traces(lambda: session), Logs().of(lambda: session)
    logs.logger.emit(body="starting")
    traces.span()
    assert session.event_index == 1
    assert [*logs.attributes, *traces.attributes] == 2 * [{"session.id": session.session_id}]


def test_previous_session_id_is_added(visitor: VisitorSession, clock: ManualClock) -> None:
    """After the timeout, a span begins the visitor's next session, and has both sessions' ids."""
    traces = Traces(visitor)
    traces.span()
    clock.advance(600)
    traces.span()
    first, second = traces.attributes
    assert second == current(visitor)
    assert second["session.previous_id"] == first["session.id"]


def test_first_event_id_is_the_trace(visitor: VisitorSession) -> None:
    """The event id of a span is its trace id."""
    traces = Traces(visitor)
    traces.span()
    (span,) = traces.spans
    context = visitor.current()
    assert context is not None
    assert context.first_event_id == str(uuid.UUID(int=span.context.trace_id))


def test_one_trace_is_one_event(visitor: VisitorSession) -> None:
    """Several spans and log records of a trace that are activity count once, even in different services."""
    services = [Traces(visitor, lambda _: True) for _ in range(2)]
    logs = Logs().of(visitor, lambda _: True)
    for traces in services:
        with traces.tracer.start_as_current_span("GET", context=remote_parent()):
            traces.span("inside")
            logs.logger.emit(body="inside")
    context = visitor.current()
    assert context is not None
    assert context.event_index == 1


def test_inner_spans_and_records_do_not_use_the_store(visitor: VisitorSession, states: TracedStates) -> None:
    """Spans and log records inside a span that has the ids get the same ones, without a call to the store."""
    traces, logs = Traces(visitor), Logs().of(visitor)
    with traces.tracer.start_as_current_span("GET"):
        calls = states.calls
        traces.span("inside")
        logs.logger.emit(body="inside")
        assert states.calls == calls > 0
    assert [*traces.attributes, *logs.attributes] == 3 * [current(visitor)]


def test_explicit_parent_takes_precedence(visitor: VisitorSession, states: TracedStates) -> None:
    """A span or log record with an explicit context gets the ids of the span in it, not of the current span."""
    traces, logs = Traces(visitor), Logs().of(visitor)
    root = traces.tracer.start_span("GET")
    calls = states.calls
    traces.span("inside", context=set_span_in_context(root))
    logs.logger.emit(body="inside", context=set_span_in_context(root))
    assert states.calls == calls
    assert [*traces.attributes, *logs.attributes] == 2 * [current(visitor)]


def test_span_that_is_not_counted_gets_the_current_session(visitor: VisitorSession, clock: ManualClock) -> None:
    """Without a span around it, a span that is not activity is labeled but neither counted nor extends the session."""
    traces, logs = Traces(visitor), Logs().of(visitor)
    traces.span()
    clock.advance(400)
    traces.span(kind=SpanKind.SERVER, context=remote_parent())
    logs.logger.emit(body="hello")
    assert [*traces.attributes, *logs.attributes] == 3 * [current(visitor)]
    clock.advance(200)
    assert visitor.current() is None


def is_heartbeat(span: Span) -> bool:
    """Return whether a span is named heartbeat."""
    return span.name == "heartbeat"


def is_click(span: Span) -> bool:
    """Return whether a span is named click."""
    return span.name == "click"


def test_without_a_session_there_are_no_attributes(visitor: VisitorSession, clock: ManualClock) -> None:
    """Before the first event and after the timeout, spans that begin no session have no attributes."""
    traces = Traces(visitor, is_click, is_heartbeat)
    for _ in range(2):
        traces.span("heartbeat")
        traces.span("other")
        traces.span("click")
        clock.advance(600)
    none, other, click = traces.attributes[3:]
    assert (none, other) == ({}, {})
    assert click["session.id"] != traces.attributes[2]["session.id"]


def test_passive_span_is_counted_without_extending(visitor: VisitorSession, clock: ManualClock) -> None:
    """A passive span is an event of the visitor's session, which ends when it would have anyway."""
    traces = Traces(visitor, is_click, is_heartbeat)
    traces.span("click")
    clock.advance(400)
    traces.span("heartbeat")
    context = visitor.current()
    assert context is not None
    assert context.event_index == 2
    assert traces.attributes == 2 * [current(visitor)]
    clock.advance(200)
    assert visitor.current() is None


def test_instrumented_store_does_not_recurse(visitor: VisitorSession, states: TracedStates) -> None:
    """Spans of the call that counts a span, as an instrumented client starts them, are exported without attributes."""
    traces = Traces(visitor)
    states.tracer = traces.tracer
    traces.span("GET")
    traces.span("GET", context=remote_parent())
    states.tracer = None
    context = visitor.current()
    assert context is not None
    assert context.event_index == 1
    attributes = {(span.name, *(span.attributes or {}).values()) for span in traces.spans}
    assert attributes == {("EVALSHA",), ("GET", context.session_id)}


def test_session_events_are_emitted_for_visitors(states: TracedStates, clock: ManualClock) -> None:
    """VisitorSessions accepts the callbacks of SessionEvents."""
    logs = Logs()
    events = SessionEvents(logs.of(lambda: None).provider)
    visitor = VisitorSessions(states, on_session_start=events.started, on_session_end=events.ended).of("anna")
    traces = Traces(visitor)
    traces.span()
    clock.advance(600)
    traces.span()
    assert [record.event_name for record in logs.records] == ["session.start", "session.end", "session.start"]
    assert [attributes["session.id"] for attributes in logs.attributes] == [
        traces.attributes[number]["session.id"] for number in (0, 0, 1)
    ]


def test_starts_of_sessions_that_end_elsewhere_do_not_accumulate(
    states: TracedStates, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many starts that lie in the future are remembered, because other processes may see the sessions' ends."""
    monkeypatch.setattr(opentelemetry, "_MAX_STARTS", 2)
    logs = Logs()
    events = SessionEvents(logs.of(lambda: None).provider)
    sessions = VisitorSessions(states, on_session_start=events.started, on_session_end=events.ended)
    future = clock.now().replace(year=9000)
    for name in ("anna", "bert", "carl"):
        sessions.of(name).get_session_context(uuid.uuid4(), future)
    for name in ("anna", "carl"):
        sessions.of(name).start_new_session()
    ends = [record.timestamp for record in logs.records if record.event_name == "session.end"]
    assert ends == [nanoseconds(clock.now()), nanoseconds(future)]


def logged_failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the logged failures."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.exc_info]


def contended() -> VisitorSession:
    """Return a session whose state another host always changes first."""
    return VisitorSessions(ContendedStates()).of("anna")


def broken() -> VisitorSession:
    """Fail, as a callable with a bug does."""
    raise LookupError


def asynchronous() -> Any:  # noqa: ANN401  # an invalid result
    """Return a session whose methods are coroutine functions."""
    return AsyncVisitorSessions(MemoryStates()).of("anna")


@pytest.mark.parametrize("find", [contended, broken, asynchronous, lambda: "session.xml"])
def test_failure_does_not_lose_spans_or_records(
    find: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If a visitor's store or the callable fails, spans and records are exported unchanged, and it is logged once."""
    monkeypatch.setattr(exchange, "CONTENTION_SECONDS", 0.0)
    traces, logs = Traces(find), Logs().of(find, lambda _: True)
    for _ in range(3):
        traces.span(attributes={"x": 1})
        logs.logger.emit(body="hello", attributes={"y": 2})
    assert traces.attributes == 3 * [{"x": 1}]
    assert logs.attributes == 3 * [{"y": 2}]
    assert logged_failures(caplog) == [
        "A span lacks its session's attributes",
        "A log record lacks its session's attributes",
    ]


def test_spans_have_attributes_again_after_a_failure(tmp_path: Path) -> None:
    """As soon as the store can be used again, the next span of the same thread is counted."""
    folder = tmp_path / "folder"
    folder.touch()
    visitor = VisitorSessions(SqliteStates(folder / "visitors.db")).of("anna")
    traces = Traces(visitor)
    traces.span()
    folder.unlink()
    traces.span()
    assert traces.attributes == [{}, current(visitor)]


async def find_later() -> VisitorSession | None:
    """Return nothing, but only when awaited."""
    return None


@pytest.mark.parametrize("make_processor", [SessionSpanProcessor, SessionLogRecordProcessor])
def test_invalid_session_is_named_in_the_error(make_processor: Callable[..., object]) -> None:
    """A coroutine function, a class and a session for asyncio are refused when the processor is created."""
    with pytest.raises(TypeError, match="session must be a plain function, not the coroutine function <function find_"):
        make_processor(find_later)
    with pytest.raises(TypeError, match=r"session must be an instance, not the class VisitorSession; did you mean Vis"):
        make_processor(VisitorSession)
    with pytest.raises(TypeError, match="session must have plain methods, like a ClientSession or a VisitorSession, n"):
        make_processor(asynchronous())
