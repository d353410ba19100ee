"""Modes, umasks and planted links."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = ()
