"""Places that cannot be written: full, read-only, limited, somebody else's, vanishing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = ()
