"""OpenTelemetry: the session.start and session.end events, and a complete example program."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualClock
from client_session_persistence import MemoryStore
from event_ids import event_id

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed (extra: opentelemetry)")

from opentelemetry._logs import LoggerProvider  # imported after the skip

from client_session.trackers.opentelemetry import SessionEvents  # imported after the skip
from telemetry import Logs, Traces, nanoseconds  # imported after the skip

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeSession


def test_start_and_end_events_are_emitted(make: MakeSession, clock: ManualClock) -> None:
    """session.end precedes the next session.start; both have the attributes and times that the conventions require."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = make(on_session_start=events.started, on_session_end=events.ended)
    logs.of(session)
    start, first_id = clock.now() - timedelta(seconds=0.000042), session.session_id
    session.get_session_context(event_id(1), start)
    clock.advance(5)
    session.get_session_context(event_id(2))
    end = clock.now()
    clock.advance(600)
    session.get_session_context(event_id(3))
    second_id = session.session_id
    session.close()
    assert [(record.event_name, record.timestamp) for record in logs.records] == [
        ("session.start", nanoseconds(start)),
        ("session.end", nanoseconds(end)),
        ("session.start", nanoseconds(clock.now())),
        ("session.end", nanoseconds(clock.now())),
    ]
    assert logs.attributes == [
        {"session.id": first_id},
        {"session.id": first_id},
        {"session.id": second_id, "session.previous_id": first_id},
        {"session.id": second_id},
    ]


def test_invalid_logger_provider_is_named_in_the_error(make: MakeSession) -> None:
    """A session or any other value that is not a provider is refused."""
    wrong: tuple[Any, ...] = (make(), LoggerProvider, "otlp")
    for value in wrong:
        with pytest.raises(TypeError, match="logger_provider must be a LoggerProvider of OpenTelemetry or None, not "):
            SessionEvents(value)


@pytest.mark.parametrize("hours", [(0, -1), (-1, 0), (0, 1), (1, 0), (1, -1), (24 * 365 * 1000, 0)])
def test_session_end_is_never_before_its_start(hours: tuple[int, int]) -> None:
    """Spans may be created with any start time, such as one that was measured elsewhere."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = ClientSession(store=MemoryStore(), on_session_start=events.started, on_session_end=events.ended)
    logs.of(session)
    traces = Traces(session)
    for offset in hours:
        traces.span(start_time=min(time.time_ns() + offset * 3600 * 10**9, 2**63 - 1))
    session.close()
    names, times = zip(*((record.event_name, record.timestamp) for record in logs.records), strict=True)
    assert names == ("session.start", "session.end")
    assert times[0] <= times[1]


def test_continued_session_does_not_emit_events_on_restart(make: MakeSession) -> None:
    """Spans before and after a restart have the same session id, and session.start is emitted only once."""
    logs = Logs()
    logs.of(make())
    events = SessionEvents(logs.provider)
    attributes: list[dict[str, Any]] = []
    for _ in range(2):
        session = make(on_session_start=events.started, on_session_end=events.ended, continue_on_restart=True)
        traces = Traces(session)
        traces.span()
        attributes += traces.attributes
        session.close()
    assert attributes[0] == attributes[1]
    assert [record.event_name for record in logs.records] == ["session.start"]
    assert logs.attributes == attributes[:1]


KILLED_PROGRAM = """
import sys, uuid
from client_session import ClientSession
session = ClientSession("session.xml", continue_on_restart=True)
print(session.get_session_context(uuid.uuid4()).session_id, flush=True)
sys.stdin.read()
"""


def test_session_end_is_emitted_for_a_killed_program(make: MakeSession, save_path: Path) -> None:
    """The first run after the timeout emits the session.end of a session whose program was killed; others do not."""
    start = nanoseconds(datetime.now(UTC))
    with subprocess.Popen(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", KILLED_PROGRAM],
        cwd=save_path.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            killed_id = program.stdout.readline().strip()
        finally:
            program.kill()
    end = nanoseconds(datetime.now(UTC))
    logs, clock = Logs(), ManualClock(datetime.now(UTC) + timedelta(seconds=600))
    logs.of(make())
    events = SessionEvents(logs.provider)
    for _ in range(2):
        session = make(
            save_path=save_path,
            clock=clock,
            continue_on_restart=True,
            on_session_start=events.started,
            on_session_end=events.ended,
        )
        session.close()
    (ended,) = logs.records
    assert (ended.event_name, logs.attributes) == ("session.end", [{"session.id": killed_id}])
    assert ended.timestamp is not None
    assert start <= ended.timestamp <= end
    make(save_path=save_path, clock=clock, on_session_start=events.started).get_session_context(event_id(1))
    assert logs.attributes[-1]["session.previous_id"] == killed_id


def test_session_events_are_not_activity(make: MakeSession, clock: ManualClock) -> None:
    """Even if every log record counts as activity, session.end does not start another session."""
    logs = Logs()
    events = SessionEvents(logs.provider)
    session = make(on_session_start=events.started, on_session_end=events.ended)
    logs.of(session, lambda _: True)
    logs.logger.emit(body="hello")
    clock.advance(600)
    session.tick()
    assert session.session_index is None
    assert [record.event_name for record in logs.records] == ["session.start", None, "session.end"]


def test_session_end_precedes_a_late_log_record(make: MakeSession, clock: ManualClock) -> None:
    """session.end is emitted before the first record that no longer belongs to the session."""
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


def test_example_program_exports_session_ids(tmp_path: Path) -> None:
    """Spans, log records and session events from a complete program reach the console exporters.

    The events use the global provider even if it is set after SessionEvents is created.
    """
    program = """
import sys
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from client_session import ClientSession
from client_session.trackers.opentelemetry import SessionEvents, SessionLogRecordProcessor, SessionSpanProcessor

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
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (span,) = map(json.loads, result.stdout.splitlines())
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert [record["event_name"] for record in records] == ["session.start", "", "session.end"]
    assert [record["attributes"] for record in records] == 3 * [span["attributes"]]
    assert span["attributes"].keys() == {"session.id"}
