"""Replaying traces recorded from the real .NET tracker on our session produces the same results."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACES = Path(__file__).parent / "data" / "dotnet_traces.jsonl.gz"
PARTS = 10


def read_traces(part: int) -> Iterator[dict[str, Any]]:
    """Yield the traces in one part of the recording."""
    with gzip.open(TRACES, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % PARTS == part:
                yield json.loads(line)


class DotnetReplay:
    """Replays a .NET trace on our session, using the recording's names for session ids."""

    def __init__(self) -> None:
        """Start at time zero with an empty store."""
        self.clock = ManualClock()
        self.store = MemoryStore()
        self.names: dict[str, str] = {}
        self.session: ClientSession

    def construct(self, foreground: float, background: float, interval: float) -> None:
        """Construct a session that counts sessions the way .NET does."""
        self.session = ClientSession(
            store=self.store,
            foreground_timeout=foreground,
            background_timeout=background,
            check_interval=interval,
            clock=self.clock,
            scheduler=ManualScheduler(),
            count_empty_sessions=True,
        )

    def apply(self, operation: str, *arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # differs by operation
        """Apply one operation and return the session's visible state."""
        context = None
        if operation == "new":
            self.construct(*arguments)
        elif operation == "restart":
            old = self.session
            old.close()
            self.construct(old.foreground_timeout, old.background_timeout, old.check_interval)
        elif operation == "event":
            context = self.session.get_session_context(*arguments)
        elif operation == "background":
            self.session.set_background(*arguments)
        elif operation == "advance":
            self.clock.advance(*arguments)
        elif operation in {"set_foreground_timeout", "set_background_timeout"}:
            setattr(self.session, operation.removeprefix("set_"), *arguments)
        else:
            {
                "tick": self.session.tick,
                "stop": self.session.stop_checker,
                "start": self.session.start_checker,
            }[operation]()
        visible: dict[str, Any] = {
            "background": self.session.background,
            "checker": self.session.checker_running,
            "previous": self.name(self.session.previous_session_id),
            "session": self.name(self.session.session_id),
            "index": self.session.session_index,
            "first_event_id": self.session.first_event_id,
        }
        if context is not None:
            visible["context"] = {
                "session": self.name(context.session_id),
                "previous": self.name(context.previous_session_id),
                "index": context.session_index,
                "first_event_id": context.first_event_id,
            }
        return visible

    def name(self, session_id: str | None) -> str | None:
        """Return S1 for the first session id that appears, S2 for the second, and so on."""
        return session_id and self.names.setdefault(session_id, f"S{len(self.names) + 1}")


@pytest.mark.parametrize("part", range(PARTS))
def test_session_matches_dotnet_after_every_operation(part: int) -> None:
    """With count_empty_sessions, our state equals that of .NET's ClientSession after every recorded operation."""
    replayed = 0
    for trace in read_traces(part):
        replay = DotnetReplay()
        for step, (operation, observed) in enumerate(zip(trace["ops"], trace["observed"], strict=True)):
            assert replay.apply(*operation) == observed, trace["ops"][: step + 1]
        replayed += 1
    assert replayed == 300
