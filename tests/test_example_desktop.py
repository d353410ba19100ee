"""The desktop examples, in real windows on a virtual display, with xdotool moving the focus."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from client_session_persistence import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    Start = Callable[..., "Program"]

EXAMPLES = Path(__file__).parents[1] / "examples"
WAIT_SECONDS = 60.0
"""Seconds to wait for a result before a test fails. Generous, because the machine may be busy."""

missing_programs = [program for program in ("Xvfb", "openbox", "xdotool") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(
    bool(missing_programs), reason=f"needs {', '.join(missing_programs)} to move the focus of real windows"
)

IMPORTS = {
    "tk": "import tkinter",
    "qt": """
import ctypes, pathlib, PySide6.QtWidgets
plugin = pathlib.Path(PySide6.__file__).parent / "Qt/plugins/platforms/libqxcb.so"
ctypes.CDLL(str(plugin))
""",
}
"""Code that raises an error if a toolkit cannot be loaded."""

TITLES = {"tk": "A session in tkinter", "qt": "A session in Qt"}

FORBID_THREADS = """
import runpy, sys, threading
def refuse(thread):
    raise AssertionError("a thread was started")
threading.Thread.start = refuse
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Code that runs a program in such a way that starting a thread raises an error."""

# One program per toolkit. F2 opens a dialog, and half a second later the program prints "open".
WITH_DIALOG = {
    "tk": """
import sys, tkinter as tk
from tkinter import messagebox
from client_session import ClientSession
from tk_app import TkScheduler, Window, show_change

def ask(event):
    root.after(500, print, "open", None)
    messagebox.showinfo("A dialog", "Tell me more?")
    root.after(500, print, "closed", None)

root = tk.Tk()
root.bind("<F2>", ask)
with ClientSession(sys.argv[1], scheduler=TkScheduler(root), on_state_change=show_change) as session:
    Window(root, session)
    root.mainloop()
""",
    "qt": """
import sys
from PySide6.QtCore import QTimer
from PySide6.QtGui import QShortcut
from PySide6.QtWidgets import QApplication, QMessageBox
from client_session import ClientSession
from qt_app import QtScheduler, Window, show_change

def ask():
    QTimer.singleShot(500, lambda: print("open", None))
    QMessageBox.information(window, "A dialog", "Tell me more?")
    QTimer.singleShot(500, lambda: print("closed", None))

app = QApplication()
with ClientSession(sys.argv[1], scheduler=QtScheduler(app), on_state_change=show_change) as session:
    window = Window(session)
    QShortcut("F2", window, ask)
    app.applicationStateChanged.connect(window.report_focus)
    window.show()
    app.exec()
""",
}

SHOWN = {
    "tk": """
import sys, uuid, tkinter as tk
from client_session import ClientSession
from tk_app import TkScheduler, Window

root = tk.Tk()
with ClientSession(sys.argv[1], scheduler=TkScheduler(root)) as session:
    window = Window(root, session)
    for _ in range(2):
        session.get_session_context(uuid.uuid4())
    window.refresh()
    for label in (window.state, window.values["Session"], window.values["Events"]):
        print(label["text"])
    print(window.history["text"].split("  ")[-1])
print("done")
""",
    "qt": """
import sys, uuid
from PySide6.QtWidgets import QApplication
from client_session import ClientSession
from qt_app import QtScheduler, Window

app = QApplication()
with ClientSession(sys.argv[1], scheduler=QtScheduler(app)) as session:
    window = Window(session)
    for _ in range(2):
        session.get_session_context(uuid.uuid4())
    window.refresh()
    for label in (window.state, window.values["Session"], window.values["Events"]):
        print(label.text())
    print(window.history.text().split("  ")[-1])
print("done")
""",
}
"""Code that prints what the window shows after two events."""

SCHEDULER = {
    "tk": """
import tkinter as tk
from tk_app import TkScheduler
root = tk.Tk()
scheduler = TkScheduler(root)
def run(seconds):
    root.after(round(seconds * 1000), root.quit)
    root.mainloop()
""",
    "qt": """
from PySide6.QtCore import QCoreApplication, QTimer
from qt_app import QtScheduler
app = QCoreApplication()
scheduler = QtScheduler(app)
def run(seconds):
    QTimer.singleShot(round(seconds * 1000), app.quit)
    app.exec()
""",
}
CHECK_SCHEDULER = """
import gc, weakref
from client_session import ClientSession
from client_session_persistence import MemoryStore

class CountingSession(ClientSession):
    __slots__ = ()
    def tick(self):
        ticks.append(self.state)
        super().tick()

ticks = []
session = CountingSession(store=MemoryStore(), check_interval=3600, scheduler=scheduler)
run(0.2)
print("ticks at a one-hour interval:", len(ticks))
session.check_interval = 0.02
run(1)
print("several ticks at 0.02 s:", len(ticks) >= 3)
session.stop_checker()
ticks.clear()
run(0.2)
print("ticks while stopped:", len(ticks))
session.start_checker()
run(1)
print("several ticks after a restart:", len(ticks) >= 3)
reference = weakref.ref(session)
del session
gc.collect()
print("dropped session:", reference())
ticks.clear()
run(0.2)
print("ticks after the session was dropped:", len(ticks))
"""

CHECK_OTHER_THREAD = """
import threading
from client_session import ClientSession
from client_session_persistence import MemoryStore

class RecordingSession(ClientSession):
    __slots__ = ()
    def tick(self):
        thread_names.append(threading.current_thread().name)
        super().tick()

def run_on_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

thread_names = []
session = RecordingSession(store=MemoryStore(), check_interval=0.02, scheduler=scheduler)
session.stop_checker()
run(0.1)
thread_names.clear()
run_on_thread(session.start_checker)
run(1)
print("started")
print(set(thread_names))
run_on_thread(session.stop_checker)
run(0.1)
thread_names.clear()
run(0.2)
print("ticks while stopped:", len(thread_names))
"""


@attrs.frozen
class Program:
    """A running program, its lines of output, and the simulated user at its display."""

    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[str]
    user: User

    def line(self) -> str:
        """Wait for the next line of output."""
        return self.lines.get(timeout=WAIT_SECONDS)


@attrs.frozen
class User:
    """A user at a display, simulated with xdotool."""

    environment: dict[str, str]

    def xdotool(self, *command: str) -> str:
        """Run an xdotool command and return its output."""
        result = subprocess.run(  # noqa: S603  # fixed arguments
            ["xdotool", *command],  # noqa: S607  # found on the path
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT_SECONDS,
        )
        return result.stdout

    def find_window(self, title: str) -> str:
        """Wait for a window and return its id."""
        return self.xdotool("search", "--sync", "--onlyvisible", "--name", f"^{title}$").split()[0]

    def switch_to(self, title: str) -> None:
        """Focus a window."""
        self.xdotool("windowactivate", "--sync", self.find_window(title))

    def click(self, title: str, button: str) -> None:
        """Click the left or right button at the bottom of a window."""
        window = self.find_window(title)
        geometry = dict(line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", window).splitlines())
        x = int(geometry["WIDTH"]) * (1 if button == "left" else 3) // 4
        y = int(geometry["HEIGHT"]) - 42
        self.xdotool("mousemove", "--window", window, str(x), str(y), "click", "1")

    def press(self, key: str) -> None:
        """Press a key in the focused window."""
        self.xdotool("key", key)


@pytest.fixture(scope="module", params=["tk", "qt"])
def toolkit(request: pytest.FixtureRequest) -> str:
    """Return the name of a toolkit, or skip the test if the toolkit cannot be loaded."""
    name: str = request.param
    loaded = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", IMPORTS[name]], capture_output=True, text=True, check=False, timeout=WAIT_SECONDS
    )
    if loaded.returncode != 0:
        pytest.skip(f"{name} cannot be loaded here: {loaded.stderr.strip().splitlines()[-1]}")
    return name


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Yield a user whose display has a window manager and another program's window, titled "tk"."""
    reading, writing = os.pipe()
    with subprocess.Popen(  # noqa: S603  # fixed arguments
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],  # noqa: S607
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            os.close(writing)
            with os.fdopen(reading) as pipe:
                environment = {**os.environ, "DISPLAY": f":{pipe.readline().strip()}"}
            # A window opened before the window manager is ready may never appear, so the manager starts the program.
            manager = ["openbox", "--startup", f"{sys.executable} -m tkinter"]
            with subprocess.Popen(manager, env=environment, stderr=subprocess.DEVNULL) as manager_process:  # noqa: S603  # ours
                try:
                    user = User(environment)
                    user.switch_to("tk")
                    yield user
                finally:
                    manager_process.kill()
        finally:
            server.kill()  # the other program exits when its display goes away


@pytest.fixture
def start(user: User) -> Iterator[Start]:
    """Yield a function that starts a program on the display."""
    started: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def run(*arguments: str | Path) -> Program:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter
            [sys.executable, "-u", *map(str, arguments)],
            env={**user.environment, "PYTHONPATH": str(EXAMPLES)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # so that a traceback appears as an unexpected line
            text=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=read, args=(process.stdout, lines))
        reader.start()
        started.append((process, reader))
        return Program(process, lines, user)

    yield run
    for process, reader in started:
        process.kill()
        process.wait()
        reader.join()


def read(output: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Put each line of the output into the queue."""
    with output:
        for line in output:
            lines.put(line.strip())


def test_session_follows_the_window_focus(toolkit: str, start: Start, save_path: Path) -> None:
    """Focus changes set the state, and the toolkit's timer ends the session without an extra thread."""
    program = start(
        "-c",
        FORBID_THREADS,
        EXAMPLES / f"{toolkit}_app.py",
        save_path,
        "--background-timeout",
        "1",
        "--check-interval",
        "0.1",
    )
    user = program.user
    user.switch_to(TITLES[toolkit])
    user.press("Return")
    first = json.loads(program.line())["data"]
    user.switch_to("tk")
    assert program.line() == "background: In the foreground -> In the background"
    assert program.line() == "tick: In the background -> Expired in the background"
    user.switch_to(TITLES[toolkit])
    assert program.line() == "foreground: Expired in the background -> In the foreground"
    for expected in (1, 2):
        user.press("Return")
        entity = json.loads(program.line())["data"]
        assert (entity["sessionIndex"], entity["eventIndex"]) == (2, expected)
        assert (entity["previousSessionId"], entity["userId"]) == (first["sessionId"], first["userId"])
    user.press("alt+F4")
    assert program.process.wait(WAIT_SECONDS) == 0
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (2, 2)


def test_buttons_track_events_and_begin_sessions(toolkit: str, start: Start, save_path: Path) -> None:
    """The left button tracks an event; the right button begins a new session."""
    program = start(EXAMPLES / f"{toolkit}_app.py", save_path)
    program.user.switch_to(TITLES[toolkit])
    indexes: list[tuple[int, int]] = []
    for button in ("left", "left", "right", "left"):
        program.user.click(TITLES[toolkit], button)
        if button == "left":
            entity = json.loads(program.line())["data"]
            indexes.append((entity["sessionIndex"], entity["eventIndex"]))
    assert indexes == [(1, 1), (1, 2), (2, 1)]


def test_ctrl_c_ends_the_program(toolkit: str, start: Start, save_path: Path) -> None:
    """SIGINT in the main loop ends the program without a traceback, and saves the session."""
    program = start(EXAMPLES / f"{toolkit}_app.py", save_path)
    program.user.switch_to(TITLES[toolkit])
    for _ in range(2):
        program.user.press("Return")
        program.line()
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(WAIT_SECONDS) == 0
    assert program.lines.empty()
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (1, 2)


def test_window_shows_the_session_in_words(toolkit: str, start: Start, save_path: Path) -> None:
    """The window names the state in words, counts the session's events, and explains what happened to it last."""
    program = start("-c", SHOWN[toolkit], save_path)
    assert [program.line() for _ in range(5)] == ["In the foreground", "1", "2", "session 1 begins", "done"]
    assert program.process.wait(WAIT_SECONDS) == 0


def test_dialog_keeps_the_session_in_the_foreground(toolkit: str, start: Start, save_path: Path) -> None:
    """The session stays in the foreground while the program's own dialog has focus and after the dialog closes."""
    program = start("-c", WITH_DIALOG[toolkit], save_path)
    user = program.user
    user.switch_to(TITLES[toolkit])
    user.press("F2")
    user.switch_to("A dialog")
    assert program.line() == "open None"
    user.press("Return")
    assert program.line() == "closed None"
    user.switch_to("tk")
    assert program.line() == "background: In the foreground -> In the background"


def test_scheduler_meets_its_contract(toolkit: str, start: Start) -> None:
    """The scheduler follows interval changes, stops and restarts, and does not keep a session alive."""
    program = start("-c", SCHEDULER[toolkit] + CHECK_SCHEDULER)
    assert [program.line() for _ in range(6)] == [
        "ticks at a one-hour interval: 0",
        "several ticks at 0.02 s: True",
        "ticks while stopped: 0",
        "several ticks after a restart: True",
        "dropped session: None",
        "ticks after the session was dropped: 0",
    ]
    assert program.process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("toolkit", ["qt"], indirect=True)
def test_qt_scheduler_accepts_calls_from_any_thread(toolkit: str, start: Start) -> None:
    """After another thread stops or starts checking, ticks still run on the application's main thread."""
    program = start("-c", SCHEDULER[toolkit] + CHECK_OTHER_THREAD)
    assert [program.line() for _ in range(3)] == ["started", "{'MainThread'}", "ticks while stopped: 0"]
    assert program.process.wait(WAIT_SECONDS) == 0
