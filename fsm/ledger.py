"""The ledger: who the user is, which numbers sessions get, and what of it the store has.

It agrees with the store, since other processes number sessions there too, and goes on in memory while the store fails.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from typing import TYPE_CHECKING

from fsm.draft import OvertakenError
from fsm.locks import is_held
from persistence import CorruptSaveFileError, Snapshot
from persistence.snapshot import MAX_INDEX
from persistence.waiting import LOCK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from datetime import datetime

    from fsm.notices import Logger, Notices
    from persistence import SnapshotStore


def new_id() -> str:
    """Return a new random id for a user or a session."""
    return str(uuid.uuid4())


class Ledger:
    """One session object's view of its store. Thread-safe.

    No failure of the store is raised out of it: it becomes `error`, with one warning for each streak, until a later
    call gets through.
    """

    __slots__ = (
        "_handed_over",
        "_is_settling",
        "_lock",
        "_logger",
        "_notices",
        "_saved",
        "_store",
        "error",
        "newest",
        "turn",
    )

    def __init__(self, store: SnapshotStore, logger: Logger, notices: Notices) -> None:
        """Agree with the store on who the user is; a store that has none gets a new one."""
        self._store = store
        self._logger = logger
        self._notices = notices
        self._lock = threading.RLock()
        self._is_settling = False
        self._saved: Snapshot | None = None
        self._handed_over: Future[None] | None = None
        """Of the last save's being durable, while that is not known."""
        self.turn = 0
        """Counts what was settled with the store, so that a call that was come between by another notices it."""
        self.error: Exception | None = None
        """The last failure that has not healed."""
        kept, error = self._first_look()
        self.newest = kept or Snapshot(user_id=new_id())
        """The newest session known, which the next one follows; at first none, of a user that the store may replace."""
        if error is not None and not isinstance(error, CorruptSaveFileError):
            self._report(error)  # a store that cannot be read is left alone
        elif kept is None or error is not None:
            self._transact(lambda kept: self.newest if kept is None else None)  # what is corrupt is mended there

    def _first_look(self) -> tuple[Snapshot | None, Exception | None]:
        """Return what the store has, or what could be recovered of it and why it could not be read."""
        try:
            return self._store.load(), None
        except Exception as error:  # noqa: BLE001  # a store of the embedder's may raise anything
            recovered = getattr(error, "recovered", None)
            return (recovered if isinstance(recovered, Snapshot) else None), error

    def number(
        self,
        session_id: str,
        *,
        first_event_id: str | None,
        first_event_time: datetime | None,
        now: datetime,
        turn: int,
    ) -> Snapshot:
        """Give a session its index and its predecessor, and save it.

        While the store cannot be written, its number follows the newest one that can be seen.

        Raises:
            OvertakenError: something was settled with the store since this ``turn``; decide again.

        """

        def follow(before: Snapshot) -> Snapshot:
            again = before.session_id == session_id  # an overtaken draft numbered it
            return Snapshot(
                user_id=before.user_id,
                session_id=session_id,
                previous_session_id=before.previous_session_id if again else before.session_id,
                session_index=before.session_index if again else min(before.session_index + 1, MAX_INDEX),
                first_event_id=first_event_id,
                first_event_timestamp=first_event_time,
                event_index=0 if first_event_id is None else 1,
                last_activity=now,
            )

        def decide(_: Snapshot | None) -> Snapshot | None:
            record = follow(self.newest)
            if self.turn != turn:
                return None
            self.newest = record
            return record

        with self._lock:
            if self.turn != turn:
                raise OvertakenError
            self._transact(decide)
            if self.turn != turn + 1:
                raise OvertakenError
            if self.newest.session_id != session_id:  # it did not come to that: the store is locked, or fails
                self._look()
                self.newest = follow(self.newest)
            return self.newest

    def save(self, snapshot: Snapshot | None, *, wait: bool = False) -> Exception | None:
        """Save how far a session has come (``None``: the newest known), unless the store is ahead of it.

        Return what went wrong; if it is to ``wait``, when all is durable.
        """
        with self._lock:
            ours = snapshot or self.newest
            if ours.session_index < self.newest.session_index:  # numbered meanwhile, and perhaps not saved yet
                ours = self.newest
            if ours.session_id == self.newest.session_id:
                self.newest = ours
            error = self._transact(lambda kept: ours if _is_behind(kept, ours) else None)
            if error is None:
                self._saved = ours
            handed_over = self._handed_over
        if wait and handed_over is not None:
            error = _failure(handed_over)
            self._hear(handed_over)
        return error

    def has(self, snapshot: Snapshot | None) -> bool:
        """Tell whether there is nothing in this that the store has not got."""
        return snapshot is None or snapshot == self._saved

    @property
    def is_busy(self) -> bool:
        """Whether this thread is settling something with the store, further up."""
        return is_held(self._lock)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.RLock()
        self._is_settling = False
        self._handed_over = None
        self.turn += 1

    def _transact(self, decide: Callable[[Snapshot | None], Snapshot | None]) -> Exception | None:
        """Settle something with the store; return what failed.

        A signal handler's or finalizer's call on this very thread may come between, and settle something itself, which
        may have been overwritten here or have failed: then all that is known is settled with the store once more, and
        only how that ends is reported.
        """
        came_between, self._is_settling = self._is_settling, True
        try:
            turn = self.turn
            error = self._settle_once(decide)
            while self.turn != turn:
                turn = self.turn
                error = self._settle_once(lambda kept: self.newest if _is_behind(kept, self.newest) else None)
            self.turn += 1
        finally:
            self._is_settling = came_between
        if not came_between:
            handed_over = self._handed_over
            if error is not None or handed_over is None or isinstance(self.error, CorruptSaveFileError):
                self._report(error)
            if handed_over is not None:
                handed_over.add_done_callback(self._hear)
                error = _failure(handed_over) if handed_over.done() else error
        return None if isinstance(error, CorruptSaveFileError) else error

    def _settle_once(self, decide: Callable[[Snapshot | None], Snapshot | None]) -> Exception | None:
        """Under the store's lock: read, take over what is newer, decide what to save, save it.

        Return what failed, or the corruption that was mended.
        """
        corrupt: CorruptSaveFileError | None = None
        try:
            with self._store.lock():
                try:
                    kept = self._store.load()
                except CorruptSaveFileError as error:
                    corrupt, kept = error, error.recovered
                if kept is not None:
                    self._take_over(kept)
                snapshot = decide(kept)
                if snapshot is None and corrupt is not None:
                    snapshot = self.newest
                if snapshot is not None:
                    self._handed_over = self._store.save(snapshot)
                    self._saved = snapshot
        except Exception as error:  # noqa: BLE001  # a store of the embedder's may raise anything
            self._handed_over = None  # how an older save ends heals nothing
            return error
        return corrupt

    def _hear(self, handed_over: Future[None]) -> None:
        """Take note of how a save ended, on the thread that made it durable, unless a later one is under way."""
        locked = self._lock.acquire(timeout=LOCK_SECONDS)  # who has it may be waiting for this very thread
        try:
            if self._handed_over is not handed_over:
                return
            self._handed_over = None
            error = _failure(handed_over)
            if error is not None:
                self._saved = None
                self._report(error)
            elif not isinstance(self.error, CorruptSaveFileError):  # which is to be seen until the next save
                self._report(None)
        finally:
            if locked:
                self._lock.release()
        if not self.is_busy:
            self._notices.deliver()

    def _look(self) -> None:
        """Take over what can be seen without the lock: others may have numbered sessions since the last look."""
        with contextlib.suppress(Exception):
            kept = self._store.load()
            if kept is not None:
                self._take_over(kept)

    def _take_over(self, kept: Snapshot) -> None:
        """The store decides who the user is, and knows best of newer sessions."""
        if kept.user_id != self.newest.user_id or kept.session_index > self.newest.session_index:
            self.newest = kept

    def _report(self, error: Exception | None) -> None:
        was_failing, self.error = self.error is not None, error
        if error is None:
            if was_failing:
                self._notices.add(self._logger.info, "The session's save file works again")
        elif isinstance(error, CorruptSaveFileError):
            outcome = "its user was recovered" if error.recovered else "no user could be recovered from it"
            self._notices.add(self._logger.warning, "%s; %s, and a new file is written", error, outcome)
        elif not was_failing:
            self._notices.add(self._logger.warning, "The session goes on in memory, its save file fails: %s", error)


def _failure(handed_over: Future[None]) -> Exception | None:
    """Wait until a save has ended; return what went wrong."""
    error = handed_over.exception()
    return error if isinstance(error, Exception) else None


def _is_behind(kept: Snapshot | None, ours: Snapshot) -> bool:
    """Tell whether a store would gain by saving ours: never another user's, a newer session, or a later stage."""
    if kept is None:
        return True
    if kept.user_id != ours.user_id:
        return False
    if kept.session_id != ours.session_id:
        return kept.session_index < ours.session_index
    return (kept.event_index or 0) <= (ours.event_index or 0)
