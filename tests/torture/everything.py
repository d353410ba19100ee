"""All faults, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torture import (
    callers,
    errors,
    exits,
    forks,
    full_places,
    hanging,
    hostile_files,
    hostile_places,
    permissions,
    power_cut,
    processes,
    random_kills,
    system_calls,
    threads,
)

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *system_calls.FAULTS,
    *errors.FAULTS,
    *full_places.FAULTS,
    *random_kills.FAULTS,
    *power_cut.FAULTS,
    *processes.FAULTS,
    *hanging.FAULTS,
    *forks.FAULTS,
    *threads.FAULTS,
    *callers.FAULTS,
    *exits.FAULTS,
    *hostile_files.FAULTS,
    *hostile_places.FAULTS,
    *permissions.FAULTS,
)
