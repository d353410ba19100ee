"""A program that embeds the library, for test_frozen.py. Usage: ``FOLDER``, or ``client-session`` and its arguments."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import uuid
from pathlib import Path

from client_session import ClientSession, MemoryStore, XmlStore, __version__, default_save_path
from client_session.__main__ import main


def track(path: Path) -> int | None:
    """Record an event in a new session, and return the session's index."""
    with ClientSession(path) as session:
        return session.get_session_context(uuid.uuid4()).session_index


def track_in_fork(session: ClientSession) -> int:
    """Record an event in a forked child, and return the index of the child's own session."""
    child = os.fork()
    if not child:
        os._exit(session.get_session_context(uuid.uuid4()).session_index or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def notify(entity: object) -> None:
    """Do nothing; sessions refuse coroutine functions as callbacks."""


def use_sessions(folder: Path) -> dict[str, object]:
    """Use sessions in each way that depends on how the program was built, and return what happened."""
    path = folder / "session.xml"
    with ClientSession(path) as session:
        first = session.get_session_context(uuid.uuid4()).session_index
        session.set_background(True)
        session.save()
        state, decisions = session.state, [decision.clauses for decision in session.explain()]
        in_fork = track_in_fork(session)
    store = XmlStore(path, background=True)
    with ClientSession(store=store) as session:
        in_background = session.get_session_context(uuid.uuid4()).session_index
        session.save()
    store.flush()
    with ClientSession(store=MemoryStore()) as session:
        in_memory = session.get_session_context(uuid.uuid4()).to_json()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        in_spawned_child = pool.apply(track, (path,))
    try:
        ClientSession(store=MemoryStore(), on_session_start=notify)
    except TypeError as error:
        refusal = str(error)
    return {
        "version": __version__,
        "default": str(default_save_path("my-app")),
        "state": state,
        "decisions": decisions,
        "indexes": [first, in_fork, in_background, in_spawned_child],
        "in memory": json.loads(in_memory),
        "refusal": refusal,
    }


if __name__ == "__main__":
    multiprocessing.freeze_support()
    if sys.argv[1] == "client-session":
        del sys.argv[1]
        main()
    else:
        folder = Path(sys.argv[1])
        print(json.dumps(use_sessions(folder)))  # noqa: T201  # the program's output
        session = ClientSession(folder / "open.xml")
        for _ in range(3):
            session.get_session_context(uuid.uuid4())  # saved at exit
