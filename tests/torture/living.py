"""A session that lives through a fault of its save file's place, and what it must not lose."""

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
    """A logger that keeps the names of its methods as they are called."""

    def __init__(self) -> None:
        """Start empty."""
        self.lines: list[str] = []

    def info(self, msg: str, /, *args: object) -> None:
        """Keep it."""
        self.lines.append(f"info: {msg % args}")

    def warning(self, msg: str, /, *args: object) -> None:
        """Keep it."""
        self.lines.append(f"warning: {msg % args}")

    def exception(self, msg: str, /, *args: object) -> None:
        """Keep it."""
        self.lines.append(f"exception: {msg % args}")


def make_old(path: Path) -> None:
    """Let there be an old save file, with a backup."""
    XmlStore(path).save(attrs.evolve(OLD, session_index=1))
    XmlStore(path).save(OLD)


@attrs.define
class Life:
    """One session's, from before a fault until after it."""

    path: Path
    running: bool = False
    """The session is older than the fault."""
    once: bool = False
    """The fault passes at once, so that not even the present session may be a stranger's."""
    removes: bool = True
    """Files can be removed meanwhile, so that no temporary one may stand there."""
    fails: bool = False
    """No save can have been durable meanwhile, and `save_error` must say so."""
    told: bool = False
    """Something failed that nothing makes up for, and must have been told."""
    losses: list[str] = attrs.field(factory=list[str])
    """A clause for each thing lost."""
    log: Log = attrs.field(factory=Log)
    before: Snapshot | None = None
    linked: bool = False
    blind: bool = False
    """The file may not have been read before the session's first event."""
    has_backup: bool = False
    """The backup could be read instead (`XmlStore.load`)."""
    session: ClientSession | None = None
    context: SessionContext | None = None

    def go_through(self, fault: AbstractContextManager[object]) -> None:
        """Live before, during and after a fault."""
        self.before = self.kept()
        self.linked = self.path.is_symlink()
        if self.running:
            self.start()
            self.before = self.kept()
        with fault:
            if not self.running:
                self.start()
            self.use()
        try:
            self.judge_during()
            self.heal()
            self.end()
        except CorruptSaveFileError as error:
            self.lose(f"the file is corrupt: {error}")

    def close_during(self, fault: AbstractContextManager[object]) -> None:
        """Close a session during a fault: the file is old or new, and the next start goes on from there."""
        with ClientSession(self.path, logger=self.log, scheduler=ManualScheduler()) as session:
            self.session = session
            session.get_session_context(event_id(1))
            session.get_session_context(event_id(2))
            old = self.kept()
            with fault:
                self.attempt("close", session.close)
        found = self.kept()
        saved = old is not None and found == attrs.evolve(
            old, event_index=2, last_activity=found.last_activity if found else None
        )
        if found is None or (found != old and not saved):
            self.lose(f"the file is neither old nor new: {found}")
            return
        if ((self.fails or not saved) and session.save_error is None) or (self.told and not self.log.lines):
            self.lose("a failure was not told of")
        if len(self.log.lines) > 1:
            self.lose("a failure was told of more than once")
        del session
        self.session = ClientSession(self.path, logger=self.log, scheduler=ManualScheduler())
        context = self.session.get_session_context(event_id(3))
        if (context.user_id, context.session_index) != (found.user_id, found.session_index + 1):
            self.lose(f"the next session does not follow: {context}")
        self.look_for_temporary_files()

    def kept(self) -> Snapshot | None:
        """Return what the save file holds."""
        return loads(self.path.read_bytes()) if self.path.exists() else None

    def lose(self, loss: str) -> None:
        """Note a loss, with what went wrong for the session."""
        error = self.session and self.session.save_error
        self.losses.append(f"{loss} (save_error: {error!r}, log: {self.log.lines})")

    def attempt(self, name: str, call: Callable[[], object]) -> None:
        """Make a call that must not raise."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # that is the loss
            self.lose(f"{name} raised {error!r}")

    def start(self) -> None:
        """Construct the session."""

        def construct() -> None:
            self.session = ClientSession(self.path, logger=self.log, scheduler=ManualScheduler())

        self.attempt("the constructor", construct)

    def use(self) -> None:
        """Record a session's first event, and let happen what happens."""
        session = self.session
        if session is None:
            return

        def record() -> None:
            self.context = session.get_session_context(event_id(1))

        self.attempt("an event", record)
        self.blind = session.save_error is not None and not self.running
        self.has_backup = getattr(session.save_error, "recovered", None) is not None
        self.attempt("a toggle", lambda: session.set_background(True))
        self.attempt("a tick", session.tick)
        self.attempt("a toggle", lambda: session.set_background(False))
        self.attempt("a tick", session.tick)

    def judge_during(self) -> None:
        """Judge the file as it was at the fault's end: old or new, and never silently old."""
        if self.session is None or self.context is None:
            return
        found = self.kept()
        saved = found is not None and found.session_id == self.context.session_id
        if self.before is not None and (found is None or found.user_id != self.before.user_id):
            self.lose(f"the user id is lost: {found}")
        if not saved and found not in (self.before, Snapshot(user_id=self.session.user_id)):
            self.lose(f"the file is neither old nor new: {found}")
        if (self.fails or not saved) and self.session.save_error is None:
            self.lose("it was not saved, and save_error does not say so")
        if self.told and not self.log.lines:
            self.lose("a failure was not told of")
        if self.removes:
            self.look_for_temporary_files()

    def heal(self) -> None:
        """Send one tick, which must save."""
        session, context = self.session, self.context
        if session is None or context is None:
            return
        self.attempt("a tick", session.tick)
        if session.save_error is not None:
            self.lose("save_error did not heal at the next tick")
        levels = [line.partition(":")[0] for line in self.log.lines]
        if levels != ["warning", "info"] * (len(levels) // 2):
            self.lose("there was not one warning for each streak, and one line when it had healed")
        found = self.kept()
        before = self.before
        stranger = before is not None and context.user_id != before.user_id
        if stranger and (self.once or self.has_backup):
            self.lose("the session has another user than the file")
        follows = before is None or (not stranger and context.session_index == before.session_index + 1)
        if not follows and not self.blind:
            self.lose(f"its index is {context.session_index}")
        # What was numbered beside a file that could not be read stays out of it.
        if found is None or found.session_id != (context.session_id if follows or not before else before.session_id):
            self.lose(f"the session was not saved at the next tick: {found}")
        try:
            with XmlStore(self.path).lock():
                pass
        except TimeoutError:
            self.lose("the lock is still held")

    def end(self) -> None:
        """Begin another session and close: it has the file's user, the next index, and leaves nothing behind."""
        session, found = self.session, self.kept()
        if session is None or found is None:
            return
        session.start_new_session()
        context = session.get_session_context(event_id(2))
        if context.user_id != found.user_id or context.session_index != found.session_index + 1:
            self.lose(f"the next session is not the next of the file's user: {context}")
        session.close()
        kept = self.kept()
        if session.save_error is not None or kept is None or kept.session_id != context.session_id:
            self.lose("the next session is not saved")
        self.look_for_temporary_files()
        if self.path.is_symlink() != self.linked:
            self.lose("the link in the file's place was replaced")

    def look_for_temporary_files(self) -> None:
        """Judge the folder."""
        with contextlib.suppress(FileNotFoundError):
            for left in sorted(self.path.resolve().parent.glob("*.tmp")):
                self.lose(f"{left.name} is left")
