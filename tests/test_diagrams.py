"""The diagrams are up to date and match the running state machine."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from client_session.graph import TABLE, Effect, Guard, SessionState
from client_session.machine import MACHINE, effect_method, guard_method
from client_session.verify import diagram, picture

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
DIAGRAMS = ROOT / "diagrams"
SVG = "{http://www.w3.org/2000/svg}"
HOW_TO_REGENERATE = "run 'make diagrams'"


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
    """diagrams/lifecycle.svg matches the generated picture."""
    assert (DIAGRAMS / "lifecycle.svg").read_text(encoding="utf-8") == picture.svg(), HOW_TO_REGENERATE


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


def drawn_rows(svg: str) -> dict[tuple[str, str], list[ET.Element]]:
    """Map the source and destination of each box and arrow to the texts of its rows."""
    groups = {group.findtext(f"{SVG}title") or "": group for group in ET.fromstring(svg).iter(f"{SVG}g")}  # noqa: S314  # our own
    return {
        (source, destination): [text for text in group.iter(f"{SVG}text") if "row" in (text.get("class") or "")]
        for title, group in groups.items()
        for source, _, destination in [title.partition("->")]
    }


def words(text: ET.Element, *kinds: str) -> str:
    """Return the parts of a row's text that have one of the classes."""
    parts = [part.text or "" for part in text.iter(f"{SVG}tspan") if part.get("class") in kinds]
    return " ".join(" ".join(parts).split())


def test_svg_edges_match_the_machine() -> None:
    """The rows in the SVG's boxes and on its arrows exactly match the machine's transitions, guards and effects."""
    edges = set()
    for (source, destination), texts in drawn_rows(picture.svg()).items():
        edges |= split(source, destination, [words(text, "input", "effects") for text in texts])
    assert edges == machine_edges()


def test_states_are_shown_by_value() -> None:
    """The diagrams show the values of the states, not their Python names."""
    for state in SessionState:
        assert f'"{state.value}" as' in diagram.mermaid()
        assert f'label="{state.value}"' in diagram.dot()


def test_coverage_adds_a_count_to_each_label() -> None:
    """The coverage SVG has a count on each label; a row that was never taken is red."""
    counts = {row: 1000 * number for number, row in enumerate(TABLE)}
    rows_of = drawn_rows(picture.coverage(counts))
    for (source, destination), rows in diagram.arrows().items():
        texts = rows_of[source.name.lower(), destination.name.lower()]
        assert [words(text, "input", "effects") for text in texts] == [row.label for row in rows]
        assert [words(text, "count") for text in texts] == [f"×{counts[row]:,}" for row in rows]  # noqa: RUF001  # a multiplication sign
        assert ["untaken" in (text.get("class") or "") for text in texts] == [row is TABLE[0] for row in rows]
