"""Benchmarks: the references do the same work as a session, and tables, results, charts and checks are correct.

These tests do not measure time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import attrs
import polars as pl
import pytest
from opentelemetry.sdk.trace import Span, TracerProvider
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import (
    contention,
    embedding,
    gaps,
    logs,
    many_sessions,
    minimal,
    parsing,
    saving,
    sessionize,
    state_machines,
    timings,
    visitors,
    visitors_chart,
)
from benchmarks.chart import draw
from benchmarks.results import EVENT_ROW, Bar, Row, find_changes, machine, read, write
from client_session import ClientSession
from client_session.sessionize.polars import sessionize as polars_sessionize
from client_session.trackers.opentelemetry import SessionSpanProcessor
from client_session.visitors.value import decode
from client_session_persistence import MemoryStore, SqliteStore, XmlStore, loads
from collector import entities_of
from engines import servers
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from snowplow_tracker.tracker import Tracker

    from client_session.testing import ManualClock
    from conftest import MakeSession

MACHINES = [state_machines.TransitionsSession, state_machines.StatemachineSession]


@pytest.fixture
def pass_time(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances time for a session and for the references."""
    monkeypatch.setattr(minimal, "monotonic", clock.monotonic)
    monkeypatch.setattr(state_machines, "monotonic", clock.monotonic)
    return clock.advance


def comparable_fields(entity: Any) -> tuple[object, ...]:  # noqa: ANN401  # a SessionContext or an Entity
    """Return the fields of an entity that do not depend on randomness or real time."""
    return entity.session_index, entity.event_index, entity.previous_session_id is None, entity.first_event_id


@pytest.mark.parametrize("reference", [minimal.MinimalSession, *MACHINES])
def test_references_return_the_same_entities(
    make: MakeSession,
    pass_time: Callable[[float], None],
    reference: type[minimal.MinimalSession | state_machines.MachineSession],
) -> None:
    """In the foreground, each reference assigns events to the same sessions as our code, with the same counts."""
    session, reference_session = make(), reference()
    for number, gap in enumerate((0, 1, 599, 600, 0, 601, 599.5)):
        pass_time(gap)
        assert comparable_fields(reference_session.get_session_context(event_id(number))) == comparable_fields(
            session.get_session_context(event_id(number))
        )


@pytest.mark.parametrize("reference", MACHINES)
def test_reference_machines_follow_the_whole_lifecycle(
    make: MakeSession, pass_time: Callable[[float], None], reference: type[state_machines.MachineSession]
) -> None:
    """Each library's state machine makes the same transitions through background, expiry and foreground."""
    session, reference_session = make(), reference()
    for number, gap in enumerate((0, 299, 300, 0, 600)):
        for background in (number % 2 == 0, True, False, True):
            session.get_session_context(event_id(number))
            reference_session.get_session_context(event_id(number))
            pass_time(gap)
            session.set_background(background)
            reference_session.set_background(background=background)
            assert reference_session.state is session.state
            assert reference_session.checker_running == session.checker_running
        assert comparable_fields(reference_session.get_session_context(event_id(9))) == comparable_fields(
            session.get_session_context(event_id(9))
        )


@pytest.mark.parametrize("name", ["minimal", "session", "session, UUID", "transitions", "statemachine"])
def test_timed_events_belong_to_an_active_session(name: str) -> None:
    """Each timed statement records an event in an active session, never a session's first event."""
    statement, setup = timings.STATEMENTS[name]
    names: dict[str, Any] = {}
    exec(setup, names)  # noqa: S102  # as pyperf does
    assert eval(statement, names).event_index == 2  # noqa: S307  # as pyperf does


@pytest.mark.parametrize("name", timings.STATEMENTS)
def test_statements_run_repeatedly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement can be timed repeatedly in an empty folder."""
    monkeypatch.chdir(tmp_path)
    statement, setup = timings.STATEMENTS[name]
    names: dict[str, Any] = {}
    exec(setup, names)  # noqa: S102  # as pyperf does
    for _ in range(3):
        exec(statement, names)  # noqa: S102  # as pyperf does


def test_measured_save_file_has_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save file for the parsing benchmark has a value for every key, and the parser finds them all."""
    monkeypatch.chdir(tmp_path)
    path = parsing.create_save_file("any")
    snapshot = loads(path.read_bytes())
    collected = parsing.collect_values(path)
    assert len(collected) == len(attrs.fields(type(snapshot))) == 11
    assert all(collected.values())
    assert collected["previousSessionId"] == snapshot.previous_session_id
    assert parsing.parse(path) == 1


def test_measured_save_file_is_not_an_earlier_run_s(tmp_path: Path) -> None:
    """Each run creates its save file, since an earlier version may have written it in another form."""
    first, second = (loads(parsing.create_save_file("any", tmp_path).read_bytes()) for _ in range(2))
    assert first.user_id != second.user_id


def test_each_measured_save_writes_the_file(tmp_path: Path) -> None:
    """Each measured `save()` changes the file, and the bare write produces the same bytes."""
    saves, writes = saving.time_pairs(tmp_path, 3)
    assert len(saves) == len(writes) == 3
    saved, bare = ((tmp_path / name / "session.xml").read_bytes() for name in ("save", "bare"))
    assert loads(bare).event_index == 3
    assert loads(saved).session_id == loads(bare).session_id


def test_each_measured_save_of_a_store_is_a_new_event(tmp_path: Path) -> None:
    """The sessions in both stores track and save the same number of events."""
    in_database, in_file = saving.time_stores(tmp_path, 3)
    assert len(in_database) == len(in_file) == 3
    for store in (SqliteStore(tmp_path / "sessions.db"), XmlStore(tmp_path / "session.xml")):
        saved = store.load()
        assert saved is not None
        assert saved.event_index == 3


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_share_the_events(threads: int) -> None:
    """The total number of tracked events does not depend on the number of threads."""
    with ClientSession(store=MemoryStore()) as session:
        assert contention.track_all([session] * threads, 80) > 0
        assert session.event_index == 80


def payload_of(statement: embedding.Statement) -> dict[str, Any]:
    """Return the payload that a Snowplow tracker's timed statement sends."""
    tracker: Tracker = getattr(statement.run, "__self__")  # noqa: B009  # type checkers reject the attribute
    return tracker.complete_payload(statement.prepare()).get()


def test_embedding_cases_attach_the_same_amount_of_data() -> None:
    """Each event and its reference have the same number of entities, and each span as many attributes."""
    with embedding.tracked_session() as session:
        for case in embedding.cases(session):
            assert case.row(rounds=1, slices=1, calls=2).ours > 0
            if case.name.startswith("Snowplow"):
                ours, reference = (payload_of(statement) for statement in (case.ours, case.reference))
                assert ours.keys() == reference.keys()
                assert len(entities_of(ours)) == len(entities_of(reference)) >= 1
        for processor in (SessionSpanProcessor(session), embedding.AttributeProcessor()):
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(processor)
            span = provider.get_tracer(__name__).start_span("span")
            assert isinstance(span, Span)
            assert len(span.attributes or {}) == 2


def test_passes_are_separated_by_pauses() -> None:
    """A long pause between ticks separates two passes, and an incomplete pass is not counted."""
    assert many_sessions.pass_durations([0.5, 15, 15.5, 16, 30, 30.25, 31, 45], 3) == [1, 1]


def ratio(name: str = "a row", ours: float = 1.0, *, bar: Bar | None = None) -> Row:
    """Return a row whose ratio is `ours`."""
    return Row.of_rounds(name, [ours], [1.0], against="another", unit="ns", bar=bar)


def test_ratio_is_the_median_of_the_rounds() -> None:
    """A single outlier does not affect the ratio or the figures."""
    row = Row.of_rounds("a row", [2, 300, 4], [1, 100, 4], against="another", unit="ns")
    assert (row.ours, row.reference, row.value, row.low, row.high) == (4, 4, 2, 1, 3)


def test_speedup_inverts_the_ratio() -> None:
    """For a speedup, the ratio is the reference's time divided by ours."""
    row = Row.of_rounds("a row", [2, 2, 2], [10, 20, 30], against="another", unit="ns", speedup=True)
    assert row.value == 10


@pytest.mark.parametrize(
    ("bar", "value", "expected_holds", "expected_usage"),
    [
        (Bar(1.5), 1.5, True, 1),
        (Bar(1.5), 3.0, False, 2),
        (Bar(5, at_least=True), 10.0, True, 0.5),
        (Bar(5, at_least=True), 4.0, False, 1.25),
    ],
)
def test_bar_is_met_up_to_its_limit(bar: Bar, value: float, expected_holds: bool, expected_usage: float) -> None:  # noqa: FBT001  # parametrized
    """A value exactly at the limit meets the bar; a value beyond it uses more than 100% of the allowance."""
    row = ratio(ours=value, bar=bar)
    assert row.holds is expected_holds
    assert bar.used_share(value) == expected_usage


@pytest.mark.parametrize(("value", "is_changed"), [(1.24, False), (0.76, False), (1.26, True), (0.74, True)])
def test_ratio_may_differ_by_a_quarter(value: float, is_changed: bool) -> None:  # noqa: FBT001  # parametrized
    """The check reports a row whose ratio changed by more than 25%."""
    stored, measured = ratio(bar=Bar(2)), ratio(ours=value, bar=Bar(2))
    sentences = find_changes([stored], [measured])
    assert bool(sentences) is is_changed
    assert all("a row" in sentence for sentence in sentences)


def test_absolute_figure_is_checked_only_against_its_bar() -> None:
    """Times vary between machines, so the check fails only if a row no longer meets a bar that it used to meet."""
    stored, slower, too_slow = (
        Row.of_values("a pass", [value], unit="s", bar=Bar(0.1)) for value in (0.01, 0.09, 0.11)
    )
    assert find_changes([stored], [slower]) == []
    assert len(find_changes([stored], [too_slow])) == 1
    assert find_changes([too_slow], [too_slow]) == []


def test_row_without_a_stored_result_is_reported() -> None:
    """The check reports a row that has a limit but no stored result; it skips rows without a limit."""
    assert len(find_changes([], [ratio(bar=Bar(1)), ratio("for information")])) == 1


def test_results_round_trip(tmp_path: Path) -> None:
    """Results survive a round trip through the file, with the date and machine of the measurement."""
    rows = [ratio(bar=Bar(5, at_least=True)), Row.of_values("memory", [1.5], unit="KiB", bar=Bar(2)), ratio("free")]
    write(tmp_path / "results.json", rows, machine())
    read_rows, measured_on = read(tmp_path / "results.json")
    assert read_rows == rows
    assert measured_on == machine()
    assert {"date", "cpu", "cores", "os", "python", "versions"} == set(measured_on)


def test_chart_shows_every_judged_row_and_the_machine() -> None:
    """The chart shows the value and limit of each row that has a limit, and names the machine that was used."""
    rows = [
        ratio(EVENT_ROW, 1.2, bar=Bar(1.5)),
        ratio("event versus X", 90, bar=Bar(50, at_least=True)),
        Row.of_values("memory", [3], unit="KiB", bar=Bar(2)),
        ratio("free"),
    ]
    texts = "\n".join(ET.fromstring(draw(rows, machine())).itertext())  # noqa: S314  # our own chart
    assert all(row.name in texts for row in rows[:3])
    assert "free" not in texts
    assert "2 of 3 limits met" in texts
    shown = ("1.2 ×", "≤ 1.5 ×", "≥ 50 ×", "3 KiB", "≤ 2 KiB", machine()["python"])  # noqa: RUF001  # times, not x
    assert all(text in texts for text in shown)


def test_chart_bars_match_their_axes() -> None:
    """Bars end at the ticks of their values: logarithmic for times, and in percent of the limit for limits."""
    rows = [ratio(EVENT_ROW, 1000.0, bar=Bar(2000)), Row.of_values("memory", [3], unit="KiB", bar=Bar(4))]
    picture = ET.fromstring(draw(rows, machine()))  # noqa: S314  # our own chart
    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    ticks = {text.text: float(text.get("x") or 0) for text in texts if text.get("font-weight") is None}
    rectangles = [rectangle.attrib for rectangle in picture.iter("{http://www.w3.org/2000/svg}rect")]
    ends = [float(bar["x"]) + float(bar["width"]) for bar in rectangles[2::2]]  # after the card, each track has a bar
    assert ends == pytest.approx([ticks["0.001 µs"], ticks["1 µs"], ticks["50 %"], ticks["75 %"]], abs=0.1)


def test_chart_of_groups_has_an_axis_for_each() -> None:
    """Each group of bars has an axis from zero, in round values, on which the bars end at their values."""
    rows = [Row.of_values("memory", [3], unit="KiB", bar=Bar(4)), Row.of_values("time", [250], unit="ms")]
    sections = [("Memory", "KiB", {"memory": "memory"}), ("Time", "ms", {"time": "time"})]
    picture = ET.fromstring(visitors_chart.draw_sections("Costs", sections, rows, machine(), "x 1"))  # noqa: S314  # our own chart
    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    ticks = {text.text: float(text.get("x") or 0) for text in texts if text.get("text-anchor") in {"start", "middle"}}
    assert list(ticks) == ["0", "1", "2", "3", "4", "50", "100", "150", "200", "250"]
    rectangles = [rectangle.attrib for rectangle in picture.iter("{http://www.w3.org/2000/svg}rect")]
    ends = [float(bar["x"]) + float(bar["width"]) for bar in rectangles[2::2]]
    assert ends == pytest.approx([ticks["3"], ticks["250"]], abs=0.1)


def test_table_shows_a_verdict_for_each_row() -> None:
    """Each row is shown as meeting its limit, not meeting it, or not having one."""
    console = Console(width=200)
    rows = [ratio("fast", bar=Bar(2)), ratio("slow", 3, bar=Bar(2)), ratio("free")]
    with console.capture() as captured:
        console.print(command.table(rows))
    lines = captured.get().splitlines()
    verdicts = {line.split()[0]: line.rstrip() for line in lines[1:]}
    assert verdicts["fast"].endswith("  met")
    assert verdicts["slow"].endswith("  not met")
    assert verdicts["free"].endswith("no limit")


@pytest.mark.parametrize("name", command.SUITES)
def test_stored_chart_matches_the_stored_results(name: str) -> None:
    """The charts show the stored results; ``make bench`` and ``make bench-visitors`` write both."""
    suite = command.SUITES[name]
    assert suite.chart.read_text(encoding="utf-8") == suite.draw(*read(suite.results))


SMALL = visitors.Scale(visitors=40, events=4, rounds=2, shared_inputs=3, stored=20, in_memory=20)


@pytest.mark.engines
def test_visitors_are_measured() -> None:
    """A small run measures all rows of the stored results; a visitor who stays with a process needs one round trip."""
    if servers.redis_program() is None:
        pytest.skip("redis is not installed")
    stored, _ = read(command.SUITES["visitors"].results)
    rows = {row.name: row for row in visitors.measure(SMALL)}
    unscaled = [row.name for row in stored if "," not in row.name]
    assert set(unscaled) <= set(rows)
    assert rows[f"{visitors.SHARED}: failed inputs of 24"].value == 0
    assert rows[f"{visitors.SHARED}: missing or repeated indexes"].value == 0
    assert (
        1 <= rows[f"{visitors.SAME_PROCESS}: round trips"].value < rows[f"{visitors.RANDOM_PROCESS}: round trips"].value
    )


@pytest.fixture
def log(tmp_path: Path) -> pl.DataFrame:
    """Return a generated log of 20,000 rows."""
    with sessionize.open_duckdb(tmp_path) as connection:
        logs.write_log(connection, tmp_path / "log.parquet", 20_000)
    return pl.read_parquet(tmp_path / "log.parquet")


def test_generated_log_has_all_that_costs(log: pl.DataFrame) -> None:
    """Of the log, 80% are events; users return after gaps; a few events are repeated."""
    inputs = dict(log["input"].value_counts(normalize=True).iter_rows())
    assert 0.78 < inputs["event"] < 0.82
    assert inputs.keys() == {
        *("event", "passive", "background", "foreground", "touch", "new-session", "stop-checker", "start-checker")
    }
    result = gaps.polars(log)
    assert result.filter(pl.col("session_index") == 5).height > 0
    assert result.height > result["event_id"].n_unique()


def test_skewed_log_has_a_user_with_many_rows(tmp_path: Path) -> None:
    """In a skewed log, one user has 30% of the rows, and the others share the rest."""
    with sessionize.open_duckdb(tmp_path) as connection:
        logs.write_log(connection, tmp_path / "log.parquet", 20_000, is_skewed=True)
    counts = pl.read_parquet(tmp_path / "log.parquet")["user_id"].value_counts(sort=True)["count"]
    assert 5_600 < counts[0] < 6_400
    assert counts[1] < 1_000


def test_gap_queries_do_the_same_work(log: pl.DataFrame, tmp_path: Path) -> None:
    """All gap queries have the same result; so has `sessionize`, for a log of events only, without repeats."""
    events = log.filter(pl.col("input") == "event").unique("event_id", keep="first")
    events.write_parquet(tmp_path / "events.parquet")
    with sessionize.open_duckdb(tmp_path) as connection:
        connection.read_parquet(str(tmp_path / "events.parquet")).create_view("log")
        in_duckdb = connection.execute(gaps.SQL).fetchall()
    results = [frame.rows() for frame in (gaps.polars(events), gaps.polars_by_key(events))]
    ours = polars_sessionize(events).select(gaps.COLUMNS).collect().rows()
    wanted = sorted(results[0])
    assert sorted(results[1]) == wanted
    assert sorted(ours) == wanted
    assert sorted(in_duckdb) == wanted


def test_sessionizing_is_measured() -> None:
    """A small run measures Polars, DuckDB and Parquet files; the first two have all rows of the stored results."""
    stored, _ = read(command.SUITES["sessionize"].results)
    names = [row.name for row in sessionize.measure(2_000)]
    assert names == [row.name for row in stored if row.name.startswith(("Polars", "DuckDB"))]
    assert [row.name for row in sessionize.measure_parquet(2_000)] == [
        f"0.002 million rows, Parquet to Parquet: {figure}" for figure in ("elapsed", "CPU", "resident")
    ]


def test_measured_values_are_those_of_visitors() -> None:
    """The values that are stored to measure memory have more than eight events, and eight sessions, respectively."""
    key = visitors.key_of("bare", 0)
    usual, many = decode(key, visitors.usual_value()), decode(key, visitors.value_after(9, 1))
    assert (usual.session_index, usual.sessions[0].event_count, usual.previous_session_id is None) == (2, 12, False)
    assert (len(many.sessions), many.previous_session_id is None) == (8, False)


def test_bar_of_zero_is_used_up_by_zero() -> None:
    """A limit of 0, such as for failures, is met by 0."""
    assert Bar(0).holds(0)
    assert Bar(0).used_share(0) == 1
