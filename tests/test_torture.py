"""Fault injection at a small scale; `make torture` runs it at full scale."""

from __future__ import annotations

import pytest

from torture.everything import FAULTS
from torture.fault import CannotRunError, Fault, Scale


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_loses_nothing(fault: Fault) -> None:
    """No case of an injected fault loses data."""
    try:
        outcome = fault.run(Scale.FAST)
    except CannotRunError as error:
        pytest.skip(str(error))
    assert outcome.cases > 0
    assert outcome.losses == ()
