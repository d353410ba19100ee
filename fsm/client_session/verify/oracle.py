"""The oracle: a second implementation of the session, based only on the text of the specification.

It imports neither the table nor the session. Times are in seconds, and a limit that is not set is infinite. Since
session ids are random, ``name`` numbers sessions in order of appearance; ``user`` numbers users in the same way.
"""

from __future__ import annotations

import math

import attrs


@attrs.frozen
class ExpectedSession:
    """The expected values of a session with events, in its entities and in the save file."""

    name: int
    index: int
    previous: int | None
    first_event: str
    first_time: float
    """Wall time of the first event, as its entities report it."""
    events: int
    last_activity: float | None
    """Wall time; ``None`` once the session has ended, unless `close` ended it."""
    start: float | None
    """Wall time of the first event, adjusted whenever the wall clock is set; ``None`` if it is unknown."""
    background: bool | None
    """Whether the app was in the background; ``None`` if no restart may resume the session, since it has ended or began
    without ``continue_on_restart``."""

    @property
    def may_resume(self) -> bool:
        """Whether a restart may resume the session. Old versions, which always allowed it, saved no start or focus."""
        return self.last_activity is not None and (self.background is not None or self.start is None)


@attrs.frozen
class Options:
    """The arguments of a session object."""

    foreground_timeout: float
    background_timeout: float
    max_duration: float = math.inf
    extend_on_focus_change: bool = False
    continue_on_restart: bool = False


@attrs.define
class Oracle:
    """One installation: its current session object and the contents of its save file."""

    options: Options
    now: float = 0.0
    """Monotonic time, which includes sleep."""
    wall: float = 0.0
    file: ExpectedSession | None = None
    """The session in the save file; ``None`` if the file has only a user."""
    names: int = 0
    user: int = 0
    foreground_timeout: float = attrs.field(init=False)
    background_timeout: float = attrs.field(init=False)
    max_duration: float = attrs.field(init=False)
    in_focus: bool = attrs.field(init=False, default=True)
    expired: bool = attrs.field(init=False, default=False)
    checking: bool = attrs.field(init=False, default=True)
    current: ExpectedSession | None = attrs.field(init=False, default=None)
    """The current session after its last event; ``None`` while the session is pending."""
    last_activity: float = attrs.field(init=False, default=0.0)
    started: float = attrs.field(init=False, default=0.0)
    """Monotonic time of the current session's first event."""
    newest: ExpectedSession | None = attrs.field(init=False, default=None)
    """The last session that this object resumed or ended."""
    ended: list[tuple[int, str]] = attrs.field(init=False, factory=list[tuple[int, str]])
    """The name and the reason of each end, in order."""

    def __attrs_post_init__(self) -> None:
        """Construct the first session object."""
        self._construct()

    def _construct(self) -> None:
        options = self.options
        self.foreground_timeout = options.foreground_timeout
        self.background_timeout = options.background_timeout
        self.max_duration = options.max_duration
        self.in_focus, self.expired, self.checking = True, False, True
        self.current, self.newest, self.last_activity = None, None, self.now
        saved = self.file
        if options.continue_on_restart and saved is not None and saved.may_resume:
            self._resume(saved)

    def _resume(self, saved: ExpectedSession) -> None:
        """Continue the saved session with its focus, unless it is over; then bring the app to the foreground."""
        self.current = attrs.evolve(saved, background=bool(saved.background))
        self.in_focus = not saved.background
        self.last_activity = self.now - (self.wall - (saved.last_activity or 0.0))
        self.started = self.last_activity if saved.start is None else self.now - (self.wall - saved.start)
        if max(self.last_activity, self.started) > self.now:  # a time in the future
            self._end(self._timeout_reason())
        elif saved.start is None and self.max_duration < math.inf:  # an unknown start
            self._end("max-duration")
        elif self._is_over():
            self._end(self._reason())
        elif not self.in_focus and self.options.extend_on_focus_change:
            self.last_activity = self.now
        self.in_focus, self.newest = True, self.current or self.newest

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
        seconds = min(self._idle_limit(), self._duration_limit()) - self.now
        return max(0.0, seconds) if seconds < math.inf else None

    def _idle_limit(self) -> float:
        return self.last_activity + (self.foreground_timeout if self.in_focus else self.background_timeout)

    def _duration_limit(self) -> float:
        return math.inf if self.current is None else self.started + self.max_duration

    def _is_over(self) -> bool:
        return self.now >= min(self._idle_limit(), self._duration_limit())

    def _reason(self) -> str:
        """Return the limit that was reached first; the timeout, if both were reached at the same time."""
        return "max-duration" if self._duration_limit() < self._idle_limit() else self._timeout_reason()

    def _timeout_reason(self) -> str:
        return "timeout" if self.in_focus else "background-timeout"

    def _progress(self) -> ExpectedSession | None:
        """Return the newest session as it would be saved now."""
        ours = self.current
        if ours is None:
            return self.newest
        return attrs.evolve(
            ours,
            last_activity=self._to_wall(self.last_activity),
            start=None if ours.start is None else self._to_wall(self.started),
            background=None if ours.background is None else not self.in_focus,
        )

    def _to_wall(self, monotonic: float) -> float:
        return monotonic + (self.wall - self.now)

    def _end(self, reason: str) -> None:
        """End the session, if it has events. If it could be resumed, its end is saved before it is reported."""
        if self.current is None:
            return
        last_activity = self._to_wall(self.last_activity) if reason == "close" else None
        self.newest = attrs.evolve(self.current, last_activity=last_activity, background=None)
        self.ended.append((self.current.name, reason))
        could_be_resumed = self.current.background is not None
        self.current, self.last_activity = None, self.now
        if could_be_resumed:
            self.save()

    def _expire(self) -> None:
        self._end(self._reason())
        if not self.in_focus:
            self.expired, self.checking = True, False

    def _check_first(self) -> None:
        if self.checking and self.current is not None and self._is_over():
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
            self.started = self.now
            self.current = self.file = self._number(
                event_id, may_resume=self.options.continue_on_restart, background=not self.in_focus
            )
        else:
            self.current = attrs.evolve(self.current, events=self.current.events + 1)
        return self.current

    def passive(self) -> ExpectedSession | None:
        """Track a passive event, and return the session to which it belongs, if any."""
        self._check_first()
        if self.current is not None:
            self.current = attrs.evolve(self.current, events=self.current.events + 1)
        return self.current

    def _number(self, event_id: str, *, may_resume: bool, background: bool) -> ExpectedSession:
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
            start=self.wall,
            background=background if may_resume else None,
        )

    def event_elsewhere(self, event_id: str) -> ExpectedSession:
        """Track an event in another process that uses the same save file."""
        self.file = self._number(event_id, may_resume=False, background=False)
        return self.file

    def tick(self) -> None:
        """Check whether the session has expired."""
        if self.checking and self._is_over():
            self._expire()
        if self.options.continue_on_restart:
            self.save()

    def background(self) -> None:
        """Go to the background."""
        self._check_first()
        if self.in_focus and self.options.extend_on_focus_change:
            self.last_activity = self.now
        self.in_focus = False
        if self.options.continue_on_restart:
            self.save()

    def foreground(self) -> None:
        """Go to the foreground."""
        self._check_first()
        if not (self.in_focus or self.expired) and self.options.extend_on_focus_change:
            self.last_activity = self.now
        self.in_focus, self.expired, self.checking = True, False, True
        if self.options.continue_on_restart:
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
        self._end("new-session")

    def forget(self) -> None:
        """End the session and replace the user; the file has only the new user."""
        self._check_first()
        self._end("forget")
        self.file = self.newest = None
        self.user += 1

    def timeouts(self, foreground: float, background: float, max_duration: float) -> None:
        """Set one limit after the other; each takes effect immediately."""
        self._check_first()
        self.foreground_timeout = foreground
        self._check_first()
        self.background_timeout = background
        self._check_first()
        self.max_duration = max_duration

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
        if self.current is not None and not self.options.continue_on_restart:
            self._end("close")
        self.save()
        self._construct()
