"""The desktop examples: real windows on a display of the test's own, whose focus xdotool moves."""

from __future__ import annotations

import json
import os
import queue
import shutil
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
SECONDS = 60.0
"""How long anything is waited for before it counts as missing: ample, since the machine may be busy."""

missing = [program for program in ("Xvfb", "openbox", "xdotool") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} to move the focus of real windows")

LOADS = {
    "tk": "import tkinter",
    "qt": """
import ctypes, pathlib, PySide6.QtWidgets
plugin = pathlib.Path(PySide6.__file__).parent / "Qt/plugins/platforms/libqxcb.so"
ctypes.CDLL(str(plugin))
""",
}
"""What must be possible for a toolkit to open a window."""

TITLES = {"tk": "A session in tkinter", "qt": "A session in Qt"}

NO_THREAD = """
import runpy, sys, threading
def refuse(thread):
    raise AssertionError("a thread was started")
threading.Thread.start = refuse
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program that may start no thread."""

# Each example's window in a program that opens a dialog with F2, and says after half a second that it is open.
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
USE_SCHEDULER = """
import gc, weakref
from client_session import ClientSession
from client_session_persistence import MemoryStore

class Counted(ClientSession):
    __slots__ = ()
    def tick(self):
        ticks.append(self.state)
        super().tick()

ticks = []
session = Counted(store=MemoryStore(), check_interval=3600, scheduler=scheduler)
run(0.2)
print("at an interval of an hour", len(ticks))
session.check_interval = 0.02
run(1)
print("then of 0.02 s, many", len(ticks) >= 3)
session.stop_checker()
ticks.clear()
run(0.2)
print("stopped", len(ticks))
session.start_checker()
run(1)
print("started again, many", len(ticks) >= 3)
reference = weakref.ref(session)
del session
gc.collect()
print("dropped", reference())
ticks.clear()
run(0.2)
print("of the dropped one", len(ticks))
"""

USE_ON_THREAD = """
import threading
from client_session import ClientSession
from client_session_persistence import MemoryStore

class Named(ClientSession):
    __slots__ = ()
    def tick(self):
        tickers.append(threading.current_thread().name)
        super().tick()

def on_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

tickers = []
session = Named(store=MemoryStore(), check_interval=0.02, scheduler=scheduler)
session.stop_checker()
run(0.1)
tickers.clear()
on_a_thread(session.start_checker)
run(1)
print("started")
print(set(tickers))
on_a_thread(session.stop_checker)
run(0.1)
tickers.clear()
run(0.2)
print("stopped", len(tickers))
"""


@attrs.frozen
class Program:
    """A running program, its lines as they come, and the hand of its user."""

    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[str]
    user: User

    def line(self) -> str:
        """Wait for the next line that it prints."""
        return self.lines.get(timeout=SECONDS)


@attrs.frozen
class User:
    """What a user does on a display."""

    environment: dict[str, str]

    def do(self, *command: str) -> str:
        """Let xdotool do something."""
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["xdotool", *command],  # noqa: S607  # wherever the system has it
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        return done.stdout

    def window(self, title: str) -> str:
        """Wait for a window, and return its id."""
        return self.do("search", "--sync", "--onlyvisible", "--name", f"^{title}$").split()[0]

    def switch_to(self, title: str) -> None:
        """Give a window the focus."""
        self.do("windowactivate", "--sync", self.window(title))

    def click(self, title: str, button: str) -> None:
        """Click on the left or the right one of the two buttons at the bottom of a window."""
        window = self.window(title)
        geometry = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", window).splitlines())
        x = int(geometry["WIDTH"]) * (1 if button == "left" else 3) // 4
        y = int(geometry["HEIGHT"]) - 42
        self.do("mousemove", "--window", window, str(x), str(y), "click", "1")

    def press(self, key: str) -> None:
        """Press a key, for the window that has the focus."""
        self.do("key", key)


@pytest.fixture(scope="module", params=["tk", "qt"])
def toolkit(request: pytest.FixtureRequest) -> str:
    """Return a toolkit that is installed, with the libraries that it needs."""
    name: str = request.param
    loaded = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", LOADS[name]], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if loaded.returncode != 0:
        pytest.skip(f"{name} cannot be loaded here: {loaded.stderr.strip().splitlines()[-1]}")
    return name


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Return the user of a display with a window manager and another program's window, titled "tk"."""
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
            # A window that opens while the manager starts may never be shown: let it open the window when it is ready.
            manager = ["openbox", "--startup", f"{sys.executable} -m tkinter"]
            with subprocess.Popen(manager, env=environment, stderr=subprocess.DEVNULL) as running:  # noqa: S603  # ours
                try:
                    user = User(environment)
                    user.switch_to("tk")
                    yield user
                finally:
                    running.kill()
        finally:
            server.kill()  # and the other program loses its display


@pytest.fixture
def start(user: User) -> Iterator[Start]:
    """Return what starts a program on the display."""
    started: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def run(*arguments: str | Path) -> Program:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter
            [sys.executable, "-u", *map(str, arguments)],
            env={**user.environment, "PYTHONPATH": str(EXAMPLES)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # a traceback is a line that is not expected
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
    """Put each line of the output into the queue, until there are no more."""
    with output:
        for line in output:
            lines.put(line.strip())


def test_the_session_follows_the_focus(toolkit: str, start: Start, save_path: Path) -> None:
    """Focus lost: background; the toolkit's timer ends the session; focus won: foreground. No thread is started."""
    program = start(
        "-c",
        NO_THREAD,
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
    assert program.line() == "foreground-active --background--> background-active"
    assert program.line() == "background-active --tick--> expired-checker-stopped"
    user.switch_to(TITLES[toolkit])
    assert program.line() == "expired-checker-stopped --foreground--> foreground-active"
    for expected in (1, 2):
        user.press("Return")
        entity = json.loads(program.line())["data"]
        assert (entity["sessionIndex"], entity["eventIndex"]) == (2, expected)
        assert (entity["previousSessionId"], entity["userId"]) == (first["sessionId"], first["userId"])
    user.press("alt+F4")
    assert program.process.wait(SECONDS) == 0
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (2, 2)


def test_the_buttons_do_what_they_say(toolkit: str, start: Start, save_path: Path) -> None:
    """A click on the left one tracks an event, on the right one begins a new session."""
    program = start(EXAMPLES / f"{toolkit}_app.py", save_path)
    program.user.switch_to(TITLES[toolkit])
    indexes: list[tuple[int, int]] = []
    for button in ("left", "left", "right", "left"):
        program.user.click(TITLES[toolkit], button)
        if button == "left":
            entity = json.loads(program.line())["data"]
            indexes.append((entity["sessionIndex"], entity["eventIndex"]))
    assert indexes == [(1, 1), (1, 2), (2, 1)]


def test_a_dialog_is_no_loss_of_focus(toolkit: str, start: Start, save_path: Path) -> None:
    """While the program's own dialog has the focus, and when it closes, the session stays in the foreground."""
    program = start("-c", WITH_DIALOG[toolkit], save_path)
    user = program.user
    user.switch_to(TITLES[toolkit])
    user.press("F2")
    user.switch_to("A dialog")
    assert program.line() == "open None"
    user.press("Return")
    assert program.line() == "closed None"
    user.switch_to("tk")
    assert program.line() == "foreground-active --background--> background-active"


def test_the_scheduler_keeps_its_contract(toolkit: str, start: Start) -> None:
    """It ticks at the interval of the moment, stops and starts, and keeps no session alive."""
    program = start("-c", SCHEDULER[toolkit] + USE_SCHEDULER)
    assert [program.line() for _ in range(6)] == [
        "at an interval of an hour 0",
        "then of 0.02 s, many True",
        "stopped 0",
        "started again, many True",
        "dropped None",
        "of the dropped one 0",
    ]
    assert program.process.wait(SECONDS) == 0


@pytest.mark.parametrize("toolkit", ["qt"], indirect=True)
def test_qts_scheduler_hears_of_any_thread(toolkit: str, start: Start) -> None:
    """Ticks that another thread stops and starts come from the application's own, as before."""
    program = start("-c", SCHEDULER[toolkit] + USE_ON_THREAD)
    assert [program.line() for _ in range(3)] == ["started", "{'MainThread'}", "stopped 0"]
    assert program.process.wait(SECONDS) == 0
