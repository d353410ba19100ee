"""The ledger, which knows the user, numbers sessions, and keeps track of what has been saved.

It defers to the store, where other processes may also number sessions. While the store is failing, the ledger continues
in memory.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, NoReturn

from client_session.interruptions import is_from_signal_handler
from client_session_persistence.deadline import LOCK_SECONDS, is_held
from client_session_persistence.forks import THIS_PROCESS, notice_fork, wait_for
from client_session_persistence.snapshot import (
    MAX_INDEX,
    STORAGE_MECHANISM,
    CorruptSaveFileError,
    Snapshot,
    StoreError,
    is_resumable,
    shown,
)
from client_session_persistence.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from datetime import datetime

    from client_session.callbacks import Callbacks, Logger
    from client_session_persistence import SnapshotStore
    from client_session_persistence.store import Owner

    Decider = Callable[[Snapshot | None], Snapshot | None]
    """Takes the stored snapshot and returns the snapshot to save, or ``None`` to save nothing."""

_FUTURE_METHODS = ("add_done_callback", "cancelled", "done", "exception", "running")
"""The methods of `concurrent.futures.Future` that are used here, and ``running``, which asyncio's futures lack."""


def new_id() -> str:
    """Return a new random id for a user or a session."""
    return str(uuid.uuid4())


class Ledger:
    """One session object's view of its store. Thread-safe.

    Only `replace_user` raises the store's errors. `error` is the last error until a later call succeeds. Only the first
    of several consecutive errors is logged.
    """

    __slots__ = (
        "_callbacks", "_future", "_lock", "_logger", "_owner", "_saved", "_store", "_transaction", "error",
        "forgotten_user_id", "is_resumable", "newest", "pending_id", "replacing", "unused_id",
    )  # fmt: skip

    def __init__(self, store: SnapshotStore, logger: Logger, callbacks: Callbacks, *, continues: bool = False) -> None:
        """Load the user from the store, or save a new user if the store is empty.

        With ``continues``, try to become the owner of the saved session first. `is_resumable` is the outcome.
        """
        self._store = store
        self._owner: Owner | None = None
        self._logger = logger
        self._callbacks = callbacks
        self._lock = threading.RLock()
        self._transaction: object = None
        """Identifies the latest transaction on the store while one is in progress."""
        self._saved: Snapshot | None = None
        """The last snapshot that this object saved."""
        self._future: Future[None] | None = None
        """The future returned by the last save, until that save is durable."""
        self.pending_id = new_id()
        """The id of the next session to be numbered: the current one while it is pending, otherwise its successor.

        Empty while a session has begun and no decision has needed its successor's id.
        """
        self.unused_id: str | None = None
        """A pending id that was replaced. If an interrupted call has already numbered it, that number can be reused."""
        self.forgotten_user_id: str | None = None
        """The last user whom this object replaced. A session that still has that user was interrupted; it must end."""
        self.replacing: Snapshot | None = None
        """The user with whom a call is replacing the store's, or of whom a call failed to say whether it did."""
        self.error: Exception | None = None
        """The last load or save error, until a save succeeds."""
        self.is_resumable = False
        """Whether this run owns the saved session: it may continue it, and later runs may resume its own sessions."""
        try:
            self._open(continues=continues)
        except BaseException:  # the caller gets no session that it could close
            self.release()
            raise

    def _open(self, *, continues: bool) -> None:
        self.is_resumable = continues and self._own()
        stored, error = self._load_or_recover()
        self.newest = stored or self.new_user()
        """The newest known session; at first, only a user, which the store may override."""
        if error is not None and not isinstance(error, CorruptSaveFileError):
            self._report(error)  # a store that cannot be read is not overwritten
        elif stored is None or error is not None:
            self._transact(lambda stored: self.newest if stored is None else None)  # this also replaces a corrupt file

    def _load_or_recover(self) -> tuple[Snapshot | None, Exception | None]:
        """Return the store's snapshot; if loading fails, return the recovered snapshot, if any, and the error."""
        try:
            return self._load(), None
        except Exception as error:  # noqa: BLE001  # see `_reraise_unless_from_store`
            self._reraise_unless_from_store(error)
            recovered = getattr(error, "recovered", None)
            return (recovered if isinstance(recovered, Snapshot) else None), error

    def _own(self) -> bool:
        """Try to become the owner of the saved session; a store without owners lets every run continue it."""
        ownership: Callable[[], Owner] | None = getattr(self._store, "ownership", None)
        if ownership is None:
            return True
        try:
            self._owner = ownership()
            return self._owner.own()
        except Exception as error:  # noqa: BLE001  # see `_reraise_unless_from_store`
            self._reraise_unless_from_store(error)
            return False

    def release(self) -> None:
        """Let another run own the saved session, once this run's last save is durable."""
        owner, future = self._owner, self._future
        if owner is not None and future is None:
            owner.release()
        elif owner is not None and future is not None:
            future.add_done_callback(lambda _: owner.release())

    def _reraise_unless_from_store(self, error: Exception) -> None:
        """Raise an exception that came from outside, such as the time limit of a task that tracks an event.

        Our stores fail only with `OSError` and `StoreError`; an embedder's store may raise anything.
        """
        is_ours = type(self._store).__module__.startswith("client_session_persistence.")
        expected = (OSError, StoreError) if is_ours else Exception
        if not isinstance(error, expected) or isinstance(error, MemoryError | RecursionError):
            raise error
        if is_from_signal_handler(error):
            raise error

    def new_user(self) -> Snapshot:
        """Return a snapshot of a new user, who has no sessions."""
        return Snapshot(user_id=new_id(), storage_mechanism=self.storage_mechanism)

    def choose_pending_id(self) -> str:
        """Return the pending id. If there is none, choose one, which re-entrant calls then use as well."""
        while not self.pending_id:
            process, chosen = THIS_PROCESS.id, new_id()
            # Nothing is called from here on, so no other code can interrupt. A child forked above must not choose the
            # same id as its parent.
            if not self.pending_id and process == THIS_PROCESS.id:
                self.pending_id = chosen
        return self.pending_id

    def number(
        self,
        session_id: str,
        now: datetime,
        first_event_id: str | None = None,
        first_event_time: datetime | None = None,
        *,
        background: bool,
    ) -> Snapshot:
        """Assign an index and a previous session to the pending session, save it, and return it.

        Idempotent per session id: a re-entrant call or a repeated decision gets the same number. If the
        session is no longer pending, the result is never published, and no number is used up. While the store cannot
        be written to, the number is one more than the highest that can be read.
        """

        def is_other(before: Snapshot) -> bool:
            return before.session_id is None or before.session_id not in (session_id, self.unused_id)

        def follow(before: Snapshot) -> Snapshot:
            again = not is_other(before)
            return Snapshot(
                user_id=before.user_id,
                session_id=session_id,
                previous_session_id=before.previous_session_id if again else before.session_id,
                session_index=before.session_index if again else min(before.session_index + 1, MAX_INDEX),
                storage_mechanism=self.storage_mechanism,
                first_event_id=first_event_id,
                first_event_timestamp=first_event_time,
                event_index=0 if first_event_id is None else 1,
                last_activity=now,
                session_start=None if first_event_id is None else now,
                background=background if self.is_resumable else None,
            )

        def decide(stored: Snapshot | None = None) -> Snapshot | None:
            while True:
                before = self.newest
                record = follow(before)
                if stored is not None and stored.session_index == record.session_index and is_other(stored):
                    record = follow(stored)  # an exception from outside prevented our save, and another process got it
                # Nothing is called from here on, so no other code can interrupt.
                if self.pending_id != session_id:
                    return None
                if self.newest is before:
                    self.newest = record
                    return record

        with self._lock:
            self._transact(decide)
            if self.newest.session_id != session_id:  # the store is locked or failing
                self._peek()
                decide()
            newest = self.newest
            return newest if newest.session_id == session_id else follow(newest)

    def mark_ended(self, record: Snapshot) -> bool:
        """Save the record of a session that no run will resume; return whether this call marked its end durably."""
        is_marked = False

        def decide(stored: Snapshot | None) -> Snapshot | None:
            nonlocal is_marked
            is_marked = stored is not None and stored.session_id == record.session_id and is_resumable(stored)
            return record if is_marked else None

        with self._lock:
            self.newest = record
            error = self._transact(decide)
            future = self._future
        if error is None and future is not None and wait_for(future, THIS_PROCESS.id):
            error = _exception(future)
            self._on_saved(future)
        return is_marked and error is None

    def replace_user(self, user: Snapshot) -> None:
        """Replace the user, and everything else in the store, with ``user``; raise the store's error if that fails.

        Idempotent per user id. Other sessions and processes finish their current sessions, then adopt the new user.
        """
        with self._lock:
            if self.newest.user_id == user.user_id:
                return
            is_nested, self.replacing = self._transaction is not None, user
            try:
                while True:
                    mine = self._transaction = object()
                    try:
                        self._replace_in_store(user)
                    except Exception:
                        if self._transaction is mine:
                            raise
                    else:
                        break  # otherwise, a re-entrant call saved during the replacement, which is tried again
            finally:
                if not is_nested:
                    self._transaction = None
            self._future = self.replacing = None
            if self.newest.user_id != user.user_id:  # otherwise, a re-entrant call has adopted the user
                self.forgotten_user_id = self.newest.user_id
                self.newest = self._saved = user
            self._report(None)

    def resolve_replacement(self) -> None:
        """Find out whether a failed or interrupted replacement took effect in the store; if so, adopt the new user."""
        with self._lock:
            user, old = self.replacing, self.newest.user_id
            if user is not None:
                self._peek()
                if self.newest.user_id == user.user_id:
                    self.forgotten_user_id = old
                self.replacing = None

    def save(self, snapshot: Snapshot | None, *, wait: bool = False) -> Exception | None:
        """Save a session's progress (``None``: that of the newest known session) unless the store has newer progress.

        Return the error, if any. With ``wait``, wait until the save is durable.
        """
        process = THIS_PROCESS.id
        with self._lock:
            ours = snapshot or self.newest
            if ours.session_index < self.newest.session_index:  # a newer session was numbered but may not be saved yet
                ours = self.newest
            if ours.session_id == self.newest.session_id:
                self.newest = ours
            error = self._transact(lambda stored: ours if self._is_behind(stored, ours) else None)
            if error is None:
                self._saved = ours
            future = self._future
        if wait and future is not None:
            if not wait_for(future, process):  # this is a child, and its parent completes the save
                return self.save(None, wait=True)
            error = _exception(future)
            self._on_saved(future)
        return error

    def has_saved(self, snapshot: Snapshot | None) -> bool:
        """Return whether this snapshot is ``None`` or was the last one saved."""
        return snapshot is None or snapshot == self._saved

    @property
    def storage_mechanism(self) -> str:
        """The store's storage mechanism, as in entities."""
        mechanism: str = getattr(self._store, "storage_mechanism", STORAGE_MECHANISM)
        return mechanism

    @property
    def outlives_process(self) -> bool:
        """Whether other processes can read what this process saves."""
        return not isinstance(self._store, MemoryStore)

    @property
    def is_busy(self) -> bool:
        """Whether an outer call on this thread holds the ledger's lock."""
        return is_held(self._lock)

    def after_fork(self) -> None:
        """Start over in a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        self._transaction = None
        self._future = None
        self.is_resumable = self.is_resumable and self._owner is None  # the parent still owns the saved session
        self._owner = None
        self.pending_id = new_id()

    def _transact(self, decide: Decider) -> Exception | None:
        """Run a transaction on the store; return the error, if any.

        A re-entrant call on this thread (from a signal handler or a finalizer) may run its own transaction during this
        one. That transaction may have failed, or this one may have overwritten its snapshot. In that case, the
        outermost call saves the newest snapshot again, and reports only the outcome of that save. Re-entrant calls do
        not: if gevent patched the lock's process late, its green threads would repeat one another's tries endlessly. In
        a child forked during the transaction, the lock is the parent's, so the child runs a transaction of its own.
        """
        is_nested, process = self._transaction is not None, THIS_PROCESS.id
        try:
            while True:
                mine = self._transaction = object()
                error = self._attempt(decide)
                notice_fork()
                if self._transaction is mine or (is_nested and process == THIS_PROCESS.id):
                    break
                decide = self._newest_if_behind
        finally:
            if not is_nested:
                self._transaction = None
        if not is_nested:
            future = self._future
            if error is not None or future is None or isinstance(self.error, CorruptSaveFileError):
                self._report(error)
            if future is not None:
                future.add_done_callback(self._on_saved)
                error = _exception(future) if future.done() else error
        return None if isinstance(error, CorruptSaveFileError) else error

    def _attempt(self, decide: Decider) -> Exception | None:
        """Under the store's lock, load its snapshot, adopt the snapshot if newer, and save what ``decide`` returns.

        Return the error, if any, or the corruption that was repaired.
        """
        corrupt: CorruptSaveFileError | None = None
        try:
            with self._lock_store():
                try:
                    stored = self._load()
                except CorruptSaveFileError as error:
                    corrupt, stored = error, error.recovered
                if stored is not None:
                    self._adopt(stored)
                snapshot = decide(stored)
                if snapshot is None and corrupt is not None:
                    snapshot = self.newest
                if snapshot is not None:
                    self._future = self._save(snapshot)
                    self._saved = snapshot
        except Exception as error:  # noqa: BLE001  # see `_reraise_unless_from_store`
            self._reraise_unless_from_store(error)
            self._future = None  # the success of an older save says nothing about this one
            return error
        return corrupt

    def _newest_if_behind(self, stored: Snapshot | None) -> Snapshot | None:
        return self.newest if self._is_behind(stored, self.newest) else None

    def _is_behind(self, stored: Snapshot | None, ours: Snapshot) -> bool:
        """Return False if ``stored`` has another user, a newer session, or more events; otherwise, return True."""
        if stored is None:
            return True
        if stored.user_id != ours.user_id:
            return False
        if stored.session_id != ours.session_id:
            return stored.session_index < ours.session_index or stored.session_id == self.unused_id
        return (stored.event_index or 0) <= (ours.event_index or 0)

    def _on_saved(self, future: Future[None]) -> None:
        """Handle a save's result (usually on the thread that made it durable) unless a later save is in progress."""
        is_locked = False
        try:
            is_locked = self._lock.acquire(timeout=LOCK_SECONDS)  # the lock's holder may be waiting for this thread
            if self._future is future:
                self._future = None
                error = _exception(future)
                if error is not None:
                    self._saved = None
                    self._report(error)
                elif not isinstance(self.error, CorruptSaveFileError):  # it stays until the next save
                    self._report(None)
        except BaseException:
            if is_held(self._lock):
                self._lock.release()
            raise
        if is_locked:
            self._lock.release()
        if not self.is_busy:
            self._callbacks.deliver()

    def _replace_in_store(self, user: Snapshot) -> None:
        replace: Callable[[Snapshot], object] | None = getattr(self._store, "replace_user", None)
        if replace is not None:
            replace(user)
            return
        with self._lock_store():
            future = self._save(user)
        error = None if future is None else _exception(future)
        if error is not None:
            raise error

    def _peek(self) -> None:
        """Read the store without locking it and adopt the result: other processes may have numbered more sessions."""
        try:
            stored = self._load()
        except Exception as error:  # noqa: BLE001  # see `_reraise_unless_from_store`
            self._reraise_unless_from_store(error)
        else:
            if stored is not None:
                self._adopt(stored)

    def _load(self) -> Snapshot | None:
        stored = self._store.load()
        if not (stored is None or isinstance(stored, Snapshot)):
            self._wrong_result("load", "a Snapshot or None", stored)
        return stored

    def _save(self, snapshot: Snapshot) -> Future[None] | None:
        future = self._store.save(snapshot)
        # The class is not imported: few stores use it, and nothing can be imported while the interpreter shuts down.
        if not (future is None or all(hasattr(future, method) for method in _FUTURE_METHODS)):
            self._wrong_result("save", "None or a concurrent.futures.Future", future)
        return future

    def _lock_store(self) -> AbstractContextManager[object]:
        lock = self._store.lock()
        if not (hasattr(type(lock), "__enter__") and hasattr(type(lock), "__exit__")):
            self._wrong_result("lock", "a context manager", lock)
        return lock

    def _wrong_result(self, method: str, expected: str, result: object) -> NoReturn:
        msg = f"{type(self._store).__name__}.{method}() must return {expected}, not {shown(result)}"
        raise TypeError(msg)

    def _adopt(self, stored: Snapshot) -> None:
        """Adopt the user and the newest session from the store, which is authoritative for both."""
        if stored.user_id != self.newest.user_id or stored.session_index > self.newest.session_index:
            self.newest = stored

    def _report(self, error: Exception | None) -> None:
        was_failing, self.error = self.error is not None, error
        if error is None:
            if was_failing:
                self._callbacks.log(self._logger.info, "The session's save file works again")
        elif isinstance(error, CorruptSaveFileError):
            outcome = "recovered its user" if error.recovered else "could not recover a user from it"
            self._callbacks.log(self._logger.warning, "%s; %s and wrote a new file", error, outcome)
        elif not was_failing:
            self._callbacks.log(
                self._logger.warning, "The session continues in memory because its save file cannot be used: %s", error
            )


def _exception(future: Future[None]) -> Exception | None:
    """Wait until a save is done; return its error, if any."""
    if future.cancelled():
        return StoreError("the save was cancelled")
    error = future.exception()
    return error if error is None or isinstance(error, Exception) else StoreError(f"the save ended with {error!r}")
