"""The SVG timeline of a replay."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from client_session.graph import SessionState
from client_session.testing import SessionOptions, traces
from client_session.testing.replay import Moment, Replay
from client_session.testing.timeline import draw
from client_session.testing.trace import Step, read_trace
from client_session.verify.schedules import OPTIONS
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "desktop_day.jsonl"
START = datetime.fromisoformat("2026-11-23T09:00:00Z")
SVG = "{http://www.w3.org/2000/svg}"
LAYOUTS = {"narrow": 380, "medium": 680, "wide": 1100}


def replay(steps: list[Step], options: SessionOptions | None = None) -> list[Moment]:
    """Replay a trace with an in-memory store."""
    return list(Replay(steps, MemoryStore(), options or SessionOptions()).run())


def steps(*inputs: tuple[float, str]) -> list[Step]:
    """Return a trace of inputs, each given as seconds since the start and a name."""
    return [
        Step(START + timedelta(seconds=at), name, event_id(number) if name in {"event", "passive"} else None)
        for number, (at, name) in enumerate(inputs)
    ]


def parse(moments: list[Moment], name: str = "trace.jsonl") -> ET.Element:
    """Draw moments and parse the picture."""
    return ET.fromstring(draw(moments, name))  # noqa: S314  # our own SVG


def marks(picture: ET.Element, tag: str, kind: str) -> list[tuple[float, str]]:
    """Return the x coordinate, in percent, and the title of each mark of a class."""
    return [
        (float((mark.get({"rect": "x", "circle": "cx", "line": "x1"}[tag]) or "").rstrip("%")), title)
        for mark in picture.iter(f"{SVG}{tag}")
        if kind in (mark.get("class") or "").split()
        for title in [mark.findtext(f"{SVG}title") or ""]
    ]


def labels(picture: ET.Element, kind: str, layout: str) -> Iterator[tuple[float, float, str]]:
    """Yield the left and right ends, in pixels, and the words of each centered label of a layout."""
    for label in picture.iter(f"{SVG}text"):
        if label.get("class") == f"{kind} {layout}":
            words, center = label.text or "", float((label.get("x") or "").rstrip("%")) / 100 * LAYOUTS[layout]
            yield center - len(words) * 3, center + len(words) * 3, words


def x_of(moments: list[Moment], seconds: float) -> float:
    """Return the x coordinate of a time, given as seconds since the start."""
    return round(2 + 96 * seconds / (moments[-1].at - moments[0].at).total_seconds(), 2)


def check_marks(moments: list[Moment]) -> None:
    """Check that the picture shows the events, sessions and ends of a replay, and nothing else."""
    picture = parse(moments)
    for kind in ("event", "passive", "other"):
        expected = [moment for moment in moments if moment.input == kind and moment.context]
        titles = [title for _, title in marks(picture, "circle", kind)]
        more = sum(int(found[1]) for title in titles if (found := re.search(r" and (\d+) more$", title)))
        assert len(titles) + more == len(expected)
    outside = [moment for moment in moments if moment.input == "passive" and moment.context is None]
    assert bool(outside) == bool(marks(picture, "circle", "unattached"))
    drawn = [title for _, title in marks(picture, "rect", "bar")]
    assert len(drawn) == len(
        {each.begun.session_id for moment in moments for each in moment.explanations if each.begun}
    )
    endings = [summary for moment in moments for summary in moment.ended]
    closed = [title for title in drawn if not title.endswith("not ended.") and ": 0 events, " not in title]
    assert len(closed) == len(endings)
    assert [title for title in drawn if not title.endswith("not ended.")] == [
        title for _, title in marks(picture, "line", "end")
    ]
    for title, summary in zip(closed, endings, strict=True):
        count = f"{summary.event_count} event{'' if summary.event_count == 1 else 's'}"
        assert title.startswith(f"Session {summary.session_index}: {count}, ")
        assert title.endswith(f" ended: {summary.reason}.")
    for mark in picture.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float((mark.get(name) or "0").rstrip("%")) <= 100


def test_marks_match_the_example_day() -> None:
    """The picture of the example day shows every event, session and end, and each focus, check and timeout."""
    moments = replay(read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name))
    check_marks(moments)
    picture = parse(moments, EXAMPLE.name)
    assert picture.findtext(f"{SVG}title") == "Sessions in desktop_day.jsonl"
    description = picture.findtext(f"{SVG}desc") or ""
    assert description.startswith("10 sessions, 49 events, 2026-11-23 08:58:10 to 17:12:00 UTC. Session 1: 10 events, ")
    assert len(marks(picture, "circle", "passive")) == 2
    assert len(marks(picture, "circle", "unattached")) == 1
    changes = [
        (before.state is SessionState.FOREGROUND_ACTIVE) != (after.state is SessionState.FOREGROUND_ACTIVE)
        for before, after in pairwise(moments)
    ]
    assert len(marks(picture, "rect", "foreground") + marks(picture, "rect", "background")) == sum(changes) + 1
    found = [title for _, title in marks(picture, "line", "found")]
    assert found == [f"check, {at}" for at in tick_times(moments, changed=True)]
    assert [title for _, title in marks(picture, "line", "check")] == [
        f"check, {at}" for at in tick_times(moments, changed=False)
    ]
    timeouts = {title.partition(",")[0] for _, title in marks(picture, "rect", "limit")}
    assert timeouts == {"600 s", "300 s"}


def tick_times(moments: list[Moment], *, changed: bool) -> list[str]:
    """Return the times of the ticks that changed something, or of the others."""
    return [
        moment.at.replace(tzinfo=None).isoformat(" ")
        for moment in moments
        if moment.input == "tick" and bool(moment.explanations) is changed
    ]


@given(traces(several_runs=True, several_users=True), OPTIONS)
def test_marks_match_any_replay(trace: list[Step], options: SessionOptions) -> None:
    """The picture of any trace shows every event, session and end."""
    if trace:
        check_marks(replay(trace, options))


def test_forgotten_user_and_the_next_one_have_separate_sessions() -> None:
    """Session 1 of the next user has its own bar, even if session 1 of the forgotten user never ended."""
    moments = replay(steps((0, "passive"), (60, "forget"), (90, "event")), SessionOptions(count_empty_sessions=True))
    check_marks(moments)
    assert len(marks(parse(moments), "rect", "bar")) == 2


@pytest.mark.parametrize(
    ("inputs", "options", "ends"),
    [
        ([(0, "event"), (60, "event"), (100, "sleep"), (5000, "event"), (6000, "touch")], {}, [660, 5600]),
        ([(0, "event"), (60, "touch"), (100, "background"), (1000, "event")], {}, [360]),
        ([(0, "event"), (500, "event"), (900, "event"), (5000, "touch")], {"max_duration": 700}, [700, 1500]),
        ([(0, "event"), (200, "new-session"), (1000, "event")], {}, [200]),
    ],
    ids=["timeout", "background-timeout", "max-duration", "new-session"],
)
def test_session_ends_at_its_limit(inputs: list[tuple[float, str]], options: dict[str, float], ends: list[int]) -> None:
    """A session's end is drawn where its limit was reached, even if a later check or event found it."""
    moments = replay(steps(*inputs), SessionOptions(**options))  # type: ignore[arg-type]  # durations
    drawn = [x for x, _ in marks(parse(moments), "line", "end")]
    assert drawn[: len(ends)] == [x_of(moments, seconds) for seconds in ends]


def test_bar_is_pale_after_the_last_activity() -> None:
    """A bar is solid up to the last activity, and pale from there to the end."""
    moments = replay(steps((0, "event"), (60, "event"), (90, "touch"), (2000, "foreground")))
    picture = parse(moments)
    (solid,), (pale,) = marks(picture, "rect", "bar"), marks(picture, "rect", "idle")
    assert (solid[0], pale[0]) == (2.0, x_of(moments, 90))


def test_timeout_is_drawn_only_while_checks_run() -> None:
    """Neither checks nor a timeout are drawn while checking is stopped."""
    moments = replay(steps((0, "event"), (100, "stop-checker"), (200, "start-checker"), (300, "event")))
    picture = parse(moments)
    edges = [2.0, x_of(moments, 200)]
    assert [x for x, _ in marks(picture, "rect", "limit")] == edges
    assert [x for x, _ in marks(picture, "line", "running")] == edges


@pytest.mark.parametrize("name", ["</title><script>&amp;", 'a"b', "\x1b[2J", "\udcff", "\u202eabc", "x" * 300])
def test_hostile_names_are_escaped(name: str) -> None:
    """A trace's name appears as text, without control characters, and shortened in the heading."""
    picture = parse(replay(steps((0, "event"))), name)
    title = picture.findtext(f"{SVG}title") or ""
    assert title.isprintable()
    (heading,) = (text.text or "" for text in picture.iter(f"{SVG}text") if text.get("class") == "name")
    assert title.removeprefix("Sessions in ").startswith(heading.removesuffix("…"))
    assert len(heading) <= 40
    assert not list(picture.iter(f"{SVG}script"))


def test_trace_without_events() -> None:
    """The picture of a trace without events has no sessions."""
    picture = parse(replay(steps((0, "foreground"))))
    assert (picture.findtext(f"{SVG}desc") or "").startswith("0 sessions, 0 events, ")
    assert not marks(picture, "rect", "bar")
    assert not list(picture.iter(f"{SVG}circle"))


@pytest.mark.parametrize(
    ("seconds", "some_tick"),
    [
        (1, "09:00:00.500"),
        (90, "09:01:00"),
        (9 * 3600, "12:00"),
        (3 * 86_400, "11-24 00:00"),
        (366 * 86_400, "2027-01-01"),
        (7000 * 365 * 86_400, "6000-01-01"),
    ],
    ids=["a second", "a minute", "a day", "days", "a year", "millennia"],
)
def test_axis_has_labels_that_do_not_overlap(seconds: float, some_tick: str) -> None:
    """Every layout has ticks at round times, and its labels fit next to each other and into its width."""
    picture = parse(replay(steps((0, "event"), (seconds, "event"))))
    shown: set[str] = set()
    for layout, width in LAYOUTS.items():
        ticks = sorted(labels(picture, "tick", layout))
        assert len(ticks) >= 2
        assert all(right < left for (_, right, _), (left, _, _) in pairwise(ticks))
        assert ticks[0][0] >= 0
        assert ticks[-1][1] <= width
        shown |= {words for *_, words in ticks}
    assert any(words.startswith(some_tick) for words in shown), shown


def test_index_labels_do_not_overlap() -> None:
    """Many short sessions have labels only where they fit."""
    inputs = [(400.0 * number, "event" if number % 2 else "background") for number in range(200)]
    picture = parse(replay(steps(*inputs)))
    for layout in LAYOUTS:
        shown = list(labels(picture, "index", layout))
        assert shown
        assert all(right < left for (_, right, _), (left, _, _) in pairwise(shown))


def test_a_year_of_events_is_a_small_file() -> None:
    """Marks at the same place are drawn once, so that a year of 100,000 events fits into a few megabytes."""
    moments = replay(steps(*((315.0 * number, "event") for number in range(100_000))))
    text = draw(moments, "year.jsonl")
    assert len(text) < 2_000_000
    more = (int(count) for count in re.findall(r" and (\d+) more<", text))
    assert sum(more) + text.count("<circle") == 100_000


def test_example_picture_is_up_to_date() -> None:
    """diagrams/day.svg shows the example day."""
    moments = replay(read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name))
    assert (ROOT / "diagrams" / "day.svg").read_text(encoding="utf-8") == draw(moments, EXAMPLE.name), "make diagrams"
