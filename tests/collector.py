"""A Snowplow collector on the loopback interface that accepts GET and POST requests, and an emitter that needs none."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

    from snowplow_tracker.typing import PayloadDict

CLIENT_SESSION = "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"


class Collector:
    """A collector that listens during its ``with`` block. ``events`` lists each event's fields in order of arrival."""

    def __init__(self) -> None:
        """Bind a free port."""
        self.events: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Handles one request."""

            def do_GET(self) -> None:
                """Read one event from the query string."""
                url = urlsplit(self.path)
                assert url.path == "/i"
                self._record([dict(parse_qsl(url.query, strict_parsing=True))])

            def do_POST(self) -> None:
                """Read a batch of events from the body."""
                assert self.path == "/com.snowplowanalytics.snowplow/tp2"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert body["schema"] == "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
                self._record(body["data"])

            def _record(self, events: list[dict[str, str]]) -> None:
                collector.events.extend(events)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's signature
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        """Start listening."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop after all requests have been answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def entities_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entities attached to an event, whether or not they are base64-encoded."""
    if "cx" in event:
        assert "co" not in event
        envelope = json.loads(base64.urlsafe_b64decode(event["cx"]))
    elif "co" in event:
        envelope = json.loads(event["co"])
    else:
        return []
    assert envelope["schema"] == "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
    entities: list[dict[str, Any]] = envelope["data"]
    return entities


def session_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the session entity, which must be the last entity and the only one of its kind."""
    *others, entity = entities_of(event)
    assert entity["schema"] == CLIENT_SESSION
    assert all(other["schema"] != CLIENT_SESSION for other in others)
    data: dict[str, Any] = entity["data"]
    return data


class RecordingEmitter:
    """An emitter that records events instead of sending them."""

    def __init__(self) -> None:
        """Create an emitter with no recorded events."""
        self.events: list[PayloadDict] = []

    def input(self, payload: PayloadDict) -> None:
        """Record an event."""
        self.events.append(payload)

    def flush(self) -> None:
        """Do nothing, since no events are sent."""

    async_flush = sync_flush = flush
