"""The model-based test: a real session and its save file must match the oracle after every sequence of inputs."""

from __future__ import annotations

from hypothesis import settings

from client_session.verify.model import SessionModel

TestSession = SessionModel.TestCase
TestSession.settings = settings(stateful_step_count=30)


def test_model_that_was_never_constructed_can_be_torn_down() -> None:
    """Hypothesis tears down a model even if it gives up before the first rule."""
    SessionModel().teardown()
