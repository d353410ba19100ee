"""Hosts that apply mixed inputs of visitors at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import random
import time
import uuid
from typing import TYPE_CHECKING

from client_session.visitors import VisitorSessions
from linearizability import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence import StateStore

FOREGROUND_TIMEOUT, BACKGROUND_TIMEOUT = 0.040, 0.020


def run_host(connect: Callable[[], StateStore], visitors: int, inputs: int, seed: int) -> History:
    """Apply random inputs to random visitors, with pauses around the timeouts; return what the host saw."""
    history, chance = History(), random.Random(seed)  # noqa: S311  # repeatable, not secret
    sessions = VisitorSessions(
        connect(),
        foreground_timeout=FOREGROUND_TIMEOUT,
        background_timeout=BACKGROUND_TIMEOUT,
        on_input=history.inputs.append,
        on_session_end=history.ends.append,
    )
    for _ in range(inputs):
        session = sessions.of(f"visitor {chance.randrange(visitors)}")
        match chance.choices(("event", "passive", "focus", "touch", "new"), (6, 2, 2, 1, 1))[0]:
            case "event" | "passive" as name:
                event_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
                context = session.get_session_context(event_id, extend=name == "event")
                history.answers.append((event_id, context))
            case "focus":
                session.set_background(chance.random() < 0.5)
            case "touch":
                session.touch()
            case _:
                session.start_new_session()
        if chance.random() < 0.05:
            time.sleep(chance.choice((BACKGROUND_TIMEOUT, FOREGROUND_TIMEOUT)))  # the pause is an input of this test
    return history


def run_hosts(connect: Callable[[], StateStore], *, visitors: int, inputs: int, hosts: int = 8) -> History:
    """Run hosts at the same time, and return what all of them saw."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(hosts) as pool:
        histories = pool.starmap(run_host, [(connect, visitors, inputs, seed) for seed in range(hosts)])
    total = History()
    for history in histories:
        total.add(history)
    return total
