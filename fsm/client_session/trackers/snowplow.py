"""Sessions in Snowplow's Python tracker: a `snowplow_tracker.Tracker` whose events carry the session's entity.

>>> from snowplow_tracker import Emitter, PageView
>>> from client_session import ClientSession
>>> from client_session.trackers.snowplow import SessionTracker
>>> tracker = SessionTracker("my-app", Emitter("collector.example.com"), session=ClientSession("session.xml"))
>>> tracker.track(PageView("https://example.com"))

Needs the package ``snowplow-tracker``, 1.x (the extra ``snowplow``); without it the import raises `ImportError`.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from client_session import arguments
from client_session.trackers.failures import Failures

try:
    from snowplow_tracker.constants import CONTEXT_SCHEMA, DEFAULT_ENCODE_BASE64
    from snowplow_tracker.payload import Payload
    from snowplow_tracker.self_describing_json import SelfDescribingJson
    from snowplow_tracker.tracker import Tracker
except ImportError as error:
    msg = "client_session.trackers.snowplow needs snowplow-tracker 1.x: pip install 'client-session[snowplow]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from snowplow_tracker.events.event import Event
    from snowplow_tracker.subject import Subject
    from snowplow_tracker.typing import EmitterProtocol, JsonEncoderFunction

    from client_session import ClientSession

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SessionTracker(Tracker):
    """A `snowplow_tracker.Tracker` that records each event in a session, and attaches the session's entity to it.

    Every event: those of ``track(...)`` and of the deprecated ``track_page_view(...)`` and its like, once, to whatever
    number of emitters. The entity comes last, after the event's own. If it is a session's first event, the entity's
    ``firstEventId`` is the event's ``eid``, and ``firstEventTimestamp`` its true timestamp (``ttm``), else that of the
    device (``dtm``). An event whose payload cannot be built raises, as it does of a `Tracker`, and is no part of the
    session. The given event and its list of contexts are left as they were, so that one event may be tracked by several
    threads at once.

    A failure in the session (it is closed, the timestamp lies outside the years 1 to 9999) never costs the event: it
    goes out without the entity, and the first failure of each streak is logged.

    Any method may be called from any thread that the emitters can be called from. The session is the caller's: the
    tracker never closes it.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # Tracker's, and one more
        self,
        namespace: str,
        emitters: list[EmitterProtocol] | EmitterProtocol,
        subject: Subject | None = None,
        app_id: str | None = None,
        encode_base64: bool = DEFAULT_ENCODE_BASE64,  # noqa: FBT001  # Tracker's signature
        json_encoder: JsonEncoderFunction | None = None,
        *,
        session: ClientSession,
    ) -> None:
        """Take what a `Tracker` takes, and the session.

        Args:
            namespace: identifies the tracker.
            emitters: one, or a list of them, to which events are sent.
            subject: of the events; ``None``: one without attributes.
            app_id: identifies the application.
            encode_base64: whether JSON is encoded in the payload.
            json_encoder: turns what is no JSON into what is.
            session: which says what events belong together. Several trackers may share it.

        Raises:
            TypeError: ``session`` is no session.
            ValueError: ``emitters`` is empty.

        """
        arguments.require_methods("session", session, "get_session_context")
        super().__init__(namespace, emitters, subject, app_id, encode_base64, json_encoder)
        self.session = session
        self._failures = Failures(logging.getLogger(__name__))

    def complete_payload(self, event: Event) -> Payload:
        """Return the payload of an event, with the entity; `Tracker.track` calls it once for each event."""
        # Building fills the event's own payload, even its eid: an event that is tracked twice would be sent as one.
        copied = copy.copy(event)
        copied.payload = Payload(event.payload.get())
        payload = super().complete_payload(copied)
        with self._failures.caught("An event goes out without its session's entity"):
            self._attach_entity(payload)
        return payload

    def _attach_entity(self, payload: Payload) -> None:
        """Record the event in the session and add the entity to those that its payload carries already."""
        pairs = payload.get()
        # Read from the payload, since an event's class may add entities that its list of contexts lacks.
        entities = self._entities(pairs)
        time = _EPOCH + timedelta(milliseconds=int(pairs["ttm"] if "ttm" in pairs else pairs["dtm"]))
        entities.append(self.session.get_session_context(pairs["eid"], time).to_dict())
        envelope = SelfDescribingJson(CONTEXT_SCHEMA, entities).to_json()
        payload.add_json(envelope, self.encode_base64, "cx", "co")

    def _entities(self, pairs: dict[str, Any]) -> list[dict[str, Any]]:
        encoded: str | None = pairs.get("cx" if self.encode_base64 else "co")
        if encoded is None:
            return []
        entities: list[dict[str, Any]] = json.loads(
            base64.urlsafe_b64decode(encoded) if self.encode_base64 else encoded
        )["data"]
        return entities
