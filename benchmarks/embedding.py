"""The cost of a session in trackers: an event through `SessionTracker`, and a span in OpenTelemetry's SDK.

The reference attaches data of the same size that is already known: another entity, or two other attributes. Only the
tracker's call is timed, in CPU time. A case and its reference take turns in short slices, so that other load slows
both.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import attrs
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from snowplow_tracker.events.page_view import PageView
from snowplow_tracker.self_describing_json import SelfDescribingJson
from snowplow_tracker.tracker import Tracker

from benchmarks.results import Bar, Row
from client_session import ClientSession, MemoryStore
from client_session.trackers.opentelemetry import SessionSpanProcessor
from client_session.trackers.snowplow import SessionTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span
    from snowplow_tracker.typing import PayloadDict

ROUNDS = 9
_SLICES = 25
"""The number of slices of each statement per round. Only the fastest is used."""
_CALLS = 100
"""The number of calls in a slice, which takes a few milliseconds."""

_ATTRIBUTES = {f"enduser.{name}": str(uuid.uuid4()) for name in ("id", "previous_id")}
_PLACE: dict[str, Any] = {"schema": "iglu:com.example/place/jsonschema/1-0-0", "data": {"name": "Zürich", "floor": 3}}


@attrs.frozen
class Statement:
    """A call that is timed: ``prepare`` is not timed, and returns the argument of ``run``."""

    prepare: Callable[[], Any]
    run: Callable[[Any], object]

    def seconds(self, calls: int) -> float:
        """Return the CPU seconds per call."""
        arguments = [self.prepare() for _ in range(calls)]
        run = self.run
        begin = time.process_time()
        for argument in arguments:
            run(argument)
        return (time.process_time() - begin) / calls


@attrs.frozen
class Case:
    """A statement with a session, and its reference without one."""

    name: str
    ours: Statement
    reference: Statement
    against: str
    bar: Bar | None = None

    def row(self, rounds: int = ROUNDS, slices: int = _SLICES, calls: int = _CALLS) -> Row:
        """Time both statements, and compare the figures."""
        ours: list[float] = []
        reference: list[float] = []
        for _ in range(rounds):
            pairs = [(self.ours.seconds(calls), self.reference.seconds(calls)) for _ in range(slices)]
            ours.append(min(pair[0] for pair in pairs) * 1e6)
            reference.append(min(pair[1] for pair in pairs) * 1e6)
        return Row.of_rounds(self.name, ours, reference, against=self.against, unit="µs", bar=self.bar)


class NullEmitter:
    """An emitter that drops events."""

    def input(self, payload: PayloadDict) -> None:
        """Drop an event."""

    def flush(self) -> None:
        """Do nothing."""

    async_flush = sync_flush = flush


class AttributeProcessor(SpanProcessor):
    """A span processor that sets two attributes of the length of session ids."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the attributes."""
        del parent_context
        span.set_attributes(_ATTRIBUTES)


def tracked_session() -> ClientSession:
    """Return a session that has events and a previous session, as nearly all events' sessions do."""
    session = ClientSession(store=MemoryStore())
    for _ in range(2):
        session.start_new_session()
        session.get_session_context(uuid.uuid4())
    return session


def cases(session: ClientSession) -> list[Case]:
    """Return all cases."""
    return [*_snowplow_cases(session), *_opentelemetry_cases(session)]


def measure() -> list[Row]:
    """Time all cases."""
    with tracked_session() as session:
        return [case.row() for case in cases(session)]


def _snowplow_cases(session: ClientSession) -> Iterable[Case]:
    entity = session.get_session_context(uuid.uuid4()).to_dict()

    def page_view(*contexts: dict[str, Any]) -> Callable[[], PageView]:
        return lambda: PageView("https://example.com", context=[SelfDescribingJson(**each) for each in contexts])

    for form, encode_base64 in (("", True), (" without base64", False)):
        ours = SessionTracker("ns", NullEmitter(), encode_base64=encode_base64, session=session)
        plain = Tracker("ns", NullEmitter(), encode_base64=encode_base64)
        yield Case(
            f"Snowplow event{form}",
            Statement(page_view(), ours.track),
            Statement(page_view(entity), plain.track),
            "another entity",
            Bar(0.9),
        )
        yield Case(
            f"Snowplow event that has an entity{form}",
            Statement(page_view(_PLACE), ours.track),
            Statement(page_view(_PLACE, entity), plain.track),
            "another entity",
        )


def _opentelemetry_cases(session: ClientSession) -> Iterable[Case]:
    def span(*processors: SpanProcessor) -> Statement:
        provider = TracerProvider(shutdown_on_exit=False)
        for processor in processors:
            provider.add_span_processor(processor)
        tracer = provider.get_tracer(__name__)
        return Statement(lambda: None, lambda _: tracer.start_span("span").end())

    ours = span(SessionSpanProcessor(session))
    yield Case("OpenTelemetry span", ours, span(AttributeProcessor()), "two other attributes", Bar(1.3))
    yield Case("OpenTelemetry span versus a bare one", ours, span(), "no processor")
