"""Loggers that do not come from the standard library: every line is complete, however they format messages."""

from __future__ import annotations

import logging
import types
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession, MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionContext
    from conftest import MakeSession


class Recorder:
    """A logger that formats its messages in some way and keeps the lines."""

    def __init__(self, style: Callable[..., str]) -> None:
        """Set the function that formats a message with its arguments, if there are any."""
        self.lines: list[str] = []
        self._style = style

    def info(self, msg: str, *args: object) -> None:
        """Keep a line."""
        self.lines.append(self._style(msg, *args) if args else msg)

    def isEnabledFor(self, _: int) -> bool:  # noqa: N802  # logging's name
        """Return True."""
        return True

    debug = warning = exception = info


def loguru_recorder() -> tuple[Any, list[str]]:
    """Return loguru's logger and the list of its lines."""
    loguru: Any = pytest.importorskip("loguru", reason="loguru is not installed")
    lines: list[str] = []
    loguru.logger.remove()
    loguru.logger.add(lambda message: lines.append(str(message).rstrip("\n")), format="{message}")
    return loguru.logger, lines


def recorder(style: str) -> tuple[Any, list[str]]:
    """Return a logger of the given style and the list of its lines."""
    if style == "loguru":
        return loguru_recorder()
    styles: dict[str, Callable[..., str]] = {
        "percent": lambda msg, *args: msg % args,
        "brace": lambda msg, *args: msg.format(*args),
        "none": lambda msg, *_: msg,
    }
    logger = Recorder(styles[style])
    return logger, logger.lines


@pytest.mark.parametrize("style", ["percent", "brace", "none", "loguru"])
def test_lines_are_complete_in_any_style(make: MakeSession, tmp_path: Path, style: str) -> None:
    """The lines contain errors and names, even if these contain characters that a logger might format."""

    def fail_100_percent(_: SessionContext) -> None:
        message = "100 % {broken} {}"
        raise RuntimeError(message)

    logger, lines = recorder(style)
    (tmp_path / "{0} %s").touch()
    path = tmp_path / "{0} %s" / "session.xml"
    with make(save_path=path, logger=logger, on_session_start=fail_100_percent) as session:
        session.get_session_context(event_id(1))
    warnings = [line for line in lines if "save file cannot be used" in line]
    assert len(warnings) == 1
    assert repr(str(path)) in warnings[0]
    failures = [line for line in lines if "on_session_start failed: <function" in line]
    assert len(failures) == 1
    assert "fail_100_percent" in failures[0]
    if style != "loguru":  # it has no isEnabledFor, so decisions are not logged
        assert str(session.explain()[0]) in lines


def test_module_with_the_methods_is_a_logger(make: MakeSession) -> None:
    """Any object with the methods can be a logger, even one that does not format messages at all."""
    lines: list[tuple[str, ...]] = []
    module = types.ModuleType("my_logging")
    vars(module).update(dict.fromkeys(("info", "warning", "exception"), lambda *line: lines.append(line)))
    make(logger=module, on_session_start=lambda _: 1 / 0).get_session_context(event_id(1))
    ((line,),) = lines
    assert line.startswith("on_session_start failed: <function")


@pytest.mark.parametrize("adapt", [lambda logger: logger, lambda logger: logging.LoggerAdapter(logger, {})])
def test_standard_logger_gets_the_arguments(
    caplog: pytest.LogCaptureFixture, adapt: Callable[[logging.Logger], Any]
) -> None:
    """The standard library's records keep their arguments, so that filters and handlers can use them."""
    caplog.set_level(logging.DEBUG)
    with ClientSession(store=MemoryStore(), logger=adapt(logging.getLogger("standard"))) as session:
        session.get_session_context(event_id(1))
    assert [record.args for record in caplog.records] == [(explanation,) for explanation in session.explain()]
