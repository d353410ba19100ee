"""Kill a process at each file operation of its background saves, and make each operation fail.

``strace`` counts the calls of each thread separately. This counts the operations of both threads together.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from client_session import ClientSession, XmlStore
from client_session.testing import ManualScheduler
from client_session_persistence import Snapshot, loads
from event_ids import event_id
from torture.fault import Fault, Outcome, Scale
from torture.forked_children import require_fork
from torture.survivor import Log
from torture.worker_pool import fork_child, run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPERATIONS = ("open", "close", "write", "pwrite", "pread", "fstat", "fsync", "link", "replace", "unlink", "mkdir")
_ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE)
_SESSIONS = 2


@contextlib.contextmanager
def before_each_operation(callback: Callable[[str, int], None]) -> Iterator[list[str]]:
    """Call ``callback`` with the name and number of each file operation in the block, and yield their names."""
    names: list[str] = []

    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            names.append(name)
            callback(name, len(names) - 1)
            return real(*arguments, **options)

        return operation

    with contextlib.ExitStack() as stack:
        for name in _OPERATIONS:
            stack.enter_context(mock.patch.object(os, name, wrap(name, getattr(os, name))))
        yield names


def _use_session(path: Path, acknowledged: Callable[[int], object] = lambda _: None) -> ClientSession:
    """Begin two sessions, and acknowledge each after its save."""
    store = XmlStore(path, background=True)
    session = ClientSession(store=store, logger=Log(), scheduler=ManualScheduler())
    for number in range(_SESSIONS):
        session.start_new_session()
        context = session.get_session_context(event_id(number))
        with contextlib.suppress(OSError):
            session.save()
            acknowledged(context.session_index)
    return session


def _count_operations(folder: Path) -> int:
    with before_each_operation(lambda _name, _number: None) as names:
        _use_session(folder / "counted" / "session.xml")
    return len(names)


def _load(path: Path) -> Snapshot | None:
    return loads(path.read_bytes()) if path.exists() else None


def _kill_at(path: Path, position: int) -> str:
    """Kill a process at one operation; return what was lost, or an empty string."""
    reader, writer = os.pipe()

    def kill(_: str, number: int) -> None:
        if number == position:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with before_each_operation(kill):
            _use_session(path, lambda index: acknowledge(writer, bytes([index])))

    acknowledge = os.write
    child = fork_child(work)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        acknowledged = max(answers.read(), default=0)
    os.waitpid(child, 0)
    found = _load(path)
    if (found.session_index if found else 0) < acknowledged:
        return f"session {acknowledged} was acknowledged; the file has {found}"
    with ClientSession(path, scheduler=ManualScheduler()) as session:
        index = session.get_session_context(event_id(7)).session_index
        if session.save_error is not None:
            return f"the next start fails: {session.save_error}"
        if index != (found.session_index if found else 0) + 1 or (found and session.user_id != found.user_id):
            return f"the next session has the index {index} after {found}"
    return "a temporary file remains" if list(path.parent.glob("*.tmp")) else ""


def _fail_at(path: Path, position: int, code: int, *, is_permanent: bool) -> str:
    """Make one operation fail, and with ``is_permanent`` all later ones with its name; return what was lost."""
    failing = ""

    def fail(name: str, number: int) -> None:
        nonlocal failing
        if number == position:
            failing = name
        if number == position or (is_permanent and name == failing):
            raise OSError(code, os.strerror(code))

    with before_each_operation(fail):
        session = _use_session(path)
    for _ in range(2):
        session.tick()
        session.save()
    found = _load(path)
    if session.save_error is not None or found is None or found.session_id != session.session_id:
        return f"not saved afterward: {session.save_error!r}, {found}"
    with XmlStore(path).lock():
        pass
    return "a temporary file remains" if list(path.parent.glob("*.tmp")) else ""


def _kill(shard: int, shards: int, scale: Scale) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as name:
        folder = Path(name)
        positions = range(shard, _count_operations(folder), shards * (1 if scale is Scale.FULL else 9))
        losses = [
            f"killed at operation {position}: {loss}"
            for position in positions
            if (loss := _kill_at(folder / str(position) / "session.xml", position))
        ]
    return Outcome(len(positions), tuple(losses))


def _fail(shard: int, shards: int, scale: Scale) -> Outcome:
    losses: list[str] = []
    cases = 0
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as name:
        folder = Path(name)
        for position in range(shard, _count_operations(folder), shards * (1 if scale is Scale.FULL else 19)):
            for code in _ERRORS:
                for is_permanent in (False, True):
                    path = folder / f"{position} {code} {is_permanent}" / "session.xml"
                    try:
                        loss = _fail_at(path, position, code, is_permanent=is_permanent)
                    except Exception as error:  # noqa: BLE001  # any exception is a loss
                        loss = repr(error)
                    if loss:
                        losses.append(f"operation {position} fails with {errno.errorcode[code]}: {loss}")
                    cases += 1
    return Outcome(cases, tuple(losses))


def kill_at_each_operation(scale: Scale) -> Outcome:
    """Kill a process at each file operation."""
    require_fork()
    return run_in_workers(_kill, scale)


def fail_each_operation(scale: Scale) -> Outcome:
    """Make each file operation fail."""
    return run_in_workers(_fail, scale)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a process is killed at each file operation of its background saves, then restarted",
        "an acknowledged save, the user or an index is lost, or a temporary file survives the next start",
        kill_at_each_operation,
    ),
    Fault(
        "each file operation of background saves fails, both once and permanently",
        "a call raises or hangs, the next tick does not save, the lock remains held, or a temporary file remains",
        fail_each_operation,
    ),
)
