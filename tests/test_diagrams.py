"""The diagrams are up to date and match the running machine."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from client_session import diagram
from client_session.graph import Effect, Guard, SessionState
from client_session.machine import MACHINE, effect_method, guard_method

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
DIAGRAMS = ROOT / "diagrams"
SVG = "{http://www.w3.org/2000/svg}"
HOW_TO_REGENERATE = "run 'make diagrams'"

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason=diagram.HOW_TO_GET_DOT)


def machine_edges() -> set[tuple[str, str, str]]:
    """Return source, destination and label of each transition of the running machine."""
    guards = {guard_method(guard): guard.value for guard in Guard}
    effects = {effect_method(effect): effect.value for effect in Effect}
    edges = set()
    for event in MACHINE.events.values():
        for transition in MACHINE.get_transitions(event.name):
            label = event.name
            label += "".join(f" [{guards[str(condition.func)]}]" for condition in transition.conditions)
            if transition.before:
                label += " / " + ", ".join(effects[str(effect)] for effect in transition.before)
            edges.add((transition.source.lower(), (transition.dest or transition.source).lower(), label))
    return edges


def split(source: str, destination: str, labels: Iterable[str]) -> set[tuple[str, str, str]]:
    """Return one edge for each line of an arrow's label."""
    return {(source, destination, unescape(label).strip()) for label in labels if unescape(label).strip()}


def test_mermaid_file_is_up_to_date() -> None:
    """diagrams/lifecycle.mmd matches the output of the code."""
    assert (DIAGRAMS / "lifecycle.mmd").read_text(encoding="utf-8") == diagram.mermaid(), HOW_TO_REGENERATE


def test_dot_file_is_up_to_date() -> None:
    """diagrams/lifecycle.dot matches the output of the code."""
    assert (DIAGRAMS / "lifecycle.dot").read_text(encoding="utf-8") == diagram.dot(), HOW_TO_REGENERATE


def test_svg_is_up_to_date() -> None:
    """diagrams/lifecycle.svg carries the hash of the DOT source that the code generates now."""
    assert f'id="{diagram.source_mark()}"' in (DIAGRAMS / "lifecycle.svg").read_text(encoding="utf-8"), (
        HOW_TO_REGENERATE
    )


def test_readme_diagram_is_up_to_date() -> None:
    """The Mermaid block in the README matches the output of the code."""
    (block,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block == diagram.mermaid()


def test_mermaid_edges_match_the_machine() -> None:
    """The arrows and the labels inside states are exactly the machine's transitions, guards and effects."""
    edges = set()
    for line in diagram.mermaid().splitlines():
        if arrow := re.fullmatch(r"    (\w+) --> (\w+): (.*)", line):
            edges |= split(arrow[1], arrow[2], arrow[3].split("<br/>"))
        elif internal := re.fullmatch(r"    (\w+): (.*)", line):
            edges |= split(internal[1], internal[1], [internal[2]])
    assert edges == machine_edges()


def test_dot_edges_match_the_machine() -> None:
    """The arrows of the DOT source are exactly the machine's transitions, guards and effects."""
    edges = set()
    for source, destination, label in re.findall(r'^    (\w+) -> (\w+) \[label="(.*)"\]$', diagram.dot(), re.MULTILINE):
        edges |= split(source, destination, label.split(r"\l"))
    assert edges == machine_edges()


def test_svg_edges_match_the_machine() -> None:
    """The arrows drawn in the SVG are exactly the machine's transitions, guards and effects."""
    edges = set()
    for group in ET.parse(DIAGRAMS / "lifecycle.svg").iter(f"{SVG}g"):  # noqa: S314  # our own file
        title = group.findtext(f"{SVG}title") or ""
        if group.get("class") == "edge" and not title.startswith("start"):
            source, destination = title.split("->")
            edges |= split(source, destination, [text.text or "" for text in group.iter(f"{SVG}text")])
    assert edges == machine_edges()


def test_states_are_shown_by_value() -> None:
    """The diagrams show the values of the states, not their Python names."""
    for state in SessionState:
        assert f'"{state.value}" as' in diagram.mermaid()
        assert f'label="{state.value}"' in diagram.dot()


@needs_dot
def test_graphviz_renders_svg_and_png() -> None:
    """The installed dot program renders both formats."""
    assert ET.fromstring(diagram.render("svg")).tag == f"{SVG}svg"  # noqa: S314  # Graphviz's output
    assert diagram.render("png").startswith(b"\x89PNG\r\n\x1a\n")


def test_missing_graphviz_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without dot on the path, the error names the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(diagram.DotMissingError, match="apt-get install graphviz"):
        diagram.render("svg")
