"""A tkinter desktop program. The session follows the program's focus. Tk's timer triggers its ticks without a thread.

    python examples/tk_app.py [SAVE_PATH]

Track events, then switch to another window and back. The window shows the session and what happened to it last; the
program prints each entity and each state change. Close the window or press Ctrl-C in the terminal to quit.
"""

from __future__ import annotations

import argparse
import signal
import tkinter as tk
import uuid
import weakref
from tkinter import ttk
from typing import TYPE_CHECKING

from client_session import ClientSession, Input, SessionState, default_save_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_session.ticking.scheduler import Ticking

BACKGROUND, TEXT, MUTED = "#ffffff", "#24292f", "#6e7781"
STATES = {
    SessionState.FOREGROUND_ACTIVE: ("In the foreground", "#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("In the background", "#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("Expired in the background", "#f6e3d7", "#a4501c"),
}
"""The name of each state, and the banner and text colors, as in the diagrams."""


class TkScheduler:
    """Ticks sessions from Tk's timer. Use it and its sessions only on the main loop's thread, like the rest of Tk."""

    def __init__(self, root: tk.Tk) -> None:
        """Use the timer of this root window."""
        self._root = root
        self._timers: weakref.WeakKeyDictionary[Ticking, str] = weakref.WeakKeyDictionary()

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # Tk's timer runs in real time
        """Start ticking at the session's current interval."""
        self.stop(session)
        self._tick_later(weakref.ref(session))

    def stop(self, session: Ticking) -> None:
        """Stop ticking."""
        if timer := self._timers.pop(session, None):
            self._root.after_cancel(timer)

    def _tick_later(self, reference: weakref.ref[Ticking]) -> None:
        if session := reference():
            self._timers[session] = self._root.after(round(session.check_interval * 1000), self._tick, reference)

    def _tick(self, reference: weakref.ref[Ticking]) -> None:
        self._tick_later(reference)  # reschedule before the tick, because the tick may stop the timer
        if session := reference():
            session.tick()


class Window:
    """Shows the session, reports focus changes to it, and tracks clicks."""

    def __init__(self, root: tk.Tk, session: ClientSession) -> None:
        """Fill the root window."""
        self.root, self.session = root, session
        root.title("A session in tkinter")
        root.configure(background=BACKGROUND)
        root.resizable(width=False, height=False)
        self.state = tk.Label(root, font="-size 15 -weight bold", width=26, pady=16)
        self.state.grid(columnspan=2, sticky="ew", pady=(0, 8))
        self.values = {name: self.add_row(name) for name in ("Session", "Events", "Session id", "Expires in")}
        self.bar = tk.Frame(root, height=6)
        self.bar.grid(columnspan=2, sticky="ew", padx=24, pady=16)
        self.remaining = tk.Frame(self.bar)
        self.history = tk.Label(root, background=BACKGROUND, foreground=TEXT, font="-size 10")
        self.history.configure(width=48, height=9, wraplength=400, justify="left", anchor="nw")
        self.history.grid(columnspan=2, sticky="w", padx=24)
        ttk.Style(root).theme_use("clam")
        ttk.Button(root, text="Track an event", command=self.track).grid(
            column=0, row=7, sticky="ew", padx=(24, 6), pady=(0, 24)
        )
        ttk.Button(root, text="New session", command=session.start_new_session).grid(
            column=1, row=7, sticky="ew", padx=(6, 24), pady=(0, 24)
        )
        root.columnconfigure((0, 1), weight=1, uniform="half")
        root.bind("<Return>", lambda _event: self.track())
        # Every widget and dialog sends focus events, so a <FocusOut> event does not mean that the program lost focus.
        root.bind_all("<FocusIn>", self.check_focus_soon)
        root.bind_all("<FocusOut>", self.check_focus_soon)
        root.protocol("WM_DELETE_WINDOW", root.quit)  # the root must outlive the session, which uses its timer
        self.refresh()

    def add_row(self, name: str) -> tk.Label:
        """Add a row to the table and return its value label."""
        caption = tk.Label(self.root, text=name, background=BACKGROUND, foreground=MUTED, font="-size 11")
        caption.grid(column=0, sticky="w", padx=24, pady=(8, 0))
        value = tk.Label(self.root, background=BACKGROUND, foreground=TEXT, font="-size 11 -weight bold")
        value.grid(column=1, row=caption.grid_info()["row"], sticky="e", padx=24, pady=(8, 0))
        return value

    def track(self) -> None:
        """Track an event. A real program would pass the entity to its tracker."""
        print(self.session.get_session_context(uuid.uuid4()).to_json(), flush=True)

    def check_focus_soon(self, _event: object) -> None:
        """Check the focus a moment later: while focus moves between two of our windows, neither window has focus."""
        self.root.after(50, self.check_focus)

    def check_focus(self) -> None:
        """Report to the session whether any window of the program has focus."""
        focused = self.root.tk.call("focus")  # root.focus_get() does not know about dialogs that Tcl creates
        self.session.set_background(not focused)

    def refresh(self) -> None:
        """Show the current values, four times a second. Reading never extends a session."""
        session = self.session
        timeout = session.background_timeout if session.background else session.foreground_timeout
        expires_in = session.expires_in
        name, banner, text = STATES[session.state]
        self.state.configure(text=name, background=banner, foreground=text)
        self.values["Session"].configure(text=session.session_index or "pending")
        self.values["Events"].configure(text=session.event_index)
        self.values["Session id"].configure(text=session.session_id[:8])
        self.values["Expires in"].configure(text="never" if expires_in is None else f"{expires_in:.0f} s")
        self.bar.configure(background=banner)
        self.remaining.configure(background=text)
        self.remaining.place(relheight=1, relwidth=(expires_in or 0) / timeout)
        self.history.configure(text=describe(session))
        self.root.after(250, self.refresh)


def describe(session: ClientSession) -> str:
    """Return the last decisions about the session, one per line."""
    return "\n".join(f"{each.at.astimezone():%H:%M:%S}  {'; '.join(each.clauses)}" for each in session.explain()[-3:])


def show_change(before: SessionState, input_: Input, after: SessionState) -> None:
    """Print a state change."""
    print(f"{input_.value}: {STATES[before][0]} -> {STATES[after][0]}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program until its window is closed or Ctrl-C is pressed."""
    parser = argparse.ArgumentParser(description="A session that follows the focus of a tkinter window.")
    parser.add_argument("save_path", nargs="?", default=default_save_path("client-session-tk"))
    parser.add_argument("--background-timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--check-interval", type=float, default=15, metavar="SECONDS")
    options = parser.parse_args(arguments)
    root = tk.Tk(className="TkApp")
    signal.signal(signal.SIGINT, lambda _signal, _frame: root.quit())  # runs when the window refreshes
    with ClientSession(
        **vars(options),
        scheduler=TkScheduler(root),
        extend_on_focus_change=True,  # the user switches windows, so this is activity, even without a tracked event
        on_state_change=show_change,
    ) as session:
        Window(root, session)
        root.mainloop()


if __name__ == "__main__":
    main()
