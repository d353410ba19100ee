"""Fault injection on a small scale; `make torture` runs every case."""

from __future__ import annotations

import pytest

from torture.catalog import FAULTS
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
