"""The session object: what an embedder calls."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeVar, overload
from uuid import UUID

from client_session import arguments, history
from client_session.callbacks import Callbacks
from client_session.clock import SYSTEM_CLOCK, Anchor, CheckedClock, SystemClock
from client_session.current import Current, Draft, start
from client_session.entity import SessionContext, SessionSummary
from client_session.errors import SessionClosedError
from client_session.graph import Command, Input, SessionState
from client_session.input_log import InputLog, InputRecord
from client_session.ledger import Ledger
from client_session.lifecycle import Lifecycle
from client_session.loggers import preformatting
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence.deadline import acquire_soon, is_held, within_deadline
from client_session_persistence.forks import MARKER, Stage, cleared_in_child, notice_fork, register
from client_session_persistence.snapshot import HEX_TO_ZERO, MAX_INDEX, UUID_SHAPE, as_utc

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime

    from client_session.arguments import Seconds
    from client_session.callbacks import Logger
    from client_session.clock import Clock
    from client_session.explanation import Explanation
    from client_session.lifecycle import Decisions
    from client_session.ticking.scheduler import Scheduler
    from client_session_persistence import Snapshot, SnapshotStore, XmlStore

Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)

_HEX_TO_ZERO = cleared_in_child(HEX_TO_ZERO)
"""Cleared in a child that C code forked, so that an event in the child fails the check of its id and takes notice."""


class ClientSession:
    """Groups tracked events into sessions. A session is a series of events with no gap of the timeout or longer.

    Any method may be called from any thread, and in a child after ``os.fork()``. Which events share a session depends
    only on the times of events and focus changes, not on when checks run. Only `save` and `forget_user` raise
    load and save errors. After an error, the session continues in memory, and `save_error` returns the error.

    A pending session, which waits for its first event, has an id but no number yet: its index, previous session and
    first event are ``None``. Reading a property never extends the session or takes a lock, and works after `close`.

    Callbacks run in order on the thread that triggered them, after the session's lock is released. They may call the
    session again. If a callback raises, the exception is logged and has no other effect.
    """

    __slots__ = (
        "__weakref__", "_callbacks", "_check_interval", "_clock", "_current", "_is_scheduled", "_ledger", "_lock",
        "_logger", "_scheduler",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # the specification's constructor
        self,
        save_path: str | os.PathLike[str] | None = None,
        foreground_timeout: Seconds = 600.0,
        background_timeout: Seconds = 300.0,
        check_interval: Seconds = 15.0,
        logger: Logger | None = None,
        *,
        store: SnapshotStore | None = None,
        clock: Clock | None = None,
        scheduler: Scheduler | None = None,
        count_empty_sessions: bool = False,
        continue_on_restart: bool = False,
        extend_on_focus_change: bool = False,
        max_duration: Seconds | None = None,
        on_session_start: Callable[[SessionContext], object] | None = None,
        on_session_end: Callable[[SessionSummary], object] | None = None,
        on_state_change: Callable[[SessionState, Input, SessionState], object] | None = None,
        on_input: Callable[[InputRecord], object] | None = None,
    ) -> None:
        """Load the user and start the checker; the session is pending until its first event.

        Args:
            save_path: the XML save file; ``~`` is expanded, missing folders are created. Omit it if you pass ``store``.
            foreground_timeout: seconds (or `timedelta`) until a session in the foreground expires; ``math.inf``: never.
            background_timeout: seconds (or `timedelta`) until a session in the background expires; ``math.inf``: never.
            check_interval: seconds (or `timedelta`) between checks.
            logger: a `logging.Logger`, or an object with ``info``, ``warning`` and ``exception``; by default, this
                module's logger. If it also has ``isEnabledFor``, decisions are logged at DEBUG, worded as in `explain`.
            store: any `SnapshotStore`, to use instead of ``save_path``.
            clock: any `Clock`; by default, the system clock.
            scheduler: any `Scheduler`; by default, the process's shared checker thread.
            count_empty_sessions: number sessions as the .NET tracker does: each construction and each expiry creates,
                numbers, and saves a session, even if it has no events.
            continue_on_restart: resume the session of the last run with this argument, unless it is over; if it is,
                report its end. Own the saved session until `close`. If another run owns it, wait until that run has had
                it for 1 s, but no longer than 10 s; then begin a separate session, which is never resumed.
            extend_on_focus_change: count a focus change as activity, since the user made it.
            max_duration: seconds (or `timedelta`) from its first event after which a session ends, even if it is
                active; ``None`` or ``math.inf``: no limit.
            on_session_start: called with the entity of a session's first event.
            on_session_end: called with the summary of a session that had events, when it ends.
            on_state_change: called with the old state, the input, and the new state.
            on_input: called with an `InputRecord` for each input that decides which events share a session. Appended to
                a log, the records can be sessionized later. Events are slower with this argument.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is invalid. Both messages name the argument, its value, and what is allowed.

        Examples:
            >>> with ClientSession("session.xml", foreground_timeout=timedelta(minutes=30)) as session:
            ...     session.foreground_timeout
            1800.0

        """
        arguments.require_methods("clock", clock, "monotonic", "now")
        arguments.require_methods("scheduler", scheduler, "start", "stop")
        arguments.require_methods("logger", logger, "info", "warning", "exception")
        callables = arguments.callbacks(
            on_session_start=on_session_start,
            on_session_end=on_session_end,
            on_state_change=on_state_change,
            on_input=on_input,
        )
        self._check_interval = arguments.seconds("check_interval", check_interval)
        continues = arguments.boolean("continue_on_restart", continue_on_restart)
        lifecycle = Lifecycle(
            arguments.timeout("foreground_timeout", foreground_timeout),
            arguments.timeout("background_timeout", background_timeout),
            0.0,
            arguments.boolean("count_empty_sessions", count_empty_sessions),
            arguments.duration_limit("max_duration", max_duration),
            arguments.boolean("extend_on_focus_change", extend_on_focus_change),
            has_short_path=on_input is None,
        )
        store = arguments.snapshot_store(save_path, store, _xml_store)
        self._logger = _LOGGER if logger is None else preformatting(logger)
        if clock is None or type(clock) is SystemClock:
            self._clock: Clock = SYSTEM_CLOCK
        else:
            self._clock = CheckedClock(clock)
        self._scheduler = SHARED_CHECKER if scheduler is None else scheduler
        self._lock = threading.RLock()
        self._is_scheduled = False
        self._callbacks = Callbacks(self._logger, callables)
        within_deadline(lambda: self._start(store, lifecycle, continues=continues))
        _live_sessions.add(self)
        if self._current.history:
            self._callbacks.log_decision(self._current.history)
        self._update_schedule()
        self._callbacks.deliver()

    def _start(self, store: SnapshotStore, lifecycle: Lifecycle, *, continues: bool) -> None:
        self._ledger = ledger = Ledger(store, self._logger, self._callbacks, continues=continues)
        try:
            now = self._now()
            log = None if lifecycle.has_short_path else InputLog(now)
            lifecycle.last_activity = now.monotonic
            self._current, notifications = start(lifecycle, ledger, now, self._callbacks, log)
            if notifications:
                self._callbacks.queue.extend(notifications)
        except BaseException:
            ledger.release()
            raise

    # Events and focus

    @overload
    def get_session_context(
        self,
        event_id: UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: Literal[True] = True,
    ) -> SessionContext: ...
    @overload
    def get_session_context(
        self,
        event_id: UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool,
    ) -> SessionContext | None: ...
    def get_session_context(
        self,
        event_id: UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool = True,
    ) -> SessionContext | None:
        """Record an event and return its entity.

        Args:
            event_id: a `uuid.UUID` or a UUID string, in upper or lower case; the entity stores it in lowercase.
            event_timestamp: when the event happened, as an aware `datetime`; by default, now. It affects only the
                entities' time of the first event. The time of this call decides which session the event belongs to.
            anonymous: replace the user id with the zero UUID, and omit the previous session from the entity.
            extend: if ``False``, the event is passive, such as a heartbeat or a crash report: the current session
                counts it, but it neither extends nor begins a session. This returns ``None`` if there is no session to
                which it could belong.

        Raises:
            ValueError: the id is not a UUID, or the timestamp is naive.
            TypeError: the id is neither a UUID nor a ``str``, the timestamp is not a `datetime`, or ``anonymous`` or
                ``extend`` is not a ``bool``.
            SessionClosedError: after `close`.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> entity.session_index, entity.event_index
            (1, 1)
            >>> heartbeat = session.get_session_context(uuid.uuid4(), extend=False)
            >>> heartbeat.event_index
            2

        """
        if not (
            event_id.encode("ascii", "replace").translate(_HEX_TO_ZERO) == UUID_SHAPE  # is_uuid, inlined
            if type(event_id) is str
            else type(event_id) is UUID and MARKER[0]
        ):
            notice_fork()
            event_id = arguments.event_id_string(event_id)
        if event_timestamp is not None:
            event_timestamp = as_utc(event_timestamp, "event_timestamp")
        if anonymous is not False:
            arguments.boolean("anonymous", anonymous)
        if extend is not True:
            arguments.boolean("extend", extend)
        context = self._try_count(extend)
        if context is not None:
            return context.anonymized() if anonymous else context
        return self._decide_event(event_id, event_timestamp, anonymous=anonymous, extend=extend)

    def _try_count(self, extend: bool) -> SessionContext | None:  # noqa: FBT001  # a keyword argument takes twice as long
        """Count an event and return its entity, or return ``None`` if the event may change the state.

        The short path: it skips the machine, and needs neither the event's id nor its time.
        """
        lock, before = self._lock, self._current
        try:
            if not lock.acquire(False):  # noqa: FBT003  # likewise
                acquire_soon(lock)
            current = self._current
            number = current.lifecycle.try_count_event(self._clock.monotonic(), extend)
        except BaseException:
            if is_held(lock):  # otherwise, the exception came from outside while this thread was waiting for the lock
                lock.release()
            raise
        lock.release()
        if not number:
            return None
        if before is not self._current:  # a re-entrant call found the lock held and deferred its callbacks
            self._deliver()
        return SessionContext(current.facts, number)

    def set_background(self, background: bool) -> None:  # noqa: FBT001  # the signature in the specification and in .NET
        """Report that the app went to the background (``True``) or came to the foreground (``False``).

        Reporting the same value again changes nothing, except that ``False`` always starts the checker. The timeout
        that applied before the change decides whether the session is over. A focus change is activity only with
        ``extend_on_focus_change``.

        Raises:
            TypeError: the value is not a ``bool``.
            SessionClosedError: after `close`.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> session.set_background(True)
            >>> print(session.state, session.expires_in)
            background-active 300.0

        """
        arguments.boolean("background", background)
        given = Input.BACKGROUND if background else Input.FOREGROUND

        def apply() -> None:
            self._apply("set_background", given)
            if self._ledger.is_resumable:
                self._save_progress()

        within_deadline(apply)

    def touch(self) -> None:
        """Report activity that is not a tracked event; this restarts the timeout, but not the maximum duration.

        A session that is already over is not revived.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> clock.advance(500)
            >>> session.touch()
            >>> session.expires_in
            600.0

        """
        self._apply("touch", Command.TOUCH)

    def start_new_session(self) -> None:
        """End the current session if it has events; a pending session gets a new id. `session_id` changes at once.

        Examples:
            >>> first = session.get_session_context(uuid.uuid4())
            >>> session.start_new_session()
            >>> second = session.get_session_context(uuid.uuid4())
            >>> second.session_index, second.previous_session_id == first.session_id
            (2, True)

        """

        def change(draft: Draft) -> None:
            draft.apply(draft.after.lifecycle.decide(Command.NEW_SESSION, draft.now.monotonic))
            draft.renew_pending()

        self._decide("start_new_session", Command.NEW_SESSION, change)

    # Checking

    def tick(self) -> None:
        """Check now whether the session has timed out, and retry a save that failed.

        The scheduler calls this. To avoid a thread, call it from your program's main loop, for example in a GUI or a
        game. While checking is stopped, sessions do not expire.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> clock.advance(600)
            >>> session.tick()
            >>> print(session.session_index)  # the next session is pending
            None

        """
        # Most ticks have nothing to do, and there may be many sessions, so this does not take the lock. If another
        # thread is changing the session right now, the next tick will see the change.
        notice_fork()
        idle = self._current.lifecycle.is_tick_noop(self._clock.monotonic()) and not self._current.is_closed
        error = self._ledger.error
        if idle and error is None and not self._ledger.is_resumable:
            return

        # If the last call waited in vain (for a lock, or for a file that another program had open), do not wait this
        # time: the next tick will try again.
        def apply() -> None:
            if not idle:
                self._apply("tick", Input.TICK)
            if self._ledger.is_resumable or self._ledger.error is not None:
                self._save_progress()

        within_deadline(apply, patient=not isinstance(error, TimeoutError | PermissionError))

    def start_checker(self) -> None:
        """Start checking again, so that sessions can expire.

        Time during which checking was stopped counts as idle time. If it was activity, call `touch` first.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> session.stop_checker()
            >>> clock.advance(7200)
            >>> session.touch()  # the user watched a film
            >>> session.start_checker()
            >>> session.expires_in
            600.0

        """
        self._apply("start_checker", Command.START_CHECKER)

    def stop_checker(self) -> None:
        """Suspend expiry (say, while a video plays) until `start_checker`, an event, or a return to the foreground.

        The session ends at the next check after that if a limit has passed since its last activity, or its start.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> session.stop_checker()
            >>> clock.advance(7200)
            >>> print(session.session_index, session.expires_in)
            1 None

        """
        self._apply("stop_checker", Command.STOP_CHECKER)

    # Saving

    def save(self) -> None:
        """Write the progress of the latest numbered session now; a pending session is never written.

        This returns only after the save is durable, even if the store saves in the background. In async code, use
        ``await asyncio.to_thread(session.save)``.

        Raises:
            Exception: the store's error: `OSError` (`TimeoutError` if the lock cannot be acquired: it has not changed
                hands for 1 s, or 10 s have passed), or whatever an embedder's store raises.
            SessionClosedError: after `close`.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> session.save()
            >>> print(session.save_error)
            None

        """
        notice_fork()
        if self._current.is_closed:
            raise SessionClosedError(self.save.__name__)
        error = within_deadline(lambda: self._ledger.save(self._progress(), wait=True))
        self._deliver()
        if error is not None:
            raise error

    def forget_user(self) -> None:
        """End the session, and replace the user with a new one, whose first session has index 1.

        The store deletes everything about the old user, including backups; the history of `explain` is cleared. Other
        processes finish their current sessions, then adopt the new user.

        Raises:
            Exception: the store's error, as in `save`; then the user is not replaced.
            SessionClosedError: after `close`.

        Examples:
            >>> user_id = session.user_id
            >>> session.forget_user()
            >>> session.user_id == user_id
            False

        """
        user = self._ledger.new_user()

        def forget() -> None:
            self._decide("forget_user", Command.FORGET, lambda draft: draft.forget_user(user))

        try:
            forget()
        except BaseException:
            # If the interruption came after the user was replaced in the store, the session must follow: now or, if
            # this is interrupted as well, at its next decision.
            self._current.lifecycle.short_path_timeout = 0.0
            self._ledger.resolve_replacement()
            if self._ledger.newest.user_id == user.user_id:
                with contextlib.suppress(SessionClosedError):
                    forget()
            raise

    def close(self) -> None:
        """Stop checking, save, and shut down the session. Calling this again only retries a failed save.

        Save errors are logged (see `save_error`). This does not wait for background saves; interpreter exit does.

        Examples:
            >>> session.close()
            >>> session.closed
            True

        """

        def change(draft: Draft) -> None:
            draft.apply(draft.after.lifecycle.close(draft.now.monotonic, may_continue=self._ledger.is_resumable))
            draft.after.is_closed = True

        def close() -> None:
            with contextlib.suppress(SessionClosedError):
                self._decide("close", Command.CLOSE, change)
            self._save_progress()
            self._ledger.release()
            _live_sessions.discard(self)

        within_deadline(close)

    def __repr__(self) -> str:
        """Show the state and the numbers as last decided, without a check."""
        current = self._current
        index = current.facts.session_index if current.is_numbered else None
        count = min(current.lifecycle.event_count, MAX_INDEX)
        closed = " closed" if current.is_closed else ""
        return f"<ClientSession {current.lifecycle.state} session_index={index} event_index={count}{closed}>"

    def __enter__(self) -> Self:
        """Return the session; it is closed at the end of the ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Raise `TypeError`: two copies would number their events independently of each other."""
        msg = "a ClientSession cannot be copied or pickled; share it, or construct another with the same path or store"
        raise TypeError(msg)

    # Settings

    @property
    def foreground_timeout(self) -> float:
        """Seconds until a session in the foreground expires; ``math.inf``: never. Can be set, also as a `timedelta`."""
        return self._current.lifecycle.foreground_timeout

    @foreground_timeout.setter
    def foreground_timeout(self, value: Seconds) -> None:
        seconds = arguments.timeout("foreground_timeout", value)
        self._set_limits("foreground_timeout", foreground_timeout=seconds)

    @property
    def background_timeout(self) -> float:
        """Seconds until a session in the background expires; ``math.inf``: never. Can be set, also as a `timedelta`."""
        return self._current.lifecycle.background_timeout

    @background_timeout.setter
    def background_timeout(self, value: Seconds) -> None:
        seconds = arguments.timeout("background_timeout", value)
        self._set_limits("background_timeout", background_timeout=seconds)

    @property
    def max_duration(self) -> float | None:
        """Seconds from its first event after which a session ends; ``None``: no limit. Can be set."""
        seconds = self._current.lifecycle.max_duration
        return seconds if math.isfinite(seconds) else None

    @max_duration.setter
    def max_duration(self, value: Seconds | None) -> None:
        self._set_limits("max_duration", max_duration=arguments.duration_limit("max_duration", value))

    @property
    def check_interval(self) -> float:
        """Seconds between checks. Can be set at any time, in seconds or as a `timedelta`."""
        return self._check_interval

    @check_interval.setter
    def check_interval(self, value: Seconds) -> None:
        interval = arguments.seconds("check_interval", value)

        def change(draft: Draft) -> None:
            self._check_interval = interval
            if self._is_scheduled:
                self._start_ticks(draft.now.monotonic)

        self._decide("check_interval", "", change)

    # Reading

    @property
    def state(self) -> SessionState:
        """The state of the lifecycle."""
        return self._latest.lifecycle.state

    @property
    def background(self) -> bool:
        """Whether the app is in the background."""
        return self._latest.lifecycle.state is not SessionState.FOREGROUND_ACTIVE

    @property
    def checker_running(self) -> bool:
        """Whether checks run; the session can expire only while they do."""
        return self._latest.lifecycle.checker_running

    @property
    def user_id(self) -> str:
        """The id of this installation's user."""
        current = self._latest
        return current.facts.user_id if current.is_numbered else self._ledger.newest.user_id

    @property
    def session_id(self) -> str:
        """The id of the current session, even while it is pending."""
        return self._latest.facts.session_id

    @property
    def previous_session_id(self) -> str | None:
        """The id of the previous session; ``None`` if there is none, or while the current session is pending."""
        return self._latest.facts.previous_session_id

    @property
    def session_index(self) -> int | None:
        """The session's number, starting at 1; ``None`` while it is pending."""
        current = self._latest
        return current.facts.session_index if current.is_numbered else None

    @property
    def first_event_id(self) -> str | None:
        """The id of the session's first event; ``None`` before that event."""
        return self._latest.facts.first_event_id

    @property
    def first_event_timestamp(self) -> str | None:
        """The time of the session's first event, as an RFC 3339 string in UTC; ``None`` before that event."""
        return self._latest.facts.first_event_timestamp

    @property
    def event_index(self) -> int:
        """The number of the session's last event; 0 before the first event."""
        return min(self._latest.lifecycle.event_count, MAX_INDEX)

    @property
    def storage_mechanism(self) -> str:
        """Where the store keeps its data: ``LOCAL_STORAGE``, as in the .NET tracker, or ``SQLITE``."""
        return self._latest.facts.storage_mechanism

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session expires if nothing happens.

        0.0 if expiry is due but no check has run yet; ``None`` if the session cannot expire because it is pending,
        checking is stopped, or the timeout and the maximum duration are infinite.
        """
        return self._latest.lifecycle.expires_in(self._clock.monotonic())

    def explain(self) -> tuple[Explanation, ...]:
        """Return the last 32 decisions, oldest first: each input and what it changed.

        A decision is an input that did more than update the time of the last activity: it began, continued or ended a
        session, changed the focus or a timeout, or started or stopped the checker. Events within a session and ticks
        before the timeout are not decisions, so 32 usually span hours. A forked child starts with no decisions.

        Examples:
            >>> entity = session.get_session_context(uuid.uuid4())
            >>> clock.advance(30)
            >>> session.set_background(True)
            >>> for explanation in session.explain():
            ...     print(explanation)
            2026-01-01 00:00:00Z event: session 1 begins
            2026-01-01 00:00:30Z background: the app went to the background (timeout 300 s)

        """
        return history.unpack(self._latest.history)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._latest.is_closed

    @property
    def save_error(self) -> Exception | None:
        """The last load or save error; a successful save clears it (the next save or tick repairs a corrupt file)."""
        return self._ledger.error

    @property
    def _latest(self) -> Current:
        """The current session; in a child that C code forked, not its parent's."""
        notice_fork()
        return self._current

    # Deciding

    def _decide(self, method: str, given: str, change: Callable[[Draft], Result]) -> Result:
        """Publish a draft modified by ``change`` as the current session, and run the callbacks.

        ``given`` is the input's name in explanations. The lock excludes other threads, but a signal handler or
        finalizer on this thread, or a child that one of them forks, can still call the session. Such a re-entrant call
        sees the session as last published, and its own result is kept: the outer call discards its draft and retries.
        """
        notice_fork()
        try:
            return within_deadline(lambda: self._publish(method, given, change))
        finally:
            try:
                self._deliver()
            except BaseException:
                self._deliver()  # an exception from outside may have interrupted the first try
                raise

    def _publish(self, method: str, given: str, change: Callable[[Draft], Result]) -> Result:
        with self._lock:
            ledger = self._ledger
            while True:
                draft = self._new_draft(method, given)
                before, callbacks = draft.before, self._callbacks
                result = change(draft)
                entry = draft.explain(given)
                draft.log_input(given)
                next_id = "" if draft.begun else draft.next_id
                queue = callbacks.queue
                # No Python code is called from here on, so none can interrupt. A child that is forked later gets its
                # own callbacks; the parent runs these.
                if not MARKER[0]:  # C code forked during this call
                    continue
                if self._current is before and before.lifecycle.event_count == draft.event_count_before:
                    self._current, ledger.pending_id = draft.after, next_id
                    before.lifecycle.short_path_timeout = 0.0  # retired: it counts no more events
                    if draft.unused_id:
                        ledger.unused_id = draft.unused_id
                    queue.extend(draft.notifications)
                    break
            try:
                if draft.must_save:
                    ledger.save(self._progress())
            finally:
                self._update_schedule()
        if entry:
            callbacks.log_decision(entry)
        return result

    def _new_draft(self, method: str, given: str) -> Draft:
        ledger = self._ledger
        while True:
            notice_fork()
            if ledger.replacing is not None:
                ledger.resolve_replacement()
            before, next_id = self._current, ledger.pending_id or ledger.choose_pending_id()
            if self._current is before:  # otherwise, a re-entrant call used the pending id, so this is its successor's
                break
        if before.is_closed:
            is_property = isinstance(getattr(type(self), method), property)
            raise SessionClosedError(method, "set" if is_property else "called")
        draft = Draft(before, next_id, self._now(), ledger, self._callbacks)
        if before.facts.user_id == ledger.forgotten_user_id and given != Command.FORGET:
            draft.forget_user(ledger.newest)
        return draft

    def _decide_event(
        self, event_id: UUID | str, event_timestamp: datetime | None, *, anonymous: bool, extend: bool
    ) -> SessionContext | None:
        """Record an event that changes more than the event count."""
        given = Input.EVENT if extend else Input.PASSIVE

        def change(draft: Draft) -> SessionContext | None:
            draft.event_id = arguments.event_id_string(event_id)
            draft.apply(draft.after.lifecycle.decide(given, draft.now.monotonic))
            number = draft.record_event(draft.event_id, event_timestamp)
            facts = draft.after.facts
            return SessionContext(facts.anonymous() if anonymous else facts, number) if number else None

        return self._decide("get_session_context", given, change)

    def _set_limits(self, argument: str, **limits: float) -> None:
        self._change(argument, Command.TIMEOUTS, lambda core, now: core.set_limits(now, **limits))

    def _apply(self, method: str, given: Input | Command) -> None:
        """Apply an input or a command without arguments."""
        self._change(method, given, lambda core, now: core.decide(given, now))

    def _change(self, method: str, given: str, change: Callable[[Lifecycle, float], Decisions]) -> None:
        self._decide(method, given, lambda draft: draft.apply(change(draft.after.lifecycle, draft.now.monotonic)))

    def _deliver(self) -> None:
        """Run the callbacks, unless an outer call on this thread holds a lock; that call will run them later."""
        if not (is_held(self._lock) or self._ledger.is_busy):
            self._callbacks.deliver()

    def _update_schedule(self) -> None:
        """Start or stop ticking if the lifecycle's checker was started or stopped."""
        while (running := self._current.lifecycle.checker_running) is not self._is_scheduled:
            self._is_scheduled = running
            if running:
                self._start_ticks(self._clock.monotonic())
            else:
                self._scheduler.stop(self)
            self._is_scheduled = running  # match the last scheduler call, even if a re-entrant call changed the flag

    def _start_ticks(self, now: float) -> None:
        try:
            self._scheduler.start(self, now)
        except RuntimeError as error:
            self._callbacks.log(self._logger.warning, "%s; sessions expire at their next event", error)

    def _now(self) -> Anchor:
        now = Anchor(self._clock.monotonic(), self._clock.now())
        if isinstance(self._clock, CheckedClock):
            for fault in self._clock.take_faults():
                self._callbacks.log(self._logger.warning, "%s", fault)
        return now

    def _progress(self) -> Snapshot | None:
        now = self._now()
        with self._lock:
            return self._current.progress(now)

    def _save_progress(self) -> None:
        """Save what a restart needs, unless it is already saved. The session's lock is not held during the save."""
        record = self._progress()
        if self._ledger.error is not None or not self._ledger.has_saved(record):
            self._ledger.save(record)
            self._deliver()

    def _save_at_exit(self) -> None:
        """Save progress if the store outlives the process, without running callbacks."""
        if self._ledger.outlives_process and not self._ledger.has_saved(record := self._progress()):
            self._ledger.save(record)

    def _after_fork(self) -> None:
        """Start over with a pending session: only the parent continues the current session and reports its end."""
        self._lock = threading.RLock()
        self._callbacks = self._callbacks.after_fork()
        self._ledger.after_fork()
        before, now = self._current, self._now()
        current = Current.pending(before.lifecycle.successor(now.monotonic), self._ledger, now)
        current.is_closed = before.is_closed
        current.log = before.log and InputLog(now, is_started=False)
        self._current = current
        before.lifecycle.short_path_timeout = 0.0  # see `_publish`
        self._is_scheduled = False
        self._update_schedule()


@functools.cache  # finalizers at interpreter exit can no longer import modules
def _xml_store() -> type[XmlStore]:
    from client_session_persistence.xml_store import XmlStore  # noqa: PLC0415  # programs that pass a store do not need XML

    return XmlStore


_live_sessions: weakref.WeakSet[ClientSession] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_live_sessions):
        session._after_fork()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class


def _save_all_at_exit(until: float) -> None:
    for session in list(_live_sessions):
        if time.monotonic() >= until:
            return
        save = session._save_at_exit  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class
        with contextlib.suppress(BaseException):  # an embedder's clock may raise anything; exit must be silent
            within_deadline(save, until=until)


register(Stage.SESSIONS, after_fork_in_child=_after_fork_in_child, at_exit=_save_all_at_exit)
