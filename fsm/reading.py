"""What can be read of a session. Reading never extends it, and takes no lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import history
from fsm.graph import SessionState
from persistence.snapshot import MAX_INDEX

if TYPE_CHECKING:
    from fsm.clock import Clock
    from fsm.explanation import Explanation
    from fsm.identity import Identity
    from fsm.ledger import Ledger
    from fsm.lifecycle import Lifecycle


class SessionReading:
    """The readable half of a `ClientSession`.

    A pending session, before its first event, has an id but no number yet: its index, previous session and first
    event are ``None``. Everything can be read after ``close()`` too.
    """

    __slots__ = ("__weakref__", "_clock", "_history", "_identity", "_ledger", "_lifecycle")

    _clock: Clock
    _history: bytes
    _identity: Identity
    _ledger: Ledger
    _lifecycle: Lifecycle

    @property
    def state(self) -> SessionState:
        """Where the lifecycle stands."""
        return self._lifecycle.state

    @property
    def background(self) -> bool:
        """Whether the app is out of focus."""
        return self._lifecycle.state is not SessionState.FOREGROUND_ACTIVE

    @property
    def checker_running(self) -> bool:
        """Whether ticks come, and the session can expire."""
        return self._lifecycle.checker_running

    @property
    def user_id(self) -> str:
        """The user of this installation."""
        return self._identity.user_id

    @property
    def session_id(self) -> str:
        """The present session's id, a pending one's too."""
        return self._identity.facts.session_id

    @property
    def previous_session_id(self) -> str | None:
        """The numbered session before it; ``None`` if there is none, or while it is pending."""
        return self._identity.facts.previous_session_id

    @property
    def session_index(self) -> int | None:
        """The session's number, from 1; ``None`` while it is pending."""
        identity = self._identity
        return identity.facts.session_index if identity.numbered else None

    @property
    def first_event_id(self) -> str | None:
        """The id of its first event; ``None`` while it has none."""
        return self._identity.facts.first_event_id

    @property
    def first_event_timestamp(self) -> str | None:
        """When its first event was tracked, as RFC 3339 text in UTC; ``None`` while it has none."""
        return self._identity.facts.first_event_timestamp

    @property
    def event_index(self) -> int:
        """The number of its last event; 0 while it has none."""
        return min(self._lifecycle.event_count, MAX_INDEX)

    @property
    def storage_mechanism(self) -> str:
        """``LOCAL_STORAGE``, as the .NET tracker says."""
        return self._identity.facts.storage_mechanism

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session would expire if nothing happens.

        0.0 when it has, and no tick has noticed yet; ``None`` while it cannot, since it is pending or the checker is
        stopped.
        """
        now = self._clock.monotonic()
        while True:
            lifecycle = self._lifecycle
            seconds = lifecycle.expires_in(now)
            if lifecycle is self._lifecycle:
                return seconds

    def explain(self) -> tuple[Explanation, ...]:
        """Return the last 32 decisions, the oldest first: what came, and what it changed.

        A decision is an input that changed more than the time of the last activity: a session ended, began or went on,
        the focus or a timeout changed, the checker started or stopped. An event within its session is none, nor is a
        tick in time. After ``os.fork()`` a child begins with none.
        """
        return history.unpack(self._history)

    @property
    def save_error(self) -> Exception | None:
        """The last failure to load or save that has not healed yet. A corrupt file heals at the next save or tick."""
        return self._ledger.error
