"""A session that runs through a fault in its save file's folder, and records what it should not have lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, loads
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from client_session.entity import SessionContext

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))


class Log:
    """A logger that keeps its lines, each with its level."""

    def __init__(self) -> None:
        """Start empty."""
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


def create_old_file(path: Path) -> None:
    """Create an old save file and its backup."""
    XmlStore(path).save(attrs.evolve(OLD, session_index=1))
    XmlStore(path).save(OLD)


@attrs.define
class Survivor:
    """A session before, during and after a fault."""

    path: Path
    running: bool = False
    """The session started before the fault."""
    transient: bool = False
    """The fault happens only once, so even the current session must keep the file's user."""
    can_unlink: bool = True
    """Files can be removed during the fault, so no temporary file may remain at its end."""
    saves_fail: bool = False
    """No save can be durable during the fault, and `save_error` must report that."""
    must_log: bool = False
    """The library cannot work around the fault, so it must log a failure."""
    losses: list[str] = attrs.field(factory=list[str])
    """One message for each loss."""
    log: Log = attrs.field(factory=Log)
    before: Snapshot | None = None
    is_link: bool = False
    maybe_unread: bool = False
    """The session's first event might have come before the file could be read."""
    has_backup: bool = False
    """The backup was read in place of the file (see `XmlStore.load`)."""
    session: ClientSession | None = None
    context: SessionContext | None = None

    def run_through(self, fault: AbstractContextManager[object]) -> None:
        """Use the session before, during and after a fault."""
        self.before = self.read_file()
        self.is_link = self.path.is_symlink()
        if self.running:
            self.start()
            self.before = self.read_file()
        with fault:
            if not self.running:
                self.start()
            self.use()
        try:
            self.check_file_after_fault()
            self.recover()
            self.finish()
        except CorruptSaveFileError as error:
            self.record_loss(f"the file is corrupt: {error}")

    def close_during(self, fault: AbstractContextManager[object]) -> None:
        """Close a session during a fault; check that the file is old or new and the next start continues from it."""
        with ClientSession(self.path, logger=self.log, scheduler=ManualScheduler()) as session:
            self.session = session
            session.get_session_context(event_id(1))
            session.get_session_context(event_id(2))
            old = self.read_file()
            with fault:
                self.attempt("close", session.close)
        found = self.read_file()
        saved = old is not None and found == attrs.evolve(
            old, event_index=2, last_activity=found.last_activity if found else None
        )
        if found is None or (found != old and not saved):
            self.record_loss(f"the file is neither old nor new: {found}")
            return
        if ((self.saves_fail or not saved) and session.save_error is None) or (self.must_log and not self.log.lines):
            self.record_loss("a failure was not reported")
        if len(self.log.lines) > 1:
            self.record_loss("a failure was logged more than once")
        del session
        self.session = ClientSession(self.path, logger=self.log, scheduler=ManualScheduler())
        context = self.session.get_session_context(event_id(3))
        if (context.user_id, context.session_index) != (found.user_id, found.session_index + 1):
            self.record_loss(f"the next session does not follow the saved one: {context}")
        self.check_temporary_files()

    def read_file(self) -> Snapshot | None:
        """Return the snapshot in the save file."""
        return loads(self.path.read_bytes()) if self.path.exists() else None

    def record_loss(self, loss: str) -> None:
        """Record a loss together with the session's save error and log."""
        error = self.session and self.session.save_error
        self.losses.append(f"{loss} (save_error: {error!r}, log: {self.log.lines})")

    def attempt(self, name: str, call: Callable[[], object]) -> None:
        """Make a call that must not raise."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # any exception is a loss
            self.record_loss(f"{name} raised {error!r}")

    def start(self) -> None:
        """Construct the session."""

        def construct() -> None:
            self.session = ClientSession(self.path, logger=self.log, scheduler=ManualScheduler())

        self.attempt("the constructor", construct)

    def use(self) -> None:
        """Record a session's first event, then change focus and tick."""
        session = self.session
        if session is None:
            return

        def record() -> None:
            self.context = session.get_session_context(event_id(1))

        self.attempt("an event", record)
        self.maybe_unread = session.save_error is not None and not self.running
        self.has_backup = getattr(session.save_error, "recovered", None) is not None
        self.attempt("moving to the background", lambda: session.set_background(True))
        self.attempt("a tick", session.tick)
        self.attempt("moving to the foreground", lambda: session.set_background(False))
        self.attempt("a tick", session.tick)

    def check_file_after_fault(self) -> None:
        """Check that the file is old or new at the end of the fault, and that an old file is reported in save_error."""
        if self.session is None or self.context is None:
            return
        found = self.read_file()
        saved = found is not None and found.session_id == self.context.session_id
        if self.before is not None and (found is None or found.user_id != self.before.user_id):
            self.record_loss(f"the user id is lost: {found}")
        if not saved and found not in (self.before, Snapshot(user_id=self.session.user_id)):
            self.record_loss(f"the file is neither old nor new: {found}")
        if (self.saves_fail or not saved) and self.session.save_error is None:
            self.record_loss("the session was not saved, but save_error is None")
        if self.must_log and not self.log.lines:
            self.record_loss("a failure was not logged")
        if self.can_unlink:
            self.check_temporary_files()

    def recover(self) -> None:
        """Tick once, and check that the tick saves the session."""
        session, context = self.session, self.context
        if session is None or context is None:
            return
        self.attempt("a tick", session.tick)
        if session.save_error is not None:
            self.record_loss("save_error remained after the next tick")
        levels = [line.partition(":")[0] for line in self.log.lines]
        if levels != ["warning", "info"] * (len(levels) // 2):
            self.record_loss("a series of failures did not log exactly one warning and one recovery line")
        found = self.read_file()
        before = self.before
        other_user = before is not None and context.user_id != before.user_id
        if other_user and (self.transient or self.has_backup):
            self.record_loss("the session has a different user than the file")
        follows = before is None or (not other_user and context.session_index == before.session_index + 1)
        if not follows and not self.maybe_unread:
            self.record_loss(f"the session's index is {context.session_index}")
        # A session that was numbered without reading the file is not written to it.
        if found is None or found.session_id != (context.session_id if follows or not before else before.session_id):
            self.record_loss(f"the session was not saved at the next tick: {found}")
        try:
            with XmlStore(self.path).lock():
                pass
        except TimeoutError:
            self.record_loss("the lock is still held")

    def finish(self) -> None:
        """Begin another session and close; check its user, index and save, and that no temporary file remains."""
        session, found = self.session, self.read_file()
        if session is None or found is None:
            return
        session.start_new_session()
        context = session.get_session_context(event_id(2))
        if context.user_id != found.user_id or context.session_index != found.session_index + 1:
            self.record_loss(f"the next session does not continue the file's user and index: {context}")
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
