"""Forks and interpreter exit: threads pause, hooks run in order, and progress is saved."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import XmlStore, loads
from client_session_persistence.forks import Stage
from event_ids import event_id

if TYPE_CHECKING:
    from pathlib import Path

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="os.fork() is not available")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc, which exists only on Linux")


def run(program: str, *arguments: object, options: tuple[str, ...] = ("-W", "error")) -> str:
    """Run a program in a new interpreter and return its output. Any output to stderr fails the test."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, *options, "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


BOTH_THREADS = """
    import os, sys, threading, uuid
    from pathlib import Path

    def threads():
        return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[17]

    # Before a fork, hooks run in reverse order of registration, so this one counts threads after our hooks have run.
    counts = []
    os.register_at_fork(before=lambda: counts.append(threads()))

    from client_session import ClientSession, XmlStore
    session = ClientSession(store=XmlStore(sys.argv[1], background=True), check_interval=0.01)
    session.get_session_context(uuid.uuid4())
    session.save()
    names = lambda: sorted(t.name for t in threading.enumerate() if t.name.startswith("client-session"))
    before = names()
"""


@needs_proc
def test_process_has_only_one_thread_when_it_forks(tmp_path: Path) -> None:
    """The checker and writer threads have ended by the time the process forks, and they restart afterwards."""
    program = f"""{BOTH_THREADS}
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    session.get_session_context(uuid.uuid4())
    session.save()
    print(*before, set(counts), *names())
    """
    threads = "client-session-checker client-session-writer"
    assert run(program, tmp_path / "session.xml") == f"{threads} {{'1'}} {threads}\n"


@needs_fork
@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="only Python 3.12 and newer warn about forking a multithreaded process"
)
def test_fork_causes_no_warning(tmp_path: Path) -> None:
    """With warnings turned into errors, both the parent and the child track events after a fork."""
    program = f"""{BOTH_THREADS}
    child = os.fork()
    status = os.waitpid(child, 0)[1] if child else 0  # one after the other, since they share the save file
    session.get_session_context(uuid.uuid4())
    session.save()
    if child:
        print(status, session.session_index, session.event_index)
    """
    assert run(program, tmp_path / "session.xml").splitlines()[-1] == "0 1 2"


@needs_fork
def test_only_the_parent_writes_queued_saves(tmp_path: Path) -> None:
    """Saves that are queued for the writer thread when the process forks are written once, by the parent."""
    program = """
    import os, sys, uuid
    from client_session import ClientSession, XmlStore
    sessions = [ClientSession(store=XmlStore(f"{sys.argv[1]}/{number}.xml", background=True)) for number in range(20)]
    for session in sessions:
        session.get_session_context(uuid.uuid4())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    print(len(sessions))
    """
    assert run(program, tmp_path) == "20\n"
    saved = [XmlStore(tmp_path / f"{number}.xml").load() for number in range(20)]
    assert [snapshot and (snapshot.session_index, snapshot.event_index) for snapshot in saved] == [(1, 1)] * 20


@pytest.mark.parametrize(
    ("last", "events"),
    [("", 3), ("sys.exit(0)", 3), ("os._exit(0)", 1), ("session.close()", 3)],
    ids=["end of the program", "sys.exit", "os._exit", "already closed"],
)
def test_progress_is_saved_at_exit(save_path: Path, last: str, events: int) -> None:
    """When the interpreter exits, a live session saves its progress but does not end, and callbacks do not run."""
    program = f"""
    import os, sys
    from client_session import ClientSession
    session = ClientSession(sys.argv[1], on_session_end=lambda _: print("ended"))
    for number in range(3):
        session.get_session_context("{event_id(1)}")
    {last}
    """
    assert run(program, save_path) == ("ended\n" if last == "session.close()" else "")
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (1, events)
    assert saved.last_activity is not None


def test_exit_stops_saving_at_its_deadline(tmp_path: Path) -> None:
    """If saves are slow, the interpreter waits for only one session's save before it exits, not for all saves."""
    program = """
    import sys, time, uuid
    from client_session import ClientSession, XmlStore
    from client_session_persistence import forks
    class SlowStore(XmlStore):
        def save(self, snapshot):
            if is_exiting:
                print(sys.argv[1])
                time.sleep(2 * forks.EXIT_SECONDS)
            return super().save(snapshot)
    is_exiting = False
    forks.EXIT_SECONDS = 0.2
    sessions = [ClientSession(store=SlowStore(f"{sys.argv[1]}/{number}.xml")) for number in range(3)]
    for session in sessions * 2:
        session.get_session_context(uuid.uuid4())
    is_exiting = True
    """
    assert run(program, tmp_path) == f"{tmp_path}\n"


def test_resumed_session_continues_after_an_exit_without_close(save_path: Path) -> None:
    """With continue_on_restart, event indexes continue from run to run, even if runs do not close their sessions."""
    program = f"""
    import sys
    from client_session import ClientSession
    session = ClientSession(sys.argv[1], continue_on_restart=True)
    print(*(session.get_session_context("{event_id(1)}").event_index for _ in range(3)))
    """
    assert [run(program, save_path) for _ in range(2)] == ["1 2 3\n", "4 5 6\n"]


@needs_fork
def test_child_renews_an_object_once() -> None:
    """If two threads in a forked child use an object at the same time, the object's locks are renewed only once."""
    program = """
    import os, threading, time
    from client_session_persistence.forks import THIS_PROCESS, ForkAware
    class Counted(ForkAware):
        renewals = 0
        def renew(self):
            self.renewals += 1
    counted = Counted()
    child = os.fork()
    if child == 0:
        thread = threading.Thread(target=counted.renew_in_child)
        with THIS_PROCESS.renewing:
            thread.start()
            time.sleep(0.1)  # lets the thread block; if it starts later, it finds the object already renewed
            counted.renew_in_child()
        thread.join()
        os._exit(counted.renewals != 2)
    print(counted.renewals, os.waitpid(child, 0)[1])
    """
    assert run(program) == "1 0\n"


def test_hooks_run_in_order() -> None:
    """Stages run in descending order before a fork and at exit, and in ascending order after a fork.

    The order of registration does not matter.
    """
    program = """
    import os
    from client_session_persistence.forks import Stage, register
    order = []
    for stage in (Stage.SESSIONS, Stage.PROCESS, Stage.LOOPS, Stage.THREADS, Stage.FILES):
        register(
            stage,
            before_fork=lambda until, stage=stage: order.append(stage.value),
            after_fork_in_parent=lambda stage=stage: order.append(stage.value),
            after_fork_in_child=lambda stage=stage: order.append(stage.value),
            at_exit=lambda until, stage=stage: print(stage.value, end=" "),
        )
    child = os.fork() if hasattr(os, "fork") else None
    if child == 0:
        os._exit(order != [4, 3, 2, 1, 0, 0, 1, 2, 3, 4])
    print(order, child and os.waitpid(child, 0)[1])
    """
    expected = "[4, 3, 2, 1, 0, 0, 1, 2, 3, 4] 0" if sys.platform != "win32" else "[] None"
    assert run(program) == f"{expected}\n4 3 2 1 0 "
    assert [stage.name for stage in Stage] == ["PROCESS", "FILES", "THREADS", "SESSIONS", "LOOPS"]


C_FORK = """
    import ctypes, json, os, sys, threading, time, uuid
    from client_session import ClientSession, MemoryStore, XmlStore
    from client_session.ticking.thread import SHARED_CHECKER
    from client_session_persistence.writer_thread import WRITER

    def fork():
        # No thread may be waiting for the GIL, or else CPython itself hangs in the child. The threads seem
        # to be running, as they usually are when C code forks.
        for thread in (SHARED_CHECKER, WRITER):
            thread.pause(time.monotonic() + 60)
            thread._threads[thread.name] = threading.Thread()
        child = ctypes.PyDLL(None).fork()
        if child:
            for thread in (SHARED_CHECKER, WRITER):
                thread._threads.clear()
                thread.resume()
        return child
"""
C_FORK_STORES = {
    "file": "XmlStore(sys.argv[1])",
    "background": "XmlStore(sys.argv[1], background=True)",
    "memory": "MemoryStore()",
}
FIRST_CALLS = {
    "get_session_context": "session.get_session_context(str(uuid.uuid4()))",
    "get_session_context with a UUID": "session.get_session_context(uuid.uuid4())",
    "set_background": "session.set_background(False)",
    "tick": "session.tick()",
    "touch": "session.touch()",
    "start_new_session": "session.start_new_session()",
    "start_checker": "session.start_checker()",
    "check_interval": "session.check_interval = 9",
    "foreground_timeout": "session.foreground_timeout = 500",
    "save": "session.save()",
    "session_id": "session.session_id",
    "event_index": "session.event_index",
    "expires_in": "session.expires_in",
    "explain": "session.explain()",
    "a lock of the store": "session._ledger._store.lock().__enter__",
    "os.fork": "os.fork() or os._exit(0)",
}


@needs_fork
@pytest.mark.parametrize("events", [0, 2], ids=["pending", "with events"])
@pytest.mark.parametrize("store", C_FORK_STORES)
def test_fork_in_c_is_noticed_by_the_first_call(store: str, events: int, save_path: Path) -> None:
    """A child that was forked without Python's fork hooks begins its own session, whichever call it makes first."""
    program = f"""{C_FORK}
    def track(call=""):
        context = session.get_session_context(uuid.uuid4())
        print(json.dumps([call, context.session_id, context.session_index, context.event_index]), flush=True)

    session = ClientSession(store={C_FORK_STORES[store]})
    for _ in range({events}):
        track()
    session.save()
    before = session.session_id
    for call, code in {FIRST_CALLS}.items():
        child = fork()
        if child == 0:
            exec(code)
            assert session.session_id != before
            track(call)
            session.save()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, call
        assert session.session_id == before
    track()
    """
    contexts = list(map(json.loads, run(program, save_path).splitlines()))
    parent = [context[1:] for context in contexts if not context[0]]
    children = {call: context for call, *context in contexts if call}
    assert children.keys() == FIRST_CALLS.keys()
    assert [event for _, _, event in parent] == list(range(1, events + 2))
    events_in_children = {call: event for call, (_, _, event) in children.items()}
    assert events_in_children == {call: 1 + call.startswith("get_session_context") for call in FIRST_CALLS}
    assert len({session for session, _, _ in (parent[0], *children.values())}) == 1 + len(FIRST_CALLS)
    if store != "memory":
        assert sorted({index for _, index, _ in (*parent, *children.values())}) == list(range(1, len(FIRST_CALLS) + 2))


@needs_fork
def test_threads_of_a_child_forked_in_c_share_its_session() -> None:
    """If several threads of the child make the first call at once, they all track events in one new session."""
    program = f"""{C_FORK}
    session = ClientSession(store=MemoryStore(), check_interval=0.01)
    session.get_session_context(uuid.uuid4())
    child = fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.setswitchinterval(1e-6)
    contexts, barrier = [], threading.Barrier(8)
    def track():
        barrier.wait()
        contexts.append(session.get_session_context(uuid.uuid4()))
    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len({{context.session_id for context in contexts}}), *sorted(context.event_index for context in contexts))
    """
    assert run(program) == "1 1 2 3 4 5 6 7 8\n"


@needs_fork
def test_checker_runs_in_a_child_forked_in_c() -> None:
    """After the first event, the child's session expires without another call, as in any other process."""
    program = f"""{C_FORK}
    ended = threading.Event()
    session = ClientSession(store=MemoryStore(), check_interval=0.01, on_session_end=lambda _: ended.set())
    child = fork()
    if child == 0:
        session.foreground_timeout = 0.05
        session.get_session_context(uuid.uuid4())
        os._exit(not ended.wait(20))
    print(os.waitpid(child, 0)[1])
    """
    assert run(program) == "0\n"


@needs_fork
def test_child_forked_in_c_does_not_save_its_parents_session_at_exit(save_path: Path) -> None:
    """A child that exits without any call to the session leaves the parent's progress alone."""
    program = f"""{C_FORK}
    session = ClientSession(sys.argv[1])
    session.get_session_context(uuid.uuid4())
    session.get_session_context(uuid.uuid4())
    child = fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    """
    assert run(program, save_path) == ""
    assert loads(save_path.read_bytes()).event_index == 1
