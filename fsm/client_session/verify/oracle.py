"""The oracle: a second implementation of the session, based only on the text of the specification.

It imports neither the table nor the session. Times are in seconds. Since session ids are random, ``name``
numbers sessions in order of appearance.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class ExpectedSession:
    """The expected values of a session with events, in its entities and in the save file."""

    name: int
    index: int
    previous: int | None
    first_event: str
    first_time: float
    """Wall time."""
    events: int
    last_activity: float | None
    """Wall time; ``None`` once the session has ended, since a restart must not resume it."""


@attrs.define
class Oracle:
    """One installation: its current session object and the contents of its save file."""

    default_foreground_timeout: float
    default_background_timeout: float
    continue_on_restart: bool
    now: float = 0.0
    """Monotonic time, which includes sleep."""
    wall: float = 0.0
    file: ExpectedSession | None = None
    names: int = 0
    foreground_timeout: float = attrs.field(init=False)
    background_timeout: float = attrs.field(init=False)
    in_focus: bool = attrs.field(init=False, default=True)
    expired: bool = attrs.field(init=False, default=False)
    checking: bool = attrs.field(init=False, default=True)
    current: ExpectedSession | None = attrs.field(init=False, default=None)
    """The current session after its last event; ``None`` while the session is pending."""
    last_activity: float = attrs.field(init=False, default=0.0)
    newest: ExpectedSession | None = attrs.field(init=False, default=None)
    """The last session that this object resumed or ended."""
    ended: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        """Construct the first session object."""
        self._construct()

    def _construct(self) -> None:
        self.foreground_timeout = self.default_foreground_timeout
        self.background_timeout = self.default_background_timeout
        self.in_focus, self.expired, self.checking = True, False, True
        self.current, self.newest, self.last_activity = None, None, self.now
        saved = self.file
        if not (self.continue_on_restart and saved and saved.last_activity is not None):
            return
        idle = self.wall - saved.last_activity
        if 0 <= idle < self.foreground_timeout:
            self.current = self.newest = saved
            self.last_activity = self.now - idle

    @property
    def state(self) -> str:
        """The current state's value."""
        if self.expired:
            return "expired-checker-stopped"
        return "foreground-active" if self.in_focus else "background-active"

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session expires, or ``None`` while it cannot expire."""
        if not self.checking or self.current is None:
            return None
        return max(0.0, self._timeout() - (self.now - self.last_activity))

    def _timeout(self) -> float:
        return self.foreground_timeout if self.in_focus else self.background_timeout

    def _timed_out(self) -> bool:
        return self.now - self.last_activity >= self._timeout()

    def _progress(self) -> ExpectedSession | None:
        if self.current is None:
            return self.newest
        return attrs.evolve(self.current, last_activity=self.wall - (self.now - self.last_activity))

    def _end(self) -> None:
        if self.current is not None:
            self.newest = attrs.evolve(self.current, last_activity=None)
            self.current = None
            self.last_activity = self.now
            self.ended += 1

    def _expire(self) -> None:
        self._end()
        if not self.in_focus:
            self.expired, self.checking = True, False

    def _check_first(self) -> None:
        if self.checking and self.current is not None and self._timed_out():
            self._expire()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, whether the machine is asleep or awake."""
        self.now += seconds
        self.wall += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall = seconds

    def event(self, event_id: str) -> ExpectedSession:
        """Track an event, and return the session that the event's entity should show."""
        self._check_first()
        self.expired, self.checking, self.last_activity = False, True, self.now
        if self.current is None:
            self.current = self.file = self._number(event_id)
        else:
            self.current = attrs.evolve(self.current, events=self.current.events + 1)
        return self.current

    def _number(self, event_id: str) -> ExpectedSession:
        self.names += 1
        before = self.file
        return ExpectedSession(
            name=self.names,
            index=before.index + 1 if before else 1,
            previous=before.name if before else None,
            first_event=event_id,
            first_time=self.wall,
            events=1,
            last_activity=self.wall,
        )

    def event_elsewhere(self, event_id: str) -> ExpectedSession:
        """Track an event in another process that uses the same save file."""
        self.file = self._number(event_id)
        return self.file

    def tick(self) -> None:
        """Check whether the session has expired."""
        if self.checking and self._timed_out():
            self._expire()
        if self.continue_on_restart:
            self.save()

    def background(self) -> None:
        """Go to the background."""
        self._check_first()
        self.in_focus = False
        if self.continue_on_restart:
            self.save()

    def foreground(self) -> None:
        """Go to the foreground."""
        self._check_first()
        self.in_focus, self.expired, self.checking = True, False, True
        if self.continue_on_restart:
            self.save()

    def touch(self) -> None:
        """Record activity that is not tracked as an event."""
        self._check_first()
        self.last_activity = self.now

    def start_checker(self) -> None:
        """Start the checker explicitly."""
        self.expired, self.checking = False, True

    def stop_checker(self) -> None:
        """Stop the checker explicitly."""
        self._check_first()
        self.checking = False

    def new_session(self) -> None:
        """End the session explicitly."""
        self._check_first()
        self._end()

    def timeouts(self, foreground: float, background: float) -> None:
        """Set one timeout, then the other; each takes effect immediately."""
        self._check_first()
        self.foreground_timeout = foreground
        self._check_first()
        self.background_timeout = background

    def save(self) -> None:
        """Write the progress of this object's latest session, unless the file has more recent progress."""
        ours = self._progress()
        if ours is None:
            return
        if self.file is None or (self.file.index, self.file.events) <= (ours.index, ours.events):
            self.file = ours

    def restart(self) -> None:
        """Close the session object and construct a new one."""
        self._check_first()
        self.save()
        if self.current is not None and not self.continue_on_restart:
            self.ended += 1
        self._construct()
