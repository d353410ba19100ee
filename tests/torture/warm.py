"""Cases by the thousand, in warm processes, one on each core: what they fork pays for no interpreter's start."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from torture.fault import Outcome, Scale

if TYPE_CHECKING:
    from collections.abc import Callable


def share_out(run: Callable[[int, int, Scale], Outcome], scale: Scale, shares: int | None = None) -> Outcome:
    """Run every share of the cases, ``run(share, shares, scale)``, in a process of its own without threads; sum up."""
    if shares is None:
        shares = 1 if scale is Scale.FAST else os.cpu_count() or 1
    with ProcessPoolExecutor(shares, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = list(pool.map(run, range(shares), itertools.repeat(shares), itertools.repeat(scale)))
    return Outcome(
        sum(outcome.cases for outcome in outcomes),
        tuple(loss for outcome in outcomes for loss in outcome.losses),
        outcomes[0].figures,
    )
