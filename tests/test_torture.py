"""Fault injection on a small scale; `make torture` runs every case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from torture.catalog import FAULTS
from torture.disk import mounted_disk
from torture.fault import CannotRunError, Fault, Scale


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_causes_no_loss(fault: Fault) -> None:
    """The fault does not cause a loss in any sampled case."""
    try:
        outcome = fault.run(Scale.SAMPLE)
    except CannotRunError as error:
        pytest.skip(str(error))
    assert outcome.cases > 0
    assert outcome.losses == ()


def test_power_cut_shows_what_is_on_the_disk_now() -> None:
    """A program that has the device of an earlier cut open does not make a later cut show old data."""
    device = None
    try:
        with mounted_disk((), "sync") as disk:
            for number in range(3):
                (disk.folder / f"file-{number}").touch()
                with disk.after_power_cut() as after:
                    assert (after / f"file-{number}").exists()
                    if device is None:
                        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
                        source = next(line.split()[0] for line in lines if line.split()[1] == str(after))
                        device = os.open(source, os.O_RDONLY)
    except CannotRunError as error:
        pytest.skip(str(error))
    finally:
        if device is not None:
            os.close(device)
