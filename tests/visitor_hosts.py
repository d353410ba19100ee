"""Hosts that apply mixed inputs of visitors at the same time, each in a process of its own."""

from __future__ import annotations

import random
import time
import uuid
from typing import TYPE_CHECKING, Any

from client_session.visitors import VisitorSessions, exchange
from engines import stores
from linearizability import History

if TYPE_CHECKING:
    from pathlib import Path

    from client_session_persistence import StateStore

FOREGROUND_TIMEOUT, BACKGROUND_TIMEOUT = 0.040, 0.020


def run_host(states: StateStore, visitors: int, inputs: int, seed: int, namespace: str = "default") -> History:
    """Apply random inputs to random visitors, with pauses around the timeouts; return what the host saw."""
    history, chance = History(), random.Random(seed)  # noqa: S311  # repeatable, not secret
    sessions = VisitorSessions(
        states,
        namespace=namespace,
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


def _run_process(kind: str, place: int | Path, *arguments: Any) -> History:  # noqa: ANN401  # those of `run_host`
    exchange.CONTENTION_SECONDS = stores.PATIENT  # on a busy machine, a second may pass between two tries
    with stores.open_patient_store(kind, place) as states:
        return run_host(states, *arguments)


def run_hosts(  # noqa: PLR0913  # what the hosts share
    kind: str, place: int | Path, *, visitors: int, inputs: int, hosts: int = 8, namespace: str | None = None
) -> History:
    """Run hosts at the same time on a state store, by default in a new namespace, and return what all of them saw."""
    context, namespace = stores.process_context(), namespace or uuid.uuid4().hex
    with context.Pool(hosts) as pool:
        arguments = [(kind, place, visitors, inputs, seed, namespace) for seed in range(hosts)]
        histories = pool.starmap(_run_process, arguments)
    total = History()
    for history in histories:
        total.add(history)
    return total
