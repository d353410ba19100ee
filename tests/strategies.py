"""Hypothesis strategies for snapshots."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from client_session_persistence import Snapshot
from client_session_persistence.snapshot import MAX_INDEX, STORAGE_MECHANISMS

HEX = "0123456789abcdef"
UUID_TEXTS = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper())
USER_IDS = st.uuids().map(str) | st.text(HEX, min_size=16, max_size=16)
INDEXES = st.integers(0, MAX_INDEX)
TIMES = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  # Hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC) | st.timezones(),
)


def snapshots() -> st.SearchStrategy[Snapshot]:
    """Return a strategy that can generate every valid snapshot."""
    return st.builds(
        Snapshot,
        user_id=USER_IDS,
        session_id=st.none() | UUID_TEXTS,
        previous_session_id=st.none() | UUID_TEXTS,
        session_index=INDEXES,
        storage_mechanism=st.sampled_from(STORAGE_MECHANISMS),
        first_event_id=st.none() | UUID_TEXTS,
        first_event_timestamp=st.none() | TIMES,
        event_index=st.none() | INDEXES,
        last_activity=st.none() | TIMES,
        session_start=st.none() | TIMES,
        background=st.none() | st.booleans(),
    )
