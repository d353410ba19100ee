"""A desktop program in Qt (PySide6): the session follows the application's state, and a QTimer sends its ticks.

    pip install PySide6-Essentials
    python examples/qt_app.py [SAVE_PATH]

Track events, switch to another window and back. Each entity and each change of state is printed.
"""

from __future__ import annotations

import argparse
import uuid
import weakref
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QApplication, QGridLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from client_session import ClientSession, Input, SessionState
from client_session_persistence import default_save_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_session.ticking.scheduler import Ticking

COLOURS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
"""Of each state, as in the diagrams: the banner and its text."""

STYLE = """
    QWidget { background: #ffffff; color: #24292f; font-size: 11pt }
    QLabel#caption { color: #6e7781 }
    QLabel#value { font-weight: bold }
    QPushButton { background: #f6f8fa; border: 1px solid #d0d7de; border-radius: 6px; padding: 8px; min-width: 130px }
    QPushButton:focus { border-color: #6e7781 }
    QPushButton:pressed { background: #d0d7de }
"""
BANNER = "background: {banner}; color: {text}; font-size: 15pt; font-weight: bold; padding: 16px"
BAR = """
    QProgressBar {{ background: {banner}; border: none; max-height: 6px }}
    QProgressBar::chunk {{ background: {text} }}
"""


class QtScheduler(QObject):
    """Sends one session's ticks from a QTimer. The session may be called on any thread: signals reach the timer's."""

    starting = Signal(int)
    stopping = Signal()

    def __init__(self, parent: QObject) -> None:
        """Tick on the parent's thread."""
        super().__init__(parent)
        self._session: Callable[[], Ticking | None] = lambda: None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self.starting.connect(self._timer.start)
        self.stopping.connect(self._timer.stop)

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # Qt runs on real time
        """Let ticks come, at the interval that the session has now."""
        self._session = weakref.ref(session)
        self.starting.emit(round(session.check_interval * 1000))

    def stop(self, session: Ticking) -> None:  # noqa: ARG002  # there is but one
        """Let no more ticks come."""
        self.stopping.emit()

    def _tick(self) -> None:
        if session := self._session():
            session.tick()


class Window(QWidget):
    """Shows the session, and tracks what is clicked."""

    def __init__(self, session: ClientSession) -> None:
        """Lay the window out."""
        super().__init__(windowTitle="A session in Qt", styleSheet=STYLE)
        self.session = session
        self.state = QLabel(alignment=Qt.AlignmentFlag.AlignCenter)
        self.left = QProgressBar(textVisible=False)
        table = QGridLayout()
        table.setContentsMargins(24, 16, 24, 24)
        table.setVerticalSpacing(12)
        self.values = {name: self.add_row(table, name) for name in ("Session", "Events", "Session id", "Expires in")}
        table.addWidget(self.left, table.rowCount(), 0, 1, 2)
        track, renew = QPushButton("Track an event"), QPushButton("New session")
        track.setDefault(True)  # takes the Return key
        track.clicked.connect(self.track)
        renew.clicked.connect(session.start_new_session)
        row = table.rowCount()
        table.addWidget(track, row, 0)
        table.addWidget(renew, row, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.state)
        layout.addLayout(table)
        refreshing = QTimer(self)
        refreshing.timeout.connect(self.refresh)
        refreshing.start(250)
        self.refresh()

    def add_row(self, table: QGridLayout, name: str) -> QLabel:
        """Add a line of the table, and return the label of its value."""
        caption, value = QLabel(name), QLabel()
        caption.setObjectName("caption")
        value.setObjectName("value")
        row = table.rowCount()
        table.addWidget(caption, row, 0)
        table.addWidget(value, row, 1, Qt.AlignmentFlag.AlignRight)
        return value

    def track(self) -> None:
        """Track an event: a real program hands the entity to its tracker."""
        print(self.session.get_session_context(uuid.uuid4()).to_json(), flush=True)

    def follow(self, state: Qt.ApplicationState) -> None:
        """Tell the session whether any window of the program, dialogs included, has the focus."""
        self.session.set_background(state != Qt.ApplicationState.ApplicationActive)

    def refresh(self) -> None:
        """Show how things stand, four times a second. Reading never extends a session."""
        session = self.session
        timeout = session.background_timeout if session.background else session.foreground_timeout
        expires_in = session.expires_in
        banner, text = COLOURS[session.state]
        self.state.setText(session.state.value)
        self.state.setStyleSheet(BANNER.format(banner=banner, text=text))
        self.values["Session"].setText(str(session.session_index or "pending"))
        self.values["Events"].setText(str(session.event_index))
        self.values["Session id"].setText(session.session_id[:8])
        self.values["Expires in"].setText("never" if expires_in is None else f"{expires_in:.0f} s")
        self.left.setStyleSheet(BAR.format(banner=banner, text=text))
        self.left.setRange(0, round(timeout * 10))
        self.left.setValue(round((expires_in or 0) * 10))


def show_change(before: SessionState, given: Input, after: SessionState) -> None:
    """Print a change of state."""
    print(f"{before.value} --{given.value}--> {after.value}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program until its window is closed."""
    parser = argparse.ArgumentParser(description="A session that follows the focus of a Qt window.")
    parser.add_argument("save_path", nargs="?", default=default_save_path("client-session-qt"))
    parser.add_argument("--background-timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--check-interval", type=float, default=15, metavar="SECONDS")
    options = parser.parse_args(arguments)
    app = QApplication()
    with ClientSession(**vars(options), scheduler=QtScheduler(app), on_state_change=show_change) as session:
        window = Window(session)
        app.applicationStateChanged.connect(window.follow)
        window.show()
        app.exec()


if __name__ == "__main__":
    main()
