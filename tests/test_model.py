"""The model-based test: a real session, a real file, every input in every order, against the oracle."""

from __future__ import annotations

from hypothesis import settings

from client_session.verify.model import SessionModel

TestSession = SessionModel.TestCase
TestSession.settings = settings(stateful_step_count=30)
