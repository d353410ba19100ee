"""Call a function at each point in an operation where CPython could run a signal handler or finalizer.

CPython runs signal handlers at function entry, after a call, and at a loop's backward jump; it runs finalizers
when it creates an object. Between two such points, no other code can run on the same thread.
"""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Any

import transitions

import client_session
import client_session_persistence

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_OUR_FOLDERS = (client_session.__path__[0], client_session_persistence.__path__[0])
_RAISING_FOLDERS = (*_OUR_FOLDERS, transitions.__path__[0])
"""`transitions` handles exceptions in its own way, so they must also be raised in its code."""

_INTERRUPTIBLE_OPCODES = (
    "CALL",
    "BUILD_",
    "JUMP_BACKWARD",
    "BEFORE_WITH",
    "FOR_ITER",
    "YIELD",
    "SEND",
    "LIST_",
    "MAKE_",
)

_RAISING_OPCODES = ("CALL", "JUMP_BACKWARD")
"""The points at which an exception can arrive from outside. One that a finalizer raises is not propagated."""

_opnames: dict[CodeType, dict[int, str]] = {}
_handlers: dict[CodeType, list[tuple[int, int, int]]] = {}


def _opname(code: CodeType, offset: int) -> str:
    if code not in _opnames:
        _opnames[code] = {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
    return _opnames[code].get(offset, "")


def _handler(code: CodeType, offset: int) -> int | None:
    """Return the offset of the exception handler that covers an instruction."""
    if code not in _handlers:
        table: Any = dis
        entries = table._parse_exception_table(code)  # noqa: SLF001  # there is no public equivalent
        _handlers[code] = [(entry.start, entry.end, entry.target) for entry in entries]
    return next((target for start, end, target in _handlers[code] if start <= offset < end), None)


def _is_point(code: CodeType, before: int, after: int, *, raising: bool) -> bool:
    """Return whether there is an interruptible point between two instructions."""
    if not raising:
        return _opname(code, before).startswith(_INTERRUPTIBLE_OPCODES)
    # Python raises at the instruction that has run, so both must have the same exception handler.
    return _opname(code, before).startswith(_RAISING_OPCODES) and _handler(code, before) == _handler(code, after)


def call_at_point(
    operation: Callable[[], object],
    call: Callable[[], object],
    point: int,
    *,
    raising: bool = False,
) -> int:
    """Run an operation, calling ``call`` at interruptible point ``point`` (from zero); return the number of points.

    ``raising`` limits the points to those at which Python would propagate an exception that ``call`` raises.
    """
    folders = _RAISING_FOLDERS if raising else _OUR_FOLDERS
    passed_points = 0

    def pass_point() -> None:
        nonlocal passed_points
        passed_points += 1
        if passed_points == point + 1:
            call()

    def trace_frame() -> Callable[[FrameType, str, Any], Any]:
        before = -1

        def trace(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401  # sys.settrace's signature
            nonlocal before
            if event == "opcode":
                if _is_point(frame.f_code, before, frame.f_lasti, raising=raising):
                    pass_point()
                before = frame.f_lasti
            return trace

        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401  # sys.settrace's signature
        if event != "call" or not frame.f_code.co_filename.startswith(folders):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        pass_point()
        return trace_frame()

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        operation()
    finally:
        sys.settrace(before)
    return passed_points
