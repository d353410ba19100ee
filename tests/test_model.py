"""The model-based test: a real session and its save file must match the oracle after every sequence of inputs."""

from __future__ import annotations

from hypothesis import settings

from client_session.verify.model import SessionModel

TestSession = SessionModel.TestCase
TestSession.settings = settings(stateful_step_count=30)


def test_model_that_has_run_no_rules_can_be_torn_down() -> None:
    """A model can be torn down before any rule has run, as Hypothesis sometimes does."""
    SessionModel().teardown()
