"""Sessionizing logs: offline, the same sessions as live.

>>> from client_session.sessionize import fold, sessionize_sql
>>> for event in fold(records): ...  # doctest: +SKIP
"""

from __future__ import annotations

from client_session.sessionize.fold import Fold, SessionizedEvent, UserState, fold

__all__ = ["Fold", "SessionizedEvent", "UserState", "fold"]
