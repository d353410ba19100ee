"""Coming between: a call on the same thread at each point of an operation where the interpreter lets one in.

CPython runs signal handlers where a function is entered, after a call, and where a loop jumps back; finalizers where an
object is made. What is between two such points cannot be come between on one thread.
"""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Any

import client_session
import client_session_persistence

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_OURS = (client_session.__path__[0], client_session_persistence.__path__[0])

_LETS_IN = ("CALL", "BUILD_", "JUMP_BACKWARD", "BEFORE_WITH", "FOR_ITER", "YIELD", "SEND", "LIST_", "MAKE_")

_opnames: dict[CodeType, dict[int, str]] = {}


def _opname(code: CodeType, offset: int) -> str:
    if code not in _opnames:
        _opnames[code] = {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
    return _opnames[code].get(offset, "")


def come_between(operation: Callable[[], object], call: Callable[[], object], point: int) -> int:
    """Run an operation, and the call at its point of this number, from 0; return how many points it has."""
    passed = 0

    def pass_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point + 1:
            call()

    def of_frame() -> Callable[[FrameType, str, Any], Any]:
        before = ""

        def trace(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401  # sys.settrace's signature
            nonlocal before
            if event == "opcode":
                if before.startswith(_LETS_IN):
                    pass_point()
                before = _opname(frame.f_code, frame.f_lasti)
            return trace

        return trace

    def enter(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401  # sys.settrace's signature
        if event != "call" or not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        pass_point()
        return of_frame()

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        operation()
    finally:
        sys.settrace(before)
    return passed
