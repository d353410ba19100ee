"""The report: one self-contained HTML page for reviewers."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from client_session import __version__
from client_session.graph import TABLE, SessionState
from client_session.testing.replay import Replay
from client_session.testing.trace import External, Step
from client_session.verify import picture
from client_session.verify.style import STYLE
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from client_session.graph import Row
    from client_session.testing.replay import Moment
    from client_session.verify.run import Verification
    from client_session.verify.tally import Sample

_STATE_CLASSES = {
    SessionState.FOREGROUND_ACTIVE: "foreground",
    SessionState.BACKGROUND_ACTIVE: "background",
    SessionState.EXPIRED_CHECKER_STOPPED: "expired",
}

_LEAD = """
A client session is a series of events with no gap of the timeout or longer. This page shows the graph of its lifecycle,
how often the verification took each transition, and which invariants it checked.
"""

_SAMPLES_LEAD = """
This section shows the shortest trace found for each row of the graph. The last input (\u25c2) takes the row. Each bar
has the color of the state after the input, and is pale while the session is pending.
"""


def page(result: Verification) -> str:
    """Return the report as a self-contained HTML page."""
    verdict = '<dd class="bad">failed</dd>' if result.failures else '<dd class="good">passed</dd>'
    explored = result.explored
    facts = {
        "states (all)": f"{explored.states:,}" if explored else "-",
        "edges (all)": f"{explored.edges:,}" if explored else "-",
        f"timelines (up to {result.length} inputs)": f"{result.timelines:,}",
        f"logs (up to {result.length} inputs)": f"{result.logs:,}",
        "engines": ", ".join(result.sessionizers) or "-",
        "rows taken": f"{sum(1 for row in TABLE if result.tally.rows[row])} of {len(TABLE)}",
        "checks": f"{sum(result.tally.invariants.values()):,}",
        "examples": f"{result.examples:,}",
        "seed": str(result.seed),
        "seconds": f"{result.seconds:.1f}",
    }
    facts_html = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    footer = (
        f"client-session {__version__}, CPython {platform.python_version()}, {platform.system()}, "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>client-session: verification</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        "<h1>Verification of the lifecycle</h1>\n"
        f'<p class="lead">{escape(_LEAD)}</p>\n'
        f'<dl class="facts"><div><dt>result</dt>{verdict}</div>{facts_html}</dl>\n'
        f"{_failures(result)}{_graph(result)}{_rows(result)}{_invariants(result)}{_samples(result)}"
        f'<p class="why">{escape(footer)}</p>\n</main>\n</body>\n</html>\n'
    )


def _failures(result: Verification) -> str:
    parts = ["<h2>Failures</h2>\n" if result.failures else ""]
    for failure in result.failures:
        message, _, details = failure.message.partition("\n")
        parts.append(f'<p class="bad">{escape(failure.part)}: {escape(message)}</p>\n')
        if details:
            parts.append(f"<pre>{escape(details)}</pre>\n")
        if failure.sample:
            lines = "\n".join(step.to_json() for step in failure.sample.steps)
            parts.append(f"<pre>{escape(lines)}</pre>\n")
    return "".join(parts)


def _graph(result: Verification) -> str:
    return f"<h2>The graph</h2>\n<figure>{picture.coverage(result.tally.rows)}</figure>\n"


def _state(state: SessionState) -> str:
    return f'<span class="state {_STATE_CLASSES[state]}">{state.value}</span>'


def _count(number: int) -> str:
    return f'<td class="count{"" if number else " bad"}">{number:,}</td>'


def _rows(result: Verification) -> str:
    body = "".join(
        f"<tr><td>{_state(row.source)}</td><td>{escape(row.label)}</td>"
        f"<td>{'(same)' if row.destination is row.source else _state(row.destination)}</td>"
        f'<td class="why">{_code(row.why)}</td>{_count(result.tally.rows[row])}</tr>\n'
        for row in TABLE
    )
    return (
        '<h2>Transitions</h2>\n<table class="stack"><thead><tr><th>from</th><th>input [guard] / effects</th><th>to</th>'
        f'<th>why</th><th class="count">times taken</th></tr></thead><tbody>\n{body}</tbody></table>\n'
    )


def _code(text: str) -> str:
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _invariants(result: Verification) -> str:
    body = "".join(
        f'<tr><td class="state">{escape(name)}</td><td>{_code(sentence)}</td>'
        f"{_count(result.tally.invariants[name])}</tr>\n"
        for name, sentence in result.meanings.items()
    )
    return (
        '<h2>Invariants</h2>\n<table class="stack"><thead><tr><th>name</th><th>meaning</th>'
        f'<th class="count">times checked</th></tr></thead><tbody>\n{body}</tbody></table>\n'
    )


def _samples(result: Verification) -> str:
    parts = [
        "<h2>A trace for each row</h2>\n",
        f'<p class="lead">{escape(_SAMPLES_LEAD)}</p>\n<div class="samples">\n',
    ]
    parts += [_sample(row, result.tally.samples[row]) for row in TABLE if row in result.tally.samples]
    return "".join([*parts, "</div>\n"])


def _sample(row: Row, sample: Sample) -> str:
    first = sample.steps[0]
    steps = sample.steps if first.input is External.START else (Step(first.at, External.START), *sample.steps)
    moments = list(Replay(steps, MemoryStore(), sample.options, ticking=False).run())[:-1]
    previous_time = first.at
    items: list[str] = []
    for number, moment in enumerate(moments, start=1):
        gap = (moment.at - previous_time).total_seconds()
        items.append(_item(moment, f"+{gap:,g} s", is_last=number == len(moments)))
        previous_time = moment.at
    options = sample.options
    timeouts = f"timeouts {options.foreground_timeout:,g} s and {options.background_timeout:,g} s"
    return (
        f"<section><h3>{_state(row.source)} {escape(row.label)} "
        f'<span class="why">({timeouts})</span></h3>\n'
        f'<ol class="timeline">{"".join(items)}</ol></section>\n'
    )


def _item(moment: Moment, gap: str, *, is_last: bool) -> str:
    pending = moment.session_index is None
    session = "pending" if pending else f"session {moment.session_index}, event {moment.event_index}"
    state = _STATE_CLASSES[moment.state]
    return (
        f'<li class="{state}{" here" if is_last else ""}"><div class="gap">{gap}</div>'
        f'<div class="bar{" pending" if pending else ""}"></div><div class="input">{escape(moment.input)}</div>'
        f'<div>{moment.state.value}</div><div class="session">{session}</div></li>'
    )
