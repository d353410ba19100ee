"""A session that is exposed to a fault in its save file's folder, and a record of the resulting losses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, SqliteStore, XmlStore, loads
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from client_session.entity import SessionContext

    FileStoreClass = type[XmlStore | SqliteStore]

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))


class Log:
    """A logger that stores each line with its level."""

    def __init__(self) -> None:
        """Start with an empty log."""
        self.lines: list[str] = []

    def info(self, msg: str, /, *args: object) -> None:
        """Keep the line."""
        self.lines.append(f"info: {msg % args}")

    def warning(self, msg: str, /, *args: object) -> None:
        """Keep the line."""
        self.lines.append(f"warning: {msg % args}")

    def exception(self, msg: str, /, *args: object) -> None:
        """Keep the line."""
        self.lines.append(f"exception: {msg % args}")


def create_old_file(path: Path, store: FileStoreClass = XmlStore) -> None:
    """Create an old file and its backup, if it has one."""
    store(path).save(attrs.evolve(OLD, session_index=1))
    store(path).save(OLD)


@attrs.define
class Survivor:
    """A session before, during and after a fault."""

    path: Path
    running: bool = False
    """Whether the session is started before the fault."""
    transient: bool = False
    """Whether the fault happens only once, in which case even the current session must keep the file's user."""
    can_unlink: bool = True
    """Whether files can be removed during the fault, in which case no temporary file may remain afterward."""
    saves_fail: bool = False
    """Whether every save during the fault fails or is not durable, in which case `save_error` must be set."""
    must_log: bool = False
    """Whether the library cannot work around the fault, in which case it must log a failure."""
    store: FileStoreClass = XmlStore
    losses: list[str] = attrs.field(factory=list[str])
    """One message for each loss."""
    log: Log = attrs.field(factory=Log)
    before: Snapshot | None = None
    is_link: bool = False
    may_be_unread: bool = False
    """Whether the session's first event may have been tracked before the file could be read."""
    has_backup: bool = False
    """Whether the backup was read instead of the file (see `XmlStore.load`)."""
    session: ClientSession | None = None
    context: SessionContext | None = None

    def run_through(self, fault: AbstractContextManager[object]) -> None:
        """Use the session before, during and after a fault."""
        self.before = self.read_file()
        self.is_link = self.path.is_symlink()
        if self.running:
            self.start_session()
            self.before = self.read_file()
        with fault:
            if not self.running:
                self.start_session()
            self.use_session()
        try:
            self.check_file_after_fault()
            self.check_recovery()
            self.check_next_session()
        except CorruptSaveFileError as error:
            self.record_loss(f"the file is corrupt: {error}")

    def close_during(self, fault: AbstractContextManager[object]) -> None:
        """Close a session during a fault; check the file's contents, and that the next session continues from them."""
        self.session = session = self.open()
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))
        old = self.read_file()
        with fault:
            self.attempt_call("close", session.close)  # once: calling it again would retry a failed save
        found = self.read_file()
        saved = old is not None and found == attrs.evolve(
            old, event_index=2, last_activity=found.last_activity if found else None
        )
        if found is None or (found != old and not saved):
            self.record_loss(f"the file has neither the old nor the new contents: {found}")
            return
        if ((self.saves_fail or not saved) and session.save_error is None) or (self.must_log and not self.log.lines):
            self.record_loss("a failure was not reported")
        if len(self.log.lines) > 1:
            self.record_loss("a failure was logged more than once")
        self.session = self.open()
        context = self.session.get_session_context(event_id(3))
        if (context.user_id, context.session_index) != (found.user_id, found.session_index + 1):
            self.record_loss(f"the next session does not follow the saved one: {context}")
        self.check_temporary_files()

    def open(self) -> ClientSession:
        """Open a session."""
        return ClientSession(store=self.store(self.path), logger=self.log, scheduler=ManualScheduler())

    def read_file(self) -> Snapshot | None:
        """Return the snapshot in the save file."""
        if not self.path.exists():
            return None
        # XmlStore.load would remove temporary files, which a later check must find.
        return loads(self.path.read_bytes()) if self.store is XmlStore else self.store(self.path).load()

    def record_loss(self, loss: str) -> None:
        """Record a loss together with the session's save error and log."""
        error = self.session and self.session.save_error
        self.losses.append(f"{loss} (save_error: {error!r}, log: {self.log.lines})")

    def attempt_call(self, name: str, call: Callable[[], object]) -> None:
        """Make a call that must not raise."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # any exception is a loss
            self.record_loss(f"{name} raised {error!r}")

    def start_session(self) -> None:
        """Construct the session."""

        def construct() -> None:
            self.session = self.open()

        self.attempt_call("the constructor", construct)

    def use_session(self) -> None:
        """Track a session's first event, change focus, and tick."""
        session = self.session
        if session is None:
            return

        def record() -> None:
            self.context = session.get_session_context(event_id(1))

        self.attempt_call("an event", record)
        self.may_be_unread = session.save_error is not None and not self.running
        self.has_backup = getattr(session.save_error, "recovered", None) is not None
        self.attempt_call("moving to the background", lambda: session.set_background(True))
        self.attempt_call("a tick", session.tick)
        self.attempt_call("moving to the foreground", lambda: session.set_background(False))
        self.attempt_call("a tick", session.tick)

    def check_file_after_fault(self) -> None:
        """Check that the file has the old or new contents after the fault; if old, `save_error` must be set."""
        if self.session is None or self.context is None:
            return
        found = self.read_file()
        saved = found is not None and found.session_id == self.context.session_id
        if self.before is not None and (found is None or found.user_id != self.before.user_id):
            self.record_loss(f"the user id is lost: {found}")
        user = Snapshot(user_id=self.session.user_id, storage_mechanism=self.session.storage_mechanism)
        if not saved and found not in (self.before, user):
            self.record_loss(f"the file has neither the old nor the new contents: {found}")
        if (self.saves_fail or not saved) and self.session.save_error is None:
            self.record_loss("the session was not saved, but save_error is None")
        if self.must_log and not self.log.lines:
            self.record_loss("a failure was not logged")
        if self.can_unlink:
            self.check_temporary_files()

    def check_recovery(self) -> None:
        """Tick once, and check that the tick saves the session."""
        session, context = self.session, self.context
        if session is None or context is None:
            return
        self.attempt_call("a tick", session.tick)
        if session.save_error is not None:
            self.record_loss("save_error was still set after the next tick")
        levels = [line.partition(":")[0] for line in self.log.lines]
        if levels != ["warning", "info"] * (len(levels) // 2):
            self.record_loss("a series of failures did not log exactly one warning and one recovery line")
        found = self.read_file()
        before = self.before
        other_user = before is not None and context.user_id != before.user_id
        if other_user and (self.transient or self.has_backup):
            self.record_loss("the session's user differs from the file's")
        follows = before is None or (not other_user and context.session_index == before.session_index + 1)
        if not follows and not self.may_be_unread:
            self.record_loss(f"the session's index is {context.session_index}")
        # A session whose index was assigned without reading the file is not saved.
        if found is None or found.session_id != (context.session_id if follows or not before else before.session_id):
            self.record_loss(f"the session was not saved at the next tick: {found}")
        try:
            with self.store(self.path).lock():
                pass
        except TimeoutError:
            self.record_loss("the lock is still held")

    def check_next_session(self) -> None:
        """Begin another session and close it; check its user and index, the saved file, and the temporary files."""
        session, found = self.session, self.read_file()
        if session is None or found is None:
            return
        session.start_new_session()
        context = session.get_session_context(event_id(2))
        if context.user_id != found.user_id or context.session_index != found.session_index + 1:
            self.record_loss(f"the next session does not continue from the file's user and index: {context}")
        session.close()
        saved = self.read_file()
        if session.save_error is not None or saved is None or saved.session_id != context.session_id:
            self.record_loss("the next session was not saved")
        self.check_temporary_files()
        if self.path.is_symlink() != self.is_link:
            self.record_loss("the symbolic link at the save path was replaced")

    def check_temporary_files(self) -> None:
        """Record each temporary file that remains in the folder as a loss."""
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(self.path.resolve().parent.glob("*.tmp")):
                self.record_loss(f"{file.name} remains")
