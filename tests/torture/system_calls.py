"""System calls that fail, and kills at each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = ()
