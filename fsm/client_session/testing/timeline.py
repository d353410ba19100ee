"""The timeline: a replay as an SVG picture. It adapts to the width, and to light and dark color schemes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, TypeVar

import attrs

from client_session.graph import EndReason, Input, SessionState
from client_session.testing.trace import External
from client_session_persistence.snapshot import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from client_session.explanation import Explanation
    from client_session.testing.replay import Moment

_Value = TypeVar("_Value")

_WIDTHS = {"narrow": 380, "medium": 680, "wide": 1100}
"""The minimum width in pixels for which each set of labels and axis ticks is laid out, as in the style."""
_MARGIN = 2.0
"""The space to the left and right of the lanes, in percent of the width. All x coordinates are percentages, so that
the lanes adapt to the width while the text keeps its size."""
_CHARACTER_WIDTH = 6.4
"""The width of an average character, in pixels, rounded up."""
_MAX_NAME = 40
"""The maximum length of a heading. The whole name is in the title."""
_MAX_DESCRIBED = 20
"""The maximum number of sessions in the description."""
_EVENTS = (Input.EVENT, Input.PASSIVE, External.OTHER)
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
_MINUTE, _DAY, _MONTH = 60.0, 86_400.0, 30 * 86_400.0
_STEPS = (
    *(digit * 10.0**power for power in (-3, -2, -1) for digit in (1, 2, 5)),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(_DAY * days for days in (1, 2, 7, 14)),
    *(_MONTH * months for months in (1, 3, 6, *(12 * 10**power * digit for power in range(4) for digit in (1, 2, 5)))),
)
"""The possible seconds between two ticks of the axis. From `_MONTH` on, the ticks are at the beginnings of months."""

# The y coordinates of the lanes, in pixels.
_TOP = 58
_FOCUS, _SESSIONS, _ENDS, _EVENT_LANE, _CHECKS, _TIMEOUT, _AXIS = 76, 138, (172, 186), 224, 263, 323, 333
_HEIGHT = 358
_BAR = 14
_TIMEOUT_HEIGHT = 30

_STYLE = """
  text { font: 11px system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; fill: #24292f }
  .name { font-size: 15px; font-weight: 600 }
  .index { font-weight: 600 }
  .soft, .tick { fill: #57606a }
  .paper { fill: #ffffff; stroke: #d0d7de }
  .grid { stroke: #d0d7de; stroke-dasharray: 1 3 }
  .axis { stroke: #8c959f }
  .foreground, .timeout { fill: #2e9b63; stroke: #2e9b63 }
  .background, .background-timeout { fill: #3b78cf; stroke: #3b78cf }
  rect:not(.paper) { stroke: none }
  .bar { fill: #24292f; opacity: .8 }
  .idle { fill: #24292f; opacity: .2 }
  .end { stroke-width: 3 }
  .max-duration { fill: #c25a1b; stroke: #c25a1b }
  .new-session { fill: #8250df; stroke: #8250df }
  .forget { fill: #cf222e; stroke: #cf222e }
  .close { fill: #8c959f; stroke: #8c959f }
  .event { fill: #24292f }
  .passive { fill: #ffffff; stroke: #24292f }
  .other, .unattached { fill: #ffffff; stroke: #8c959f }
  .running, .check { stroke: #8c959f }
  .found { stroke: #c25a1b; stroke-width: 2 }
  .limit { fill: #8c959f; opacity: .3 }
  .medium, .wide { display: none }
  @media (min-width: 680px) { .narrow { display: none } .medium { display: inline } }
  @media (min-width: 1100px) { .medium { display: none } .wide { display: inline } }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .soft, .tick { fill: #9ea7b3 }
    .paper { fill: #0d1117; stroke: #30363d }
    .grid { stroke: #3d444d }
    .foreground, .timeout { fill: #3fb37a; stroke: #3fb37a }
    .background, .background-timeout { fill: #5b97ea; stroke: #5b97ea }
    .new-session { fill: #a371f7; stroke: #a371f7 }
    .bar, .idle, .event { fill: #e6edf3 }
    .idle { opacity: .25 }
    .found { stroke: #f0883e }
    .passive { fill: #0d1117; stroke: #e6edf3 }
    .other, .unattached { fill: #0d1117 }
    .limit { opacity: .45 }
  }
"""


def draw(moments: Sequence[Moment], name: str) -> str:
    """Return the moments of a `Replay` as an SVG timeline, with the trace's ``name`` as its heading.

    The lanes show the focus, the sessions with their numbers of events, why and when each one reached its limit, the
    events, the checks, and the timeout in force. The picture is as wide as its container, and 358 pixels high.
    """
    scale = _Scale(moments[0].at, moments[-1].at)
    bars = _bars(moments)
    counts: Counter[str] = Counter(moment.input for moment in moments if moment.input in _EVENTS)
    name, period = printable(name), _period(scale.start, scale.end)
    summary = f"{_count(len(bars), 'session')}, {_count(sum(counts.values()), 'event')}, {period}."
    lanes = (
        _axis(scale),
        _focus(moments, scale),
        _sessions(bars, scale),
        _events(moments, counts, scale),
        _checks(moments, scale),
        _timeouts(moments, scale),
    )
    parts = [
        f'<title id="timeline-title">Sessions in {escape(name)}</title>',
        f'<desc id="timeline-desc">{escape(" ".join([summary, *_descriptions(bars)]))}</desc>',
        f"<style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        _text(_MARGIN, 26, name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…", "name"),
        _text(_MARGIN, 44, period, "soft"),
        *itertools.chain.from_iterable(lanes),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" height="{_HEIGHT}" role="img" '
        'aria-labelledby="timeline-title timeline-desc">\n' + "\n".join(parts) + "\n</svg>\n"
    )


@attrs.frozen
class _Scale:
    """Maps times to x coordinates in percent."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """The length of the axis."""
        return (self.end - self.start).total_seconds() or 1.0

    def multiples(self, step: float) -> Iterator[datetime]:
        """Yield the multiples of ``step`` on the axis: seconds since midnight or Monday, or months since the year 0."""
        if step >= _MONTH:
            months = round(step / _MONTH)
            first_month, last_month = (at.year * 12 + at.month - 1 for at in (self.start, self.end))
            for month in range(-(-first_month // months) * months, last_month + 1, months):
                if (at := datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)) >= self.start:
                    yield at
            return
        first = -((self.start - _FIRST_TIME) / timedelta(seconds=1)) % step
        length = (self.end - self.start).total_seconds()
        for number in range(math.floor((length - first) / step) + 1):
            yield self.start + timedelta(seconds=first + number * step)

    def extent(self, begin: datetime, end: datetime) -> tuple[float, float]:
        """Return the x coordinates of a period."""
        return self.x(begin), self.x(end)

    def x(self, at: datetime) -> float:
        """Return the x coordinate of a time."""
        share = (at - self.start).total_seconds() / self.seconds
        return round(_MARGIN + (100 - 2 * _MARGIN) * share, 2)


@attrs.define
class _Bar:
    """A session of the trace: its first event, its last activity, the limit that ended it, and why it ended."""

    session_id: str
    index: int
    begun: datetime
    active_until: datetime
    ended: datetime
    events: int = 0
    reason: EndReason | None = None

    @property
    def text(self) -> str:
        """The session in words."""
        why = f"ended: {self.reason.value}" if self.reason else "not ended"
        return f"Session {self.index}: {_count(self.events, 'event')}, {_period(self.begun, self.active_until)}, {why}."


def _bars(moments: Sequence[Moment]) -> list[_Bar]:
    """Return the sessions that began or continued during the replay."""
    bars: list[_Bar] = []
    current: _Bar | None = None
    for moment in moments:
        for explanation in moment.explanations:
            if current and explanation.ended:
                current.events, current.reason = explanation.ended.event_count, explanation.ended.reason
                current.active_until, current.ended = _limits(current, moment.at, explanation)
                current = None
            if (begun := explanation.begun) and not (current and current.session_id == begun.session_id):
                current = _Bar(begun.session_id, begun.session_index, moment.at, moment.at, moment.at)
                bars.append(current)
        if current:
            current.events = moment.event_index
            current.ended = moment.at
            if moment.input == Input.EVENT:
                current.active_until = moment.at
    return bars


def _limits(bar: _Bar, at: datetime, explanation: Explanation) -> tuple[datetime, datetime]:
    """Return when a session was last active, and when it reached the limit that a decision at time ``at`` found."""
    age = (at - bar.begun).total_seconds()
    match bar.reason:
        case EndReason.TIMEOUT | EndReason.BACKGROUND_TIMEOUT:
            overdue = explanation.idle_seconds - explanation.timeout
        case EndReason.MAX_DURATION:
            overdue = age - explanation.max_duration
        case _:
            overdue = 0.0
    # A session that began before the replay may have been idle for longer than its bar.
    active_until, ended = (
        at - timedelta(seconds=min(max(seconds, 0.0), age)) for seconds in (explanation.idle_seconds, overdue)
    )
    return active_until, max(active_until, ended)


def _descriptions(bars: Sequence[_Bar]) -> Iterator[str]:
    yield from (bar.text for bar in bars[:_MAX_DESCRIBED])
    if len(bars) > _MAX_DESCRIBED:
        yield f"{_count(len(bars) - _MAX_DESCRIBED, 'more session')}."


def _axis(scale: _Scale) -> Iterator[str]:
    """Draw ticks and lines at round times, as many as fit into each width."""
    for layout, width in _WIDTHS.items():
        for step in _steps(scale, width):
            for at in scale.multiples(step):
                x, words = scale.x(at), _tick_text(at, step, scale.seconds)
                yield f'<line class="grid {layout}" x1="{x}%" x2="{x}%" y1="{_TOP}" y2="{_AXIS}"/>'
                left, right = _extent(x, words, width)
                yield _text((left + right) / 2 / width * 100, _AXIS + 16, words, f"tick {layout}", "middle")
    yield f'<line class="axis" x1="{_MARGIN}%" x2="{100 - _MARGIN}%" y1="{_AXIS}" y2="{_AXIS}"/>'


def _steps(scale: _Scale, width: int) -> Iterator[float]:
    """Yield the shortest step, if any, whose labels fit into a width."""
    for step in _STEPS:
        length = len(_tick_text(scale.start, step, scale.seconds))
        if step / scale.seconds * width * (1 - _MARGIN / 50) >= (length + 2) * _CHARACTER_WIDTH:
            yield step
            return


def _tick_text(at: datetime, step: float, span: float) -> str:
    text = at.replace(tzinfo=None).isoformat(" ", "milliseconds")
    if step >= _DAY:
        return text[:10]
    if span > _DAY:
        return text[5:16]
    return text[11:16] if step >= _MINUTE else text[11:19] if step >= 1 else text[11:]


def _focus(moments: Sequence[Moment], scale: _Scale) -> Iterator[str]:
    yield _key(_FOCUS - 6, "Focus", ("foreground", "background"))
    states = ((moment.at, moment.state is SessionState.FOREGROUND_ACTIVE) for moment in moments)
    for begin, end, in_focus in _segments(states):
        name = "foreground" if in_focus else "background"
        yield _rect(scale.extent(begin, end), (_FOCUS, 10), name, f"{name}, {_period(begin, end)}")


def _sessions(bars: Sequence[_Bar], scale: _Scale) -> Iterator[str]:
    yield _caption(_SESSIONS - 26, f"{_count(len(bars), 'session')}: index (events); pale without activity")
    for bar in bars:
        yield _rect(scale.extent(bar.begun, bar.active_until), (_SESSIONS, _BAR), "bar", bar.text)
        if bar.ended > bar.active_until:
            yield _rect(scale.extent(bar.active_until, bar.ended), (_SESSIONS, _BAR), "idle", bar.text)
    for bar in bars:
        if bar.reason:
            yield _mark(scale.x(bar.ended), _SESSIONS - 3, _SESSIONS + _BAR + 3, f"end {bar.reason}", bar.text)
    reasons = [reason for reason in EndReason if any(bar.reason is reason for bar in bars)]
    for y, row in zip(_ENDS, (reasons[:3], reasons[3:]), strict=True):
        if row:  # six names are too long for one line
            yield _key(y, "Ended by", row)
    for layout, width in _WIDTHS.items():
        yield from _indexes(bars, scale, layout, width)


def _indexes(bars: Sequence[_Bar], scale: _Scale, layout: str, width: int) -> Iterator[str]:
    """Write the indexes that fit above the bars, with the numbers of events where these fit, too."""
    placed: list[tuple[float, _Bar, float]] = []
    right = -math.inf
    for bar in bars:
        x = scale.x(bar.begun + (bar.ended - bar.begun) / 2)
        left, end = _extent(x, f"{bar.index}", width)
        if left > right:
            placed.append((x, bar, left))
            right = end
    right = -math.inf
    next_lefts = [*(left for *_, left in placed[1:]), math.inf]
    for (x, bar, _), next_left in zip(placed, next_lefts, strict=False):
        words = f"{bar.index} ({bar.events})"
        left, end = _extent(x, words, width)
        if left <= right or end >= next_left:
            words = f"{bar.index}"
            left, end = _extent(x, words, width)
        right = end
        yield _text((left + end) / 2 / width * 100, _SESSIONS - 7, words, f"index {layout}", "middle")


def _events(moments: Sequence[Moment], counts: Counter[str], scale: _Scale) -> Iterator[str]:
    others = {"passive": counts[Input.PASSIVE], "of other processes": counts[External.OTHER]}
    hollow = ", ".join(f"{count:,} {name}" for name, count in others.items() if count)
    yield _caption(
        _EVENT_LANE - 12, f"{_count(sum(counts.values()), 'event')}{f' (hollow: {hollow})' if hollow else ''}"
    )
    marks: dict[tuple[float, str], list[Moment]] = {}
    for moment in moments:
        if moment.input in _EVENTS:
            kind = moment.input if moment.context else "unattached"
            marks.setdefault((scale.x(moment.at), kind), []).append(moment)
    for (x, kind), group in marks.items():
        context, count = group[0].context, f" and {len(group) - 1:,} more" if group[1:] else ""
        where = f"session {context.session_index}, event {context.event_index}" if context else "no session"
        words = f"{group[0].input}, {_time(group[0].at)}, {where}{count}"
        yield f'<circle class="{kind}" cx="{x}%" cy="{_EVENT_LANE}" r="3.2"><title>{words}</title></circle>'


def _checks(moments: Sequence[Moment], scale: _Scale) -> Iterator[str]:
    yield _caption(_CHECKS - 12, "Checks: a line while they run; orange: one that found a change")
    for begin, end, running in _segments((moment.at, moment.checker_running) for moment in moments):
        if running:
            yield (
                f'<line class="running" x1="{scale.x(begin)}%" x2="{scale.x(end)}%" y1="{_CHECKS}" y2="{_CHECKS}">'
                f"<title>checks run, {_period(begin, end)}</title></line>"
            )
    seen: set[tuple[float, str]] = set()
    for moment in moments:
        kind = "found" if moment.explanations else "check"
        if moment.input == Input.TICK and (mark := (scale.x(moment.at), kind)) not in seen:
            seen.add(mark)
            height = 7 if moment.explanations else 4
            yield _mark(mark[0], _CHECKS - height, _CHECKS + height, kind, f"check, {_time(moment.at)}")


def _timeouts(moments: Sequence[Moment], scale: _Scale) -> Iterator[str]:
    """Draw the timeout while checks run; the longest finite one has the full height, like an infinite one."""
    yield _caption(_TIMEOUT - _TIMEOUT_HEIGHT - 5, "Timeout in force")
    timeouts = ((moment.at, moment.timeout if moment.checker_running else None) for moment in moments)
    segments = [(begin, end, timeout) for begin, end, timeout in _segments(timeouts) if timeout is not None]
    longest = max((timeout for *_, timeout in segments if math.isfinite(timeout)), default=1.0)
    for begin, end, timeout in segments:
        height = round(max(2.0, _TIMEOUT_HEIGHT * min(1.0, timeout / longest)), 1)
        words = f"{_seconds(timeout)}, {_period(begin, end)}"
        yield _rect(scale.extent(begin, end), (_TIMEOUT - height, height), "limit", words)
    for layout, width in _WIDTHS.items():
        for begin, end, timeout in segments:
            left, right = scale.x(begin), scale.x(end)
            words = _seconds(timeout)
            if (right - left) * width / 100 > len(words) * _CHARACTER_WIDTH:
                yield _text((left + right) / 2, _TIMEOUT - 4, words, layout, "middle")


def _segments(values: Iterable[tuple[datetime, _Value]]) -> Iterator[tuple[datetime, datetime, _Value]]:
    """Yield the beginning and the end of each period in which a value did not change."""
    for value, group in itertools.groupby(itertools.pairwise(values), key=lambda pair: pair[0][1]):
        periods = list(group)
        yield periods[0][0][0], periods[-1][1][0], value


def _extent(x: float, words: str, width: int) -> tuple[float, float]:
    """Return the left and right ends, in pixels, of a text that is centered at ``x``, or as near as fits."""
    half = (len(words) + 1) * _CHARACTER_WIDTH / 2
    center = min(max(x * width / 100, half), width - half)
    return center - half, center + half


def _rect(extent: tuple[float, float], lane: tuple[float, float], kind: str, words: str) -> str:
    (left, right), (y, height) = extent, lane
    return (
        f'<rect class="{kind}" x="{left}%" y="{y:g}" width="{max(0.15, right - left):.4g}%" height="{height:g}">'
        f"<title>{words}</title></rect>"
    )


def _mark(x: float, top: float, bottom: float, kind: str, words: str = "") -> str:
    title = f"<title>{words}</title>" if words else ""
    return f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="{top}" y2="{bottom}">{title}</line>'


def _caption(y: int, words: str) -> str:
    return _text(_MARGIN, y, words, "soft")


def _key(y: int, words: str, names: Iterable[str]) -> str:
    """Return a line that explains the colors of names."""
    keys = " ".join(f'<tspan class="{name}">■</tspan> {name}' for name in names)
    return f'<text class="soft" x="{_MARGIN}%" y="{y}">{words}: {keys}</text>'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.4g}%" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return "none" if math.isinf(seconds) else f"{seconds:,g} s"


def _time(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(" ", "milliseconds" if at.microsecond else "seconds")


def _period(begin: datetime, end: datetime) -> str:
    """Return a period as text, with the second date only if it differs."""
    last = _time(end)
    return f"{_time(begin)} to {last[11:] if begin.date() == end.date() else last} UTC"
