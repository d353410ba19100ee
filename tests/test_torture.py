"""Faults on purpose, small; `make torture` runs them whole."""

from __future__ import annotations

import pytest

from torture.everything import FAULTS
from torture.fault import CannotRunError, Fault, Scale


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault) -> None:
    """No case of the fault loses anything."""
    try:
        outcome = fault.run(Scale.FAST)
    except CannotRunError as error:
        pytest.skip(str(error))
    assert outcome.cases > 0
    assert outcome.losses == ()
