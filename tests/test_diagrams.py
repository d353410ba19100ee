"""The diagrams are up to date and match the running state machine."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from client_session.graph import TABLE, Effect, Guard, SessionState
from client_session.machine import MACHINE, effect_method, guard_method
from client_session.verify import diagram
from client_session.verify.picture import PICTURE

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
DIAGRAMS = ROOT / "diagrams"
SVG = "{http://www.w3.org/2000/svg}"
HOW_TO_REGENERATE = "run 'make diagrams'"

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def machine_edges() -> set[tuple[str, str, str]]:
    """Return the source, destination and label of each transition of the running state machine."""
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
    """diagrams/lifecycle.mmd matches the generated source."""
    assert (DIAGRAMS / "lifecycle.mmd").read_text(encoding="utf-8") == diagram.mermaid(), HOW_TO_REGENERATE


def test_dot_file_is_up_to_date() -> None:
    """diagrams/lifecycle.dot matches the generated source."""
    assert (DIAGRAMS / "lifecycle.dot").read_text(encoding="utf-8") == diagram.dot(), HOW_TO_REGENERATE


def test_svg_is_up_to_date() -> None:
    """The SVG in the package was drawn from the current table, and diagrams/lifecycle.svg is a copy of it."""
    assert f'id="{diagram.picture_id()}"' in PICTURE, HOW_TO_REGENERATE
    assert (DIAGRAMS / "lifecycle.svg").read_text(encoding="utf-8") == PICTURE, HOW_TO_REGENERATE


def test_mermaid_edges_match_the_machine() -> None:
    """The arrows and the labels inside states exactly match the machine's transitions, guards and effects."""
    edges = set()
    for line in diagram.mermaid().splitlines():
        if arrow := re.fullmatch(r"    (\w+) --> (\w+): (.*)", line):
            edges |= split(arrow[1], arrow[2], arrow[3].split("<br/>"))
        elif internal := re.fullmatch(r"    (\w+): (.*)", line):
            edges |= split(internal[1], internal[1], [internal[2]])
    assert edges == machine_edges()


def test_dot_edges_match_the_machine() -> None:
    """The arrows in the DOT source exactly match the machine's transitions, guards and effects."""
    edges = set()
    for source, destination, label in re.findall(r'^    (\w+) -> (\w+) \[label="(.*)"\]$', diagram.dot(), re.MULTILINE):
        edges |= split(source, destination, label.split(r"\l"))
    assert edges == machine_edges()


def test_svg_edges_match_the_machine() -> None:
    """The arrows drawn in the SVG exactly match the machine's transitions, guards and effects."""
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


def test_coverage_adds_a_count_to_each_label() -> None:
    """The coverage SVG has a count on each label; a row that was never taken is red, and so is its arrow."""
    counts = {row: 1000 * number for number, row in enumerate(TABLE)}
    picture = ET.fromstring(diagram.coverage(counts))  # noqa: S314  # our own SVG
    edges = {edge.findtext(f"{SVG}title"): edge for edge in picture.iter(f"{SVG}g")}
    for (source, destination), rows in diagram.arrows().items():
        edge = edges[f"{source.name.lower()}->{destination.name.lower()}"]
        labels = list(edge.iter(f"{SVG}text"))
        shown = [" ".join((label.text or "").split()) for label in labels]
        assert shown == [f"{row.label} ×{counts[row]:,}" for row in rows]  # noqa: RUF001  # a multiplication sign
        assert [label.get("fill") == "#cf222e" for label in labels] == [row is TABLE[0] for row in rows]
        strokes = {line.get("stroke") for line in edge.iter(f"{SVG}path")}
        assert strokes == {"#cf222e" if TABLE[0] in rows else "#57606a"}


@pytest.fixture
def changed_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the table so that the SVG in the package is out of date."""
    monkeypatch.setattr(diagram.arrows, "__defaults__", (TABLE[:-1],))


@needs_dot
@pytest.mark.usefixtures("changed_table")
def test_graphviz_redraws_an_outdated_svg() -> None:
    """The installed dot program draws the current table, without the placeholders for counts."""
    drawn = diagram.svg()
    assert f'id="{diagram.picture_id()}"' in drawn
    assert ET.fromstring(drawn).tag == f"{SVG}svg"  # noqa: S314  # Graphviz's output
    assert "9,999" not in drawn


@pytest.mark.usefixtures("changed_table")
def test_outdated_svg_without_graphviz_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A one-line error says that the SVG is out of date and explains how to redraw it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(diagram.StalePictureError, match=r"^lifecycle.svg is stale: .*apt-get install graphviz.*$"):
        diagram.svg()
