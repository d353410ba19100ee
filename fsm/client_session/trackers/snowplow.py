"""Sessions for Snowplow's Python tracker: a `snowplow_tracker.Tracker` that adds the session's entity to each event.

>>> from snowplow_tracker import Emitter, PageView
>>> from client_session import ClientSession
>>> from client_session.trackers.snowplow import SessionTracker
>>> tracker = SessionTracker("my-app", Emitter("collector.example.com"), session=ClientSession("session.xml"))
>>> tracker.track(PageView("https://example.com"))

Requires ``snowplow-tracker`` 1.x (the ``snowplow`` extra); otherwise the import raises `ImportError`.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from client_session.trackers.failures import Failures
from client_session.trackers.requirements import require_predicate, require_session

try:
    from snowplow_tracker.constants import CONTEXT_SCHEMA, DEFAULT_ENCODE_BASE64
    from snowplow_tracker.payload import Payload
    from snowplow_tracker.tracker import Tracker
except ImportError as error:
    msg = "client_session.trackers.snowplow needs snowplow-tracker 1.x: pip install 'client-session[snowplow]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from snowplow_tracker.events.event import Event
    from snowplow_tracker.subject import Subject
    from snowplow_tracker.typing import EmitterProtocol, JsonEncoderFunction

    from client_session import ClientSession
    from client_session.visitors import VisitorSession

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_OPENING, _CLOSING = f'{{"schema": "{CONTEXT_SCHEMA}", "data": [', "]}"
"""The JSON before and after an event's entities, as `Tracker` writes it."""


class SessionTracker(Tracker):
    """A `snowplow_tracker.Tracker` that records each event in a session and attaches the session's entity to the event.

    It records each event once, regardless of the number of emitters, both for ``track(...)`` and for deprecated methods
    such as ``track_page_view(...)``. The session's entity follows the event's own entities. For a session's first
    event, ``firstEventId`` is the event's ``eid``, and ``firstEventTimestamp`` is its true timestamp (``ttm``) or, if
    it has none, its device timestamp (``dtm``). If the payload cannot be built, the call raises the same error as
    `Tracker`, and the session does not count the event. The event object and its list of contexts are not modified, so
    several threads may track the same event at once.

    If the session fails (because it is closed, the timestamp is outside the years 1 to 9999, or a visitor's store is
    not available) or a predicate raises, the event is sent without the entity, and only the first of several
    consecutive failures is logged.

    The session may be a visitor's, from `VisitorSessions.of`. A tracker is cheap to create, so create one in each
    request, and let them share the emitters. It cannot await an `AsyncVisitorSession`.

    The methods may be called from any thread from which the emitters may be called. The caller owns the session; the
    tracker never closes it.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # Tracker's arguments plus ours
        self,
        namespace: str,
        emitters: list[EmitterProtocol] | EmitterProtocol,
        subject: Subject | None = None,
        app_id: str | None = None,
        encode_base64: bool = DEFAULT_ENCODE_BASE64,  # noqa: FBT001  # Tracker's signature
        json_encoder: JsonEncoderFunction | None = None,
        *,
        session: ClientSession | VisitorSession,
        is_activity: Callable[[Event], bool] | None = None,
        anonymous: bool | Callable[[Event], bool] = False,
    ) -> None:
        """Initialize with the arguments of `Tracker`, plus a session and how events affect it.

        With ``anonymous``, entities are those that Snowplow's mobile trackers send with ``userAnonymisation``. It has
        no other effect: the subject's identifiers (user id, domain user id, network user id, IP address) are still
        sent, the session id still links the events of a session, and the collector is not asked to discard IP address
        and cookie (header ``SP-Anonymous``).

        Args:
            namespace: identifies the tracker.
            emitters: one emitter, or a list of them.
            subject: the subject of the events; ``None`` means an empty subject.
            app_id: identifies the application.
            encode_base64: whether to encode JSON in the payload as base64.
            json_encoder: converts values that JSON does not support.
            session: the session that records the events. Several trackers may share it.
            is_activity: whether an event is activity; by default, every event is. An event that is not activity is
                passive: it gets the current session's entity, or none if there is no session, and neither begins nor
                extends a session.
            anonymous: whether an event's entity is anonymous, with the zero UUID as its user id and without the
                previous session. A predicate must return ``True`` or ``False``; any other result counts as a failure.

        Raises:
            TypeError: ``session`` is not a session, or its methods are coroutine functions, or another argument has the
                wrong type or is a coroutine function.
            ValueError: ``emitters`` is empty.

        """
        require_session(session, "get_session_context")
        if is_activity is not None:
            require_predicate("is_activity", is_activity, "callable or None")
        if not isinstance(anonymous, bool):
            require_predicate("anonymous", anonymous, "True, False or callable")
        super().__init__(namespace, emitters, subject, app_id, encode_base64, json_encoder)
        self.session = session
        self._is_activity = is_activity
        self._anonymous = anonymous
        self._failures = Failures(logging.getLogger(__name__), "An event was sent without its session entity")

    def complete_payload(self, event: Event) -> Payload:
        """Return an event's payload, including the session's entity. `Tracker.track` calls this once per event."""
        # Tracker stores the eid in the event's payload: without a copy, an event tracked twice would keep its first id.
        copied = _copy(event)
        copied.payload = Payload(event.payload.get())
        payload = super().complete_payload(copied)
        with self._failures:
            self._attach_entity(payload, event)
        return payload

    def _attach_entity(self, payload: Payload, event: Event) -> None:
        """Record the event in the session, and append the session's entity, if any, to the payload's entities."""
        pairs = payload.get()
        # Read the entities from the payload: an event class may add entities that are not in the event's contexts.
        entities = self._read_entities(pairs)
        context = self.session.get_session_context(
            pairs["eid"],
            _EPOCH + int(pairs["ttm"] if "ttm" in pairs else pairs["dtm"]) * _MILLISECOND,
            anonymous=self._anonymous if isinstance(self._anonymous, bool) else self._anonymous(event),
            extend=self._is_activity is None or bool(self._is_activity(event)),
        )
        if context is None:
            return
        separator = ", " if entities else ""
        text = f"{_OPENING}{entities}{separator}{context.to_json()}{_CLOSING}"
        if self.encode_base64:
            payload.add("cx", base64.urlsafe_b64encode(text.encode()).decode())
        else:
            payload.add("co", text)

    def _read_entities(self, pairs: dict[str, Any]) -> str:
        """Return the JSON of the payload's entities, separated by commas."""
        text: str | None = pairs.get("cx" if self.encode_base64 else "co")
        if text is None:
            return ""
        if self.encode_base64:
            text = base64.urlsafe_b64decode(text).decode()
        if text.startswith(_OPENING) and text.endswith(_CLOSING):
            return text[len(_OPENING) : -len(_CLOSING)]
        # An event class wrote the entities itself, in another form.
        return ", ".join(map(json.dumps, json.loads(text)["data"]))


def _copy(event: Event) -> Event:
    """Return a shallow copy of an event. Without slots, `copy.copy` would take four times as long."""
    if isinstance(object.__getstate__(event), tuple):  # with slots
        return copy.copy(event)
    copied = object.__new__(type(event))
    vars(copied).update(vars(event))
    return copied
