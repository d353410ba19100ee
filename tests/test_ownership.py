"""Runs with continue_on_restart own the saved session in turn."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, XmlStore
from client_session_persistence import loads
from client_session_persistence.lock_file import OwnerLock
from event_ids import event_id

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeSession

SHORT_RUN = """
import sys, uuid
from client_session import ClientSession, XmlStore
sys.stdin.read(1)
store = XmlStore(sys.argv[1], background=sys.argv[2] == "background")
with ClientSession(store=store, continue_on_restart=True) as session:
    entity = session.get_session_context(uuid.uuid4())
    print(entity.session_index, entity.event_index, entity.session_id)
"""
LONG_RUN = """
import sys, uuid
from client_session import ClientSession
session = ClientSession(sys.argv[1], continue_on_restart=True)
print(session.get_session_context(uuid.uuid4()).session_id, flush=True)
sys.stdin.read(1)
session.close()
print(flush=True)
sys.stdin.read(1)
"""


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a program."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_until_owned_for_a_second(path: Path) -> None:
    """Wait until another process has owned the session for so long that a new run does not wait for it."""
    while OwnerLock(f"{path}.owner").own():
        pass
    assert not OwnerLock(f"{path}.owner").own()  # this waits for the rest of the second


@pytest.mark.parametrize("mode", ["synchronous", "background"])
def test_short_runs_take_turns(save_path: Path, mode: str) -> None:
    """Eight runs that start at once number their events from 1 to 8, in one session."""
    runs = [start(SHORT_RUN, save_path, mode) for _ in range(8)]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("x")
        run.stdin.flush()
    printed = [run.communicate(timeout=60)[0].split() for run in runs]
    assert sorted(int(event_index) for _, event_index, _ in printed) == list(range(1, 9))
    assert {index for index, _, _ in printed} == {"1"}
    assert len({session_id for _, _, session_id in printed}) == 1


def test_run_does_not_wait_for_a_long_run(make: MakeSession, save_path: Path) -> None:
    """While a run stays open, others begin separate sessions without waiting; later, the owner's session is resumed."""
    with start(LONG_RUN, save_path) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        owned_id = owner.stdout.readline().strip()
        wait_until_owned_for_a_second(save_path)
        began = time.monotonic()
        for number in (1, 2):
            with make(save_path=save_path, continue_on_restart=True) as separate:
                assert separate.get_session_context(event_id(number)).event_index == 1
                assert separate.session_index == number + 1
                assert separate.session_id != owned_id
        assert time.monotonic() - began < 0.9
        assert loads(save_path.read_bytes()).last_activity is None, "a separate session is never resumed"
        owner.communicate("xx", timeout=60)
    with make(save_path=save_path, continue_on_restart=True) as after:
        assert after.get_session_context(event_id(3)).event_index == 1
        assert after.session_index == 4


def test_killed_owner_is_followed_by_the_next_run(save_path: Path) -> None:
    """After the owner is killed, the next run continues its session without waiting."""
    with start(LONG_RUN, save_path) as owner:
        assert owner.stdout is not None
        owned_id = owner.stdout.readline().strip()
        owner.kill()
    with ClientSession(save_path, continue_on_restart=True) as session:
        assert session.get_session_context(event_id(1)).session_id == owned_id
        assert session.event_index == 2


def test_closed_or_dropped_session_is_not_owned(save_path: Path) -> None:
    """Closing a session lets another run own it, even in the same process; so does dropping it."""
    for event_index in (1, 2, 3, 4):
        session = ClientSession(save_path, continue_on_restart=True)
        assert session.get_session_context(event_id(1)).event_index == event_index
        session.save()
        if event_index % 2:
            session.close()
        del session
        gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_does_not_keep_the_session(save_path: Path) -> None:
    """A child neither owns nor releases its parent's session, and its own session is never resumed."""
    session = ClientSession(save_path, continue_on_restart=True)
    owned_id = session.get_session_context(event_id(1)).session_id
    from_child, to_parent = os.pipe()
    to_child = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_child[1])
        session.close()
        os.write(to_parent, b"0" if OwnerLock(f"{save_path}.owner").own() else b"1")
        os.read(to_child[0], 1)
        os._exit(0)
    assert os.read(from_child, 1) == b"1"
    session.close()
    with ClientSession(save_path, continue_on_restart=True) as after:
        assert after.session_id == owned_id
    os.close(to_child[1])
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (from_child, to_parent, to_child[0]):
        os.close(descriptor)


def test_unusable_folder_does_not_raise(tmp_path: Path) -> None:
    """If the lock file cannot be created, the session is a separate one, and nothing is raised."""
    (tmp_path / "file").touch()
    session = ClientSession(tmp_path / "file" / "session.xml", continue_on_restart=True)
    assert session.get_session_context(event_id(1)).event_index == 1
    assert isinstance(session.save_error, OSError)
    session.close()


class InterruptedStore(XmlStore):
    """A store whose first load is interrupted by an exception from outside."""

    def load(self, *, read_only: bool = False) -> None:  # noqa: ARG002
        """Raise an exception that is not an `Exception`."""
        raise KeyboardInterrupt


def test_interrupted_constructor_owns_nothing(save_path: Path) -> None:
    """If an exception from outside interrupts the constructor, the session is free, even while the exception exists."""
    with pytest.raises(KeyboardInterrupt) as caught:
        ClientSession(store=InterruptedStore(save_path), continue_on_restart=True)
    assert OwnerLock(f"{save_path}.owner").own()
    assert caught.value is not None
