"""Programs that call every method of a session in each place that runs while the interpreter exits."""

from __future__ import annotations

METHODS: dict[str, str] = {
    "forget_user": "session.forget_user()",
    "get_session_context": "session.get_session_context(new_id())",
    "get_session_context(extend=False)": "session.get_session_context(new_id(), extend=False)",
    "set_background": "session.set_background(not session.background)",
    "tick": "session.tick()",
    "touch": "session.touch()",
    "start_new_session": "session.start_new_session()",
    "start_checker": "session.start_checker()",
    "stop_checker": "session.stop_checker()",
    "save": "session.save()",
    "check_interval": "session.check_interval = 0.002",
    "foreground_timeout": "session.foreground_timeout = 500",
    "max_duration": "session.max_duration = 3600",
    "explain": "str(session.explain())",
    "expires_in": "session.expires_in",
    "close": "session.close()",
}
"""Maps each method or property to a statement that uses it; the last one closes the session."""

_LAST = """
class Last:
    def __del__(self, call=call):
        call()
"""

PLACES: dict[str, str] = {
    "in __del__": f"{_LAST}last = Last()",
    "in __del__ of a cycle": f"{_LAST}last = Last(); last.cycle = last",
    "in __del__ of an object that outlives its module": f"{_LAST}import builtins; builtins.last = Last()",
    "in a weak reference's callback": (
        "import weakref\nclass Last: pass\nlast = Last()\nreference = weakref.ref(last, lambda _, call=call: call())"
    ),
    "in an atexit handler": "atexit.register(call)",
    "in an atexit handler registered first": "first.append(call)",
    "in a daemon thread": (
        "started = threading.Event()\n"
        "def work():\n"
        "    while True:\n"
        "        with contextlib.suppress(SessionClosedError):\n"
        "            call()\n"
        "        started.set()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "started.wait()"
    ),
    "in a signal handler": (
        "import signal\n"
        "signal.signal(signal.SIGINT, lambda *_: call())\n"
        "atexit.register(signal.raise_signal, signal.SIGINT)"
    ),
}
"""Maps each place to the code that makes the interpreter run ``call()`` there."""


def exit_program(place: str, statements: list[str], store: str) -> str:
    """Return a program that tracks an event, then executes the statements in a place that runs as it exits.

    The program expects the save file's path as its argument. ``store`` is the expression that opens the store.
    """
    body = "".join(f"\n    {statement}" for statement in statements)
    return f"""
import atexit, sys
first = []
atexit.register(lambda: [call() for call in first])
import contextlib, threading, uuid
from client_session import ClientSession, MemoryStore, SessionClosedError, XmlStore
session = ClientSession(store={store}, check_interval=0.001)
session.get_session_context(uuid.uuid4())
def call(session=session, new_id=uuid.uuid4):{body}
{PLACES[place]}
"""
