"""A child process at whose system calls something happens, by Debian's ``strace``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import attrs

from torture.fault import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

PATIENCE = 60.0
"""Seconds until a child counts as hanging."""

_GO, _ASK = signal.SIGUSR1, signal.SIGUSR2
_CALL = re.compile(r"(\w+)\((.*)")

# What waits for strace, and what depends on the memory that is at hand, and so varies.
_IGNORED = {
    "rt_sigtimedwait", "restart_syscall", "kill", "getppid",
    "brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
}  # fmt: skip


@attrs.frozen
class Call:
    """One system call of a child: its name, which one of that name it was, and the rest of its line."""

    name: str
    number: int
    rest: str


@attrs.frozen
class Ending:
    """How a child ended: its exit status or minus its signal, what it returned, and whether anything was injected."""

    status: int
    returned: list[str]
    calls: tuple[Call, ...]
    injected: int


def run_traced(
    work: Callable[[AbstractContextManager[None]], list[str]], trace: Path, expression: str = "trace=all"
) -> Ending:
    """Fork a child that does the work, with ``strace -e expression`` on what it does inside the context it is given.

    The caller has no thread. Outside of that context the child's system calls are its own; what the work returns,
    comes back.

    Raises:
        CannotRunError: there is no strace, or it may not trace.

    """
    if shutil.which("strace") is None:
        msg = "needs strace (apt-get install strace)"
        raise CannotRunError(msg)
    signal.pthread_sigmask(signal.SIG_BLOCK, {_GO, _ASK, signal.SIGCHLD})
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _live(work, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as report:
        status = _wait(child)
        if status is None:
            with _strace(child, trace, expression):
                os.kill(child, _GO)
                status = _wait(child)
            if status is None:
                os.kill(child, _GO)
                status = _wait(child)
        returned = report.read()
    text = trace.read_text(encoding="utf-8", errors="replace")
    return Ending(
        os.waitstatus_to_exitcode(status or 0),
        json.loads(returned) if returned else [],
        tuple(_calls(text)),
        text.count("(INJECTED)"),
    )


@contextlib.contextmanager
def _strace(child: int, trace: Path, expression: str) -> Generator[None]:
    command = ["strace", "-p", str(child), "-o", str(trace), "-e", expression]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:  # noqa: S603  # our own arguments
        said = strace.stderr.readline() if strace.stderr else ""
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            msg = f"strace may not trace here: {said.strip()}"
            raise CannotRunError(msg)
        yield
        strace.terminate()


def _live(work: Callable[[AbstractContextManager[None]], list[str]], writer: int) -> None:
    status = 1
    try:
        returned = work(_traced())
        os.write(writer, json.dumps(returned).encode())
        status = 0
    except BaseException:  # noqa: BLE001  # nothing may get out into the parent's program
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


@contextlib.contextmanager
def _traced() -> Generator[None]:
    """Ask the parent for strace, and wait until it has come; at the end ask to be rid of it, and wait for that."""
    os.kill(os.getppid(), _ASK)
    signal.sigwait({_GO})
    yield
    os.kill(os.getppid(), _ASK)
    signal.sigwait({_GO})


def _wait(child: int) -> int | None:
    """Wait until the child has ended, and return its status, or until it asks for something (``None``)."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        got = signal.sigtimedwait({_ASK, signal.SIGCHLD}, PATIENCE)
        if got is None:
            os.kill(child, signal.SIGKILL)
        elif got.si_signo == _ASK:
            return None


def _calls(text: str) -> Generator[Call]:
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        match = _CALL.match(line)
        if match is None or match[1] in _IGNORED:
            continue
        name = match[1]
        numbers[name] = numbers.get(name, 0) + 1
        yield Call(name, numbers[name], match[2])
