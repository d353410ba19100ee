"""Sessionizing logs: offline, the same sessions as live.

`fold` is the reference, in Python. `sessionize_sql` returns the same as a query. The modules ``polars`` and ``spark``
need the extras of these names.
"""

from __future__ import annotations

from client_session.sessionize.errors import LogError, Problem
from client_session.sessionize.fold import Fold, SessionizedEvent, UserState, fold
from client_session.sessionize.settings import SessionSettings
from client_session.sessionize.sql import carried_state_sql, problems_sql, sessionize_sql
from client_session.sessionize.sqlite_functions import register

__all__ = [
    "Fold", "LogError", "Problem", "SessionSettings", "SessionizedEvent", "UserState", "carried_state_sql", "fold",
    "problems_sql", "register", "sessionize_sql",
]  # fmt: skip
