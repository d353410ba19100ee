"""The interpreter's exit, and sessions that are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = ()
