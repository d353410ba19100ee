"""The diagrams: fresh, and true to the running machine."""

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
MEND = "run 'make diagrams'"

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
    """Return an edge for each line of an arrow's label."""
    return {(source, destination, unescape(label).strip()) for label in labels if unescape(label).strip()}


def test_the_mermaid_file_is_fresh() -> None:
    """diagrams/lifecycle.mmd is what the code draws now."""
    assert (DIAGRAMS / "lifecycle.mmd").read_text(encoding="utf-8") == diagram.mermaid(), MEND


def test_the_dot_file_is_fresh() -> None:
    """diagrams/lifecycle.dot is what the code draws now."""
    assert (DIAGRAMS / "lifecycle.dot").read_text(encoding="utf-8") == diagram.dot(), MEND


def test_the_svg_is_fresh() -> None:
    """diagrams/lifecycle.svg bears the mark of the source that the code draws now."""
    assert f'id="{diagram.source_mark()}"' in (DIAGRAMS / "lifecycle.svg").read_text(encoding="utf-8"), MEND


def test_the_readmes_graph_is_fresh() -> None:
    """The README's Mermaid block is what the code draws now."""
    (block,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block == diagram.mermaid()


def test_mermaids_edges_are_the_machines() -> None:
    """Each arrow, and each line inside a state, is a transition with guard and effects; none is missing."""
    edges = set()
    for line in diagram.mermaid().splitlines():
        if arrow := re.fullmatch(r"    (\w+) --> (\w+): (.*)", line):
            edges |= split(arrow[1], arrow[2], arrow[3].split("<br/>"))
        elif inside := re.fullmatch(r"    (\w+): (.*)", line):
            edges |= split(inside[1], inside[1], [inside[2]])
    assert edges == machine_edges()


def test_dots_edges_are_the_machines() -> None:
    """Each arrow of the DOT source is a transition with guard and effects; none is missing."""
    edges = set()
    for source, destination, label in re.findall(r'^    (\w+) -> (\w+) \[label="(.*)"\]$', diagram.dot(), re.MULTILINE):
        edges |= split(source, destination, label.split(r"\l"))
    assert edges == machine_edges()


def test_the_drawings_edges_are_the_machines() -> None:
    """Each arrow that is drawn in the SVG is a transition with guard and effects; none is missing."""
    edges = set()
    for group in ET.parse(DIAGRAMS / "lifecycle.svg").iter(f"{SVG}g"):  # noqa: S314  # our own file
        title = group.findtext(f"{SVG}title") or ""
        if group.get("class") == "edge" and not title.startswith("start"):
            source, destination = title.split("->")
            edges |= split(source, destination, [text.text or "" for text in group.iter(f"{SVG}text")])
    assert edges == machine_edges()


def test_every_state_is_drawn_by_its_value() -> None:
    """A reader sees the states' names, not Python's."""
    for state in SessionState:
        assert f'"{state.value}" as' in diagram.mermaid()
        assert f'label="{state.value}"' in diagram.dot()


@needs_dot
def test_graphviz_draws_svg_and_png() -> None:
    """The real dot draws both."""
    assert ET.fromstring(diagram.render("svg")).tag == f"{SVG}svg"  # noqa: S314  # Graphviz's output
    assert diagram.render("png").startswith(b"\x89PNG\r\n\x1a\n")


def test_without_graphviz_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing but dot is missing, and it can be had."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(diagram.DotMissingError, match="apt-get install graphviz"):
        diagram.render("svg")
