"""Custom clocks, schedulers, stores and loggers, which do not need a base class."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client_session import ClientSession, Clock, Logger, Scheduler, Ticking

if TYPE_CHECKING:
    from client_session_persistence import Snapshot, SnapshotStore


class FixedClock:
    """A clock whose time never changes."""

    def monotonic(self) -> float:
        """Return the fixed time."""
        return 0.0

    def now(self) -> datetime:
        """Return the fixed time."""
        return datetime(2026, 1, 1, tzinfo=UTC)


class IntegerClock:
    """A clock whose wall time is a number, so it is not a `Clock`."""

    def monotonic(self) -> float:
        """Return the fixed time."""
        return 0.0

    def now(self) -> int:
        """Return the fixed time."""
        return 0


class LastSessionScheduler:
    """A scheduler that remembers the last session."""

    session: Ticking | None = None

    def start(self, session: Ticking, now: float) -> None:
        """Remember the session."""
        del now
        self.session = session

    def stop(self, session: Ticking) -> None:
        """Forget the session."""
        del session
        self.session = None


class IncompleteScheduler:
    """A scheduler whose `start` lacks an argument, so it is not a `Scheduler`."""

    def start(self, session: Ticking) -> None:
        """Do nothing."""

    def stop(self, session: Ticking) -> None:
        """Do nothing."""


class VariableStore:
    """A store that keeps the snapshot in a variable and does not lock anything."""

    snapshot: Snapshot | None = None

    def load(self) -> Snapshot | None:
        """Return the snapshot."""
        return self.snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self.snapshot = snapshot

    def replace_user(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self.snapshot = snapshot

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Return a context manager that does nothing."""
        return contextlib.nullcontext()


class FutureStore:
    """A store that saves in the background."""

    def load(self) -> Snapshot | None:
        """Return None."""
        return None

    def save(self, snapshot: Snapshot) -> Future[None]:
        """Return a future."""
        del snapshot
        return Future()

    def replace_user(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Return a context manager that does nothing."""
        return contextlib.nullcontext()


class StringStore:
    """A store that keeps strings instead of snapshots, so it is not a `SnapshotStore`."""

    def load(self) -> str | None:
        """Return None."""
        return None

    def save(self, snapshot: str) -> None:
        """Do nothing."""

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Return a context manager that does nothing."""
        return contextlib.nullcontext()


class ListLogger:
    """A logger that keeps messages in a list."""

    def __init__(self) -> None:
        """Start with an empty list of messages."""
        self.messages: list[str] = []

    def info(self, msg: str, /, *args: object) -> None:
        """Keep a message."""
        self.messages.append(msg % args)

    warning = exception = info


clock: Clock = FixedClock()
scheduler: Scheduler = LastSessionScheduler()
store: SnapshotStore = VariableStore()
future_store: SnapshotStore = FutureStore()
logger: Logger = ListLogger()
standard_logger: Logger = logging.getLogger("my-app")
adapter: Logger = logging.LoggerAdapter(logging.getLogger("my-app"), {})
ticking: Ticking = ClientSession(store=store, clock=clock, scheduler=scheduler, logger=logger)

ClientSession(store=store, clock=IntegerClock())  # type: ignore[arg-type]
ClientSession(store=store, clock=FixedClock)  # type: ignore[arg-type]
ClientSession(store=store, scheduler=IncompleteScheduler())  # type: ignore[arg-type]
ClientSession(store=StringStore())  # type: ignore[arg-type]
ClientSession(store=store, logger=logging)  # logging has functions with the required names
ClientSession(store=store, logger=[])  # type: ignore[arg-type]
