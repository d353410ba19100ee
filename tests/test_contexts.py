"""Exits and finalizers: an exception from outside neither prevents them nor gets lost in them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from client_session_persistence.contexts import SafeContext
from client_session_persistence.lock_file import LockFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType


def drop(objects: list[Any]) -> list[str]:
    """Empty a list, and return the names of the Python functions that the objects' finalizers have called."""
    called: list[str] = []

    def record(frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401  # sys.setprofile's signature
        if event == "call":
            called.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        objects.clear()
    finally:
        sys.setprofile(before)
    return called


def test_exit_function_that_completes_runs_once() -> None:
    """After the block, no Python code runs that could swallow an exception from outside."""
    left: list[bool] = []
    contexts = [SafeContext(lambda: None, lambda: left.append(True))]
    with contexts[0]:
        pass
    assert drop(contexts) == []
    assert left == [True]


def test_interrupted_exit_function_runs_again() -> None:
    """If an exception from outside interrupts the exit function, the function has run again when the caller gets it."""
    calls: list[int] = []

    def leave() -> None:
        calls.append(len(calls))
        if calls == [0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), SafeContext(lambda: None, leave):
        pass
    assert calls == [0, 1]


@pytest.mark.parametrize("is_locked", [False, True])
def test_dropped_lock_file_is_closed(tmp_path: Path, *, is_locked: bool) -> None:
    """A lock file that is dropped while locked is unlocked; otherwise, dropping it runs no Python code."""
    path = os.fspath(tmp_path / "session.xml.lock")
    files = [LockFile(path)]
    files[0].lock(lambda: 0.0)
    if not is_locked:
        files[0].unlock()
    assert bool(drop(files)) is is_locked
    LockFile(path).lock(lambda: 0.0)
