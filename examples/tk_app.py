"""A desktop program in tkinter: the session follows the focus, and Tk's own timer sends its ticks. No thread.

    python examples/tk_app.py [SAVE_PATH]

Track events, switch to another window and back. Each entity and each change of state is printed.
"""

from __future__ import annotations

import argparse
import tkinter as tk
import uuid
import weakref
from tkinter import ttk
from typing import TYPE_CHECKING

from client_session import ClientSession, Input, SessionState
from client_session_persistence import default_save_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_session.ticking.scheduler import Ticking

PAPER, INK, FAINT = "#ffffff", "#24292f", "#6e7781"
COLOURS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
"""Of each state, as in the diagrams: the banner and its text."""


class TkScheduler:
    """Sends ticks from Tk's timer. Like all of Tk, it and its sessions are for the thread of the main loop alone."""

    def __init__(self, root: tk.Tk) -> None:
        """Use this program's timer."""
        self._root = root
        self._timers: weakref.WeakKeyDictionary[Ticking, str] = weakref.WeakKeyDictionary()

    def start(self, session: Ticking, now: float) -> None:  # noqa: ARG002  # Tk runs on real time
        """Let ticks come, at the interval that the session has now."""
        self.stop(session)
        self._tick_later(weakref.ref(session))

    def stop(self, session: Ticking) -> None:
        """Let no more ticks come."""
        if timer := self._timers.pop(session, None):
            self._root.after_cancel(timer)

    def _tick_later(self, reference: weakref.ref[Ticking]) -> None:
        if session := reference():
            self._timers[session] = self._root.after(round(session.check_interval * 1000), self._tick, reference)

    def _tick(self, reference: weakref.ref[Ticking]) -> None:
        self._tick_later(reference)  # first, since the tick may stop it
        if session := reference():
            session.tick()


class Window:
    """Shows the session, tells it of the focus, and tracks what is clicked."""

    def __init__(self, root: tk.Tk, session: ClientSession) -> None:
        """Fill the root window."""
        self.root, self.session = root, session
        root.title("A session in tkinter")
        root.configure(background=PAPER)
        root.resizable(width=False, height=False)
        self.state = tk.Label(root, font="-size 15 -weight bold", width=26, pady=16)
        self.state.grid(columnspan=2, sticky="ew", pady=(0, 8))
        self.values = {name: self.add_row(name) for name in ("Session", "Events", "Session id", "Expires in")}
        self.bar = tk.Frame(root, height=6)
        self.bar.grid(columnspan=2, sticky="ew", padx=24, pady=16)
        self.left = tk.Frame(self.bar)
        ttk.Style(root).theme_use("clam")
        ttk.Button(root, text="Track an event", command=self.track).grid(
            column=0, row=6, sticky="ew", padx=(24, 6), pady=(0, 24)
        )
        ttk.Button(root, text="New session", command=session.start_new_session).grid(
            column=1, row=6, sticky="ew", padx=(6, 24), pady=(0, 24)
        )
        root.columnconfigure((0, 1), weight=1, uniform="half")
        root.bind("<Return>", lambda _event: self.track())
        # Focus events come for every widget and every dialog of the program: each is but a reason to look.
        root.bind_all("<FocusIn>", self.look_at_focus_soon)
        root.bind_all("<FocusOut>", self.look_at_focus_soon)
        root.protocol("WM_DELETE_WINDOW", root.quit)  # the root outlives the session, whose timer is its own
        self.refresh()

    def add_row(self, name: str) -> tk.Label:
        """Add a line of the table, and return the label of its value."""
        caption = tk.Label(self.root, text=name, background=PAPER, foreground=FAINT, font="-size 11")
        caption.grid(column=0, sticky="w", padx=24, pady=(8, 0))
        value = tk.Label(self.root, background=PAPER, foreground=INK, font="-size 11 -weight bold")
        value.grid(column=1, row=caption.grid_info()["row"], sticky="e", padx=24, pady=(8, 0))
        return value

    def track(self) -> None:
        """Track an event: a real program hands the entity to its tracker."""
        print(self.session.get_session_context(uuid.uuid4()).to_json(), flush=True)

    def look_at_focus_soon(self, _event: object) -> None:
        """Wait until the focus has arrived: between two windows of the program it is nowhere for a moment."""
        self.root.after(50, self.look_at_focus)

    def look_at_focus(self) -> None:
        """Tell the session whether any window of the program has the focus."""
        focused = self.root.tk.call("focus")  # root.focus_get() does not know the dialogs that Tcl makes
        self.session.set_background(not focused)

    def refresh(self) -> None:
        """Show how things stand, four times a second. Reading never extends a session."""
        session = self.session
        timeout = session.background_timeout if session.background else session.foreground_timeout
        expires_in = session.expires_in
        banner, text = COLOURS[session.state]
        self.state.configure(text=session.state.value, background=banner, foreground=text)
        self.values["Session"].configure(text=session.session_index or "pending")
        self.values["Events"].configure(text=session.event_index)
        self.values["Session id"].configure(text=session.session_id[:8])
        self.values["Expires in"].configure(text="never" if expires_in is None else f"{expires_in:.0f} s")
        self.bar.configure(background=banner)
        self.left.configure(background=text)
        self.left.place(relheight=1, relwidth=(expires_in or 0) / timeout)
        self.root.after(250, self.refresh)


def show_change(before: SessionState, given: Input, after: SessionState) -> None:
    """Print a change of state."""
    print(f"{before.value} --{given.value}--> {after.value}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program until its window is closed."""
    parser = argparse.ArgumentParser(description="A session that follows the focus of a tkinter window.")
    parser.add_argument("save_path", nargs="?", default=default_save_path("client-session-tk"))
    parser.add_argument("--background-timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--check-interval", type=float, default=15, metavar="SECONDS")
    options = parser.parse_args(arguments)
    root = tk.Tk(className="TkApp")
    with ClientSession(**vars(options), scheduler=TkScheduler(root), on_state_change=show_change) as session:
        Window(root, session)
        root.mainloop()


if __name__ == "__main__":
    main()
