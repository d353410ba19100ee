"""Trace a child process with ``strace``, and inject errors or signals into its system calls."""

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

HANG_SECONDS = 60.0
"""The number of seconds after which a child is considered hung."""

_PROCEED, _REQUEST = signal.SIGUSR1, signal.SIGUSR2
_CALL = re.compile(r"(\w+)\((.*)")

# The child makes some of these calls while waiting for strace; the others vary with the available memory.
_IGNORED = {
    "rt_sigtimedwait", "restart_syscall", "kill", "getppid",
    "brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
}  # fmt: skip


@attrs.frozen
class Call:
    """One system call of a child: its name, its position among calls with that name, and the rest of its trace line."""

    name: str
    number: int
    rest: str


@attrs.frozen
class TracedRun:
    """The result of a traced child: exit status or negative signal number, return value, calls and injection count."""

    status: int
    returned: list[str]
    calls: tuple[Call, ...]
    injected: int


def run_traced(
    work: Callable[[AbstractContextManager[None]], list[str]], trace: Path, expression: str = "trace=all"
) -> TracedRun:
    """Fork a child that calls ``work``, and trace it with ``strace -e expression``.

    ``work`` receives a context manager; strace is attached only inside its block.
    The calling process must be single-threaded.

    Raises:
        CannotRunError: strace is missing or not allowed to trace.

    """
    if shutil.which("strace") is None:
        msg = "needs strace (apt-get install strace)"
        raise CannotRunError(msg)
    signal.pthread_sigmask(signal.SIG_BLOCK, {_PROCEED, _REQUEST, signal.SIGCHLD})
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _run_and_exit(work, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as report:
        status = _wait(child)
        if status is None:
            with _strace(child, trace, expression):
                os.kill(child, _PROCEED)
                status = _wait(child)
            if status is None:
                os.kill(child, _PROCEED)
                status = _wait(child)
        returned = report.read()
    text = trace.read_text(encoding="utf-8", errors="replace")
    return TracedRun(
        os.waitstatus_to_exitcode(status or 0),
        json.loads(returned) if returned else [],
        tuple(_parse_calls(text)),
        text.count("(INJECTED)"),
    )


@contextlib.contextmanager
def _strace(child: int, trace: Path, expression: str) -> Generator[None]:
    command = ["strace", "-p", str(child), "-o", str(trace), "-e", expression]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:  # noqa: S603  # our own arguments
        message = strace.stderr.readline() if strace.stderr else ""
        if "attached" not in message:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            msg = f"strace is not allowed to trace here: {message.strip()}"
            raise CannotRunError(msg)
        yield
        strace.terminate()


def _run_and_exit(work: Callable[[AbstractContextManager[None]], list[str]], writer: int) -> None:
    status = 1
    try:
        returned = work(_strace_attached())
        os.write(writer, json.dumps(returned).encode())
        status = 0
    except BaseException:  # noqa: BLE001  # a forked child must never continue its parent's program
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


@contextlib.contextmanager
def _strace_attached() -> Generator[None]:
    """Ask the parent to attach strace, and to detach it at the end of the block; wait for the parent each time."""
    os.kill(os.getppid(), _REQUEST)
    signal.sigwait({_PROCEED})
    yield
    os.kill(os.getppid(), _REQUEST)
    signal.sigwait({_PROCEED})


def _wait(child: int) -> int | None:
    """Wait until the child ends, and return its status, or ``None`` if the child sends a request first."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        received = signal.sigtimedwait({_REQUEST, signal.SIGCHLD}, HANG_SECONDS)
        if received is None:
            os.kill(child, signal.SIGKILL)
        elif received.si_signo == _REQUEST:
            return None


def _parse_calls(text: str) -> Generator[Call]:
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        match = _CALL.match(line)
        if match is None or match[1] in _IGNORED:
            continue
        name = match[1]
        numbers[name] = numbers.get(name, 0) + 1
        yield Call(name, numbers[name], match[2])
