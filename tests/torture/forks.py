"""Forks while another thread holds a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = ()
