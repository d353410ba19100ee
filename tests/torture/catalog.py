"""All faults, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torture import (
    background_saves,
    databases,
    failing_system_calls,
    forgetting,
    forks,
    gone_sessions,
    hostile_files,
    hostile_paths,
    hung_lock_holder,
    interpreter_exit,
    interruptions,
    kill_at_system_calls,
    permissions,
    power_cut,
    random_kills,
    reentrant_calls,
    simultaneous_starts,
    threads,
    unwritable_folders,
)

if TYPE_CHECKING:
    from torture.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *kill_at_system_calls.FAULTS,
    *gone_sessions.FAULTS,
    *failing_system_calls.FAULTS,
    *databases.FAULTS,
    *unwritable_folders.FAULTS,
    *background_saves.FAULTS,
    *random_kills.FAULTS,
    *power_cut.FAULTS,
    *forgetting.FAULTS,
    *simultaneous_starts.FAULTS,
    *hung_lock_holder.FAULTS,
    *forks.FAULTS,
    *threads.FAULTS,
    *reentrant_calls.FAULTS,
    *interruptions.FAULTS,
    *interpreter_exit.FAULTS,
    *hostile_files.FAULTS,
    *hostile_paths.FAULTS,
    *permissions.FAULTS,
)
