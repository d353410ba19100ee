"""A Qt desktop program (PySide6). The session follows the application's focus, and a QTimer triggers its ticks.

    pip install PySide6-Essentials
    python examples/qt_app.py [SAVE_PATH]

Track events, then switch to another window and back. The window shows the session and what happened to it last; the
program prints each entity and each state change. Close the window or press Ctrl-C in the terminal to quit.
"""

from __future__ import annotations

import argparse
import signal
import uuid
import weakref
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QApplication, QGridLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from client_session import ClientSession, Input, SessionState, default_save_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_session.ticking.scheduler import Ticking

STATES = {
    SessionState.FOREGROUND_ACTIVE: ("In the foreground", "#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("In the background", "#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("Expired in the background", "#f6e3d7", "#a4501c"),
}
"""The name of each state, and the banner and text colors, as in the diagrams."""

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
    """Ticks one session from a QTimer. Any thread may call the session: Qt delivers signals to the timer's thread."""

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

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # Qt's timers run in real time
        """Start ticking at the session's current interval."""
        self._session = weakref.ref(session)
        self.starting.emit(round(session.check_interval * 1000))

    def stop(self, session: Ticking) -> None:  # noqa: ARG002  # there is only one session
        """Stop ticking."""
        self.stopping.emit()

    def _tick(self) -> None:
        if session := self._session():
            session.tick()


class Window(QWidget):
    """Shows the session and tracks clicks."""

    def __init__(self, session: ClientSession) -> None:
        """Create the widgets and lay them out."""
        super().__init__(windowTitle="A session in Qt", styleSheet=STYLE, minimumWidth=420)
        self.session = session
        self.state = QLabel(alignment=Qt.AlignmentFlag.AlignCenter)
        self.remaining = QProgressBar(textVisible=False)
        table = QGridLayout()
        table.setContentsMargins(24, 16, 24, 24)
        table.setVerticalSpacing(12)
        self.values = {name: self.add_row(table, name) for name in ("Session", "Events", "Session id", "Expires in")}
        table.addWidget(self.remaining, table.rowCount(), 0, 1, 2)
        self.history = QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignTop)
        self.history.setMinimumHeight(165)
        table.addWidget(self.history, table.rowCount(), 0, 1, 2)
        track, new_session = QPushButton("Track an event"), QPushButton("New session")
        track.setDefault(True)  # so that the Return key activates it
        track.clicked.connect(self.track)
        new_session.clicked.connect(session.start_new_session)
        row = table.rowCount()
        table.addWidget(track, row, 0)
        table.addWidget(new_session, row, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.state)
        layout.addLayout(table)
        refresh_timer = QTimer(self)
        refresh_timer.timeout.connect(self.refresh)
        refresh_timer.start(250)
        self.refresh()

    def add_row(self, table: QGridLayout, name: str) -> QLabel:
        """Add a row to the table and return its value label."""
        caption, value = QLabel(name), QLabel()
        caption.setObjectName("caption")
        value.setObjectName("value")
        row = table.rowCount()
        table.addWidget(caption, row, 0)
        table.addWidget(value, row, 1, Qt.AlignmentFlag.AlignRight)
        return value

    def track(self) -> None:
        """Track an event. A real program would pass the entity to its tracker."""
        print(self.session.get_session_context(uuid.uuid4()).to_json(), flush=True)

    def report_focus(self, state: Qt.ApplicationState) -> None:
        """Report to the session whether any window of the program, including its dialogs, has focus."""
        self.session.set_background(state != Qt.ApplicationState.ApplicationActive)

    def refresh(self) -> None:
        """Show the current values, four times a second. Reading never extends a session."""
        session = self.session
        timeout = session.background_timeout if session.background else session.foreground_timeout
        expires_in = session.expires_in
        name, banner, text = STATES[session.state]
        self.state.setText(name)
        self.state.setStyleSheet(BANNER.format(banner=banner, text=text))
        self.values["Session"].setText(str(session.session_index or "pending"))
        self.values["Events"].setText(str(session.event_index))
        self.values["Session id"].setText(session.session_id[:8])
        self.values["Expires in"].setText("never" if expires_in is None else f"{expires_in:.0f} s")
        self.remaining.setStyleSheet(BAR.format(banner=banner, text=text))
        self.remaining.setRange(0, round(timeout * 10))
        self.remaining.setValue(round((expires_in or 0) * 10))
        self.history.setText(describe(session))


def describe(session: ClientSession) -> str:
    """Return the last decisions about the session, one per line."""
    return "\n".join(f"{each.at.astimezone():%H:%M:%S}  {'; '.join(each.clauses)}" for each in session.explain()[-3:])


def show_change(before: SessionState, input_: Input, after: SessionState) -> None:
    """Print a state change."""
    print(f"{input_.value}: {STATES[before][0]} -> {STATES[after][0]}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program until its window is closed or Ctrl-C is pressed."""
    parser = argparse.ArgumentParser(description="A session that follows the focus of a Qt window.")
    parser.add_argument("save_path", nargs="?", default=default_save_path("client-session-qt"))
    parser.add_argument("--background-timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--check-interval", type=float, default=15, metavar="SECONDS")
    options = parser.parse_args(arguments)
    app = QApplication()
    signal.signal(signal.SIGINT, lambda _signal, _frame: app.quit())  # runs when the window refreshes
    with ClientSession(
        **vars(options),
        scheduler=QtScheduler(app),
        extend_on_focus_change=True,  # the user switches windows, so this is activity, even without a tracked event
        on_state_change=show_change,
    ) as session:
        window = Window(session)
        app.applicationStateChanged.connect(window.report_focus)
        window.show()
        app.exec()


if __name__ == "__main__":
    main()
