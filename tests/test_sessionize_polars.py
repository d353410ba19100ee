"""Sessionizing in Polars equals the fold, in any order of rows, in parts, and on both engines."""

from __future__ import annotations

import pickle
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("polars", reason="needs polars")

import polars as pl

from client_session.input_log import REMEMBERED_EVENTS, InputRecord
from client_session.sessionize.errors import LogError
from client_session.sessionize.polars import carried_state, sessionize, sessionize_parquet
from client_session.sessionize.settings import ENTITY_COLUMNS, LOG_COLUMNS, STATE_COLUMNS
from client_session.verify.offline import SETTINGS, LogSettings, distinct_logs, exhaustive_logs, expected, random_logs
from client_session.verify.polars_sessionizer import log_frame
from client_session.verify.reference import Fold as ReferenceFold

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from client_session.sessionize.fold import SessionizedEvent, UserState

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def log_of(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Return a log whose times are seconds after midnight."""
    return log_frame(
        InputRecord(user_id, MIDNIGHT + timedelta(seconds=seconds), *rest) for user_id, seconds, *rest in rows
    )


def shuffled(log: pl.DataFrame) -> pl.DataFrame:
    """Return a log in another order."""
    return log.sample(fraction=1, shuffle=True, seed=7)


def rows_of(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows in the order of user and sequence."""
    return sorted(frame.rows(), key=lambda row: (row[0], row[2]))


def rows_of_fold(events: Iterable[SessionizedEvent]) -> list[tuple[Any, ...]]:
    """Return the events of a fold as rows."""
    return sorted((attrs.astuple(event) for event in events), key=lambda row: (row[0], row[2]))


def states_of(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return states as rows."""
    return sorted(frame.rows())


def states_of_fold(states: Iterable[UserState]) -> list[tuple[Any, ...]]:
    """Return the states of a fold as rows. Without a session, it does not matter whether checking is stopped."""
    rows: list[tuple[Any, ...]] = []
    for state in states:
        values = attrs.asdict(state) | {"is_checking": state.is_checking or state.is_over}
        recent = values.pop("recent_event_ids")
        rows.append((*values.values(), *recent, *[None] * (REMEMBERED_EVENTS - len(recent))))
    return sorted(rows)


def assert_equals_fold(records: list[InputRecord], chosen: LogSettings) -> None:
    """Check events and states against the fold."""
    events, states = expected(records, chosen)
    log, given_settings = shuffled(log_frame(records)), attrs.asdict(chosen)
    assert rows_of(sessionize(log, **given_settings).collect()) == rows_of_fold(events)
    assert states_of(carried_state(log, **given_settings).collect()) == states_of_fold(states)


@pytest.mark.parametrize("chosen", SETTINGS)
def test_every_short_log_equals_the_fold(chosen: LogSettings) -> None:
    """All distinct logs of three inputs, over all kinds and gaps up to the longest limit, equal the fold."""
    assert_equals_fold([record for log in distinct_logs(3, chosen) for record in log], chosen)


@pytest.mark.parametrize("chosen", SETTINGS)
def test_every_log_of_four_inputs_equals_the_fold(chosen: LogSettings) -> None:
    """All logs of four inputs, over the kinds whose effects last, give the events and states of the fold."""
    kinds = ("event", "passive", "background", "foreground", "stop-checker", "forget")
    assert_equals_fold([record for log in exhaustive_logs(4, kinds, (1, 2, 4)) for record in log], chosen)


@pytest.mark.parametrize("chosen", SETTINGS)
def test_every_short_log_equals_the_specification(chosen: LogSettings) -> None:
    """The indexes and first events are those of the reference that is based only on the text of the specification."""
    kinds = ("event", "passive", "touch", "background", "foreground", "new-session", "stop-checker", "start-checker")
    logs = [record for log in exhaustive_logs(3, (*kinds, "start"), (0, 2, 3, 4)) for record in log]
    values = attrs.asdict(chosen) | {"max_duration": chosen.max_duration or float("inf")}
    del values["namespace"]
    fold, places = ReferenceFold(**values), set[tuple[Any, ...]]()
    for record in logs:
        at = (record.time - MIDNIGHT).total_seconds()
        if place := fold.add(record.user_id, at, record.input, record.event_id):
            places.add((*attrs.astuple(place), record.sequence))
    result = sessionize(shuffled(log_frame(logs)), **attrs.asdict(chosen))
    columns = ("user_id", "session_index", "event_index", "first_event_id", "sequence")
    assert set(result.select(columns).collect().rows()) == places


@settings(max_examples=60, deadline=None)
@given(random_logs(), st.sampled_from(SETTINGS))
def test_random_logs_equal_the_fold(records: list[InputRecord], chosen: LogSettings) -> None:
    """Logs with ties, repeated events, clocks that are set back, starts and forgotten users equal the fold."""
    assert_equals_fold(records, chosen)


@settings(max_examples=60, deadline=None)
@given(random_logs(), st.sampled_from(SETTINGS), st.data())
def test_incremental_runs_equal_one_run(records: list[InputRecord], chosen: LogSettings, data: st.DataObject) -> None:
    """Three parts of a log, each continued from the state after the part before, give what one run gives."""
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(records))] * 2)))
    events, states = expected(records, chosen)
    carried, rows = None, list[tuple[Any, ...]]()
    for part in (records[:first], records[first:second], records[second:]):
        log = shuffled(log_frame(part))
        rows += sessionize(log, **attrs.asdict(chosen), carried=carried).collect().rows()
        carried = carried_state(log, **attrs.asdict(chosen), carried=carried).collect()
    assert carried is not None
    assert sorted(rows, key=lambda row: (row[0], row[2])) == rows_of_fold(events)
    assert states_of(carried) == states_of_fold(states)


@settings(max_examples=30, deadline=None)
@given(random_logs(), st.sampled_from(SETTINGS), st.data())
def test_states_of_the_fold_can_be_carried(
    records: list[InputRecord], chosen: LogSettings, data: st.DataObject
) -> None:
    """A state that the fold returned continues like the fold itself."""
    split = data.draw(st.integers(0, len(records)))
    _, before = expected(records[:split], chosen)
    events, states = expected(records[split:], chosen, before)
    carried = pl.DataFrame(states_of_fold(before), schema=carried_state(log_frame([])).collect_schema(), orient="row")
    log, values = log_frame(records[split:]), attrs.asdict(chosen)
    assert rows_of(sessionize(log, **values, carried=carried).collect()) == rows_of_fold(events)
    assert states_of(carried_state(log, **values, carried=carried).collect()) == states_of_fold(states)


def test_streaming_engine_gives_the_same() -> None:
    """The result can be collected with the streaming engine."""
    records = [record for log in exhaustive_logs(2) for record in log]
    log = log_frame(records).lazy()
    rows = [rows_of(sessionize(log).collect(engine=engine)) for engine in ("in-memory", "streaming")]
    assert rows[0] == rows[1]
    states = [states_of(carried_state(log).collect(engine=engine)) for engine in ("in-memory", "streaming")]
    assert states[0] == states[1]


def test_states_have_the_columns_of_the_queries() -> None:
    """States can be carried from Polars to SQL, and back."""
    assert tuple(carried_state(log_frame([])).collect_schema()) == STATE_COLUMNS


def test_empty_log() -> None:
    """An empty log has no events, and keeps the states that are carried."""
    assert sessionize(log_frame([])).collect().is_empty()
    carried = carried_state(log_of(("a", 0, 0, "event", "e"))).collect()
    assert carried_state(log_frame([]), carried=carried).collect().rows() == carried.rows()
    assert sessionize(log_frame([]), carried=carried).collect().is_empty()


def test_columns_keep_their_names_and_types() -> None:
    """The log's columns have the caller's names in the result, and its types of times and sequences."""
    names = dict(zip(LOG_COLUMNS, ("domain userid", "tstamp", "n", "kind", "id"), strict=True))
    log = log_of(("a", 0, 0, "event", "e"), ("a", 1, 1, "event", "f")).with_columns(
        pl.col("time").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ns"),
        pl.col("sequence").cast(pl.UInt8),
        pl.col("input").cast(pl.Categorical),
    )
    result = sessionize(log.rename(names).with_columns(more=1), columns=names).collect()
    assert result.columns == [*names.values(), *ENTITY_COLUMNS]
    assert result.schema["tstamp"] == pl.Datetime("ns", "Asia/Tokyo")
    assert result.schema["n"] == pl.UInt8
    assert result["first_event_timestamp"].to_list() == [MIDNIGHT, MIDNIGHT]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:10:00Z",
        "2026-01-01T00:10:00",
        "2026-01-01 00:10:00",
        "2026-01-01 00:10:00Z",
        "2026-01-01T02:10:00+02:00",
        "2025-12-31T14:10:00.000000-10:00",
    ],
)
def test_times_may_be_text(text: str) -> None:
    """RFC 3339 text with any offset, or none (UTC), is a time; one log can have several kinds."""
    log = log_of(("a", 0, 0, "event", "e"), ("a", 600, 1, "event", "f"))
    log = log.with_columns(time=pl.Series(["2026-01-01T00:00:00.000001Z", text]))
    assert sessionize(log).collect()["session_index"].to_list() == [1, 1]
    log = log.with_columns(time=pl.Series(["2026-01-01T00:00:00.000000Z", text]))
    result = sessionize(log).collect()
    assert result["session_index"].to_list() == [1, 2]
    assert result["time"].to_list() == log["time"].to_list()
    assert result["first_event_timestamp"].to_list() == [MIDNIGHT, MIDNIGHT + timedelta(seconds=600)]


@pytest.mark.parametrize("time", [pl.Datetime("ms"), pl.Datetime("ns"), pl.Datetime("us", "America/New_York")])
def test_datetimes_of_any_unit_and_zone(time: pl.Datetime) -> None:
    """A time without a zone is in UTC."""
    log = log_of(("a", 0, 0, "event", "e"), ("a", 600, 1, "event", "f"))
    log = log.with_columns(pl.col("time").cast(time))
    assert sessionize(log).collect()["first_event_timestamp"].to_list() == [
        MIDNIGHT,
        MIDNIGHT + timedelta(seconds=600),
    ]


def test_repeats_can_be_kept() -> None:
    """With drop_repeats=False, an event that is sent again counts again."""
    log = log_of(("a", 0, 0, "event", "e"), ("a", 1, 1, "event", "e"))
    assert sessionize(log).collect()["event_index"].to_list() == [1]
    assert sessionize(log, drop_repeats=False).collect()["event_index"].to_list() == [1, 2]


def test_equal_rows_are_one_row() -> None:
    """A row that was delivered twice changes nothing."""
    log = log_of(("a", 0, 0, "event", "e"), ("a", 1, 1, "background", None), ("a", 301, 2, "event", "f"))
    assert rows_of(sessionize(pl.concat([log, log])).collect()) == rows_of(sessionize(log).collect())


def test_ids_of_text_that_is_not_ascii() -> None:
    """Ids are derived from the UTF-8 of users and events, as the fold derives them."""
    records = [
        InputRecord(user, MIDNIGHT + timedelta(hours=hour), hour, "event", f"é{hour}")
        for user in ("zoë", "😀")
        for hour in range(3)
    ]
    assert rows_of(sessionize(log_frame(records)).collect()) == rows_of_fold(expected(records, LogSettings())[0])


def test_users_whose_hashes_are_equal() -> None:
    """Sequences and times so far apart that few bits remain for the hash of a user do not mix users up."""
    users = [f"user-{number}" for number in range(6000)]
    records = [
        InputRecord(user, time, sequence, "event", f"{user}-{sequence}")
        for user in users
        for sequence, time in ((0, MIDNIGHT), (2**62, MIDNIGHT + timedelta(days=20)))
    ]
    random.Random(0).shuffle(records)  # noqa: S311  # an order, not a secret
    result = sessionize(log_frame(records)).collect()
    assert result["session_index"].to_list() == [1, 2] * len(users)
    assert result["user_id"].n_unique() == len(users)
    assert (result["event_index"] == 1).all()


def test_ids_are_computed_only_if_selected() -> None:
    """A query that selects neither id does not hash anything."""
    result = sessionize(log_of(("a", 0, 0, "event", "e")))
    assert "client-session/1/" in result.explain()
    assert "client-session/1/" in result.select("previous_session_id").explain()
    assert "client-session/1/" not in result.select(pl.exclude("session_id", "previous_session_id")).explain()


def test_filters_do_not_change_what_is_counted() -> None:
    """Rows that are filtered out of the result still count."""
    log = log_of(("a", 0, 0, "event", "e"), ("a", 1, 1, "event", "f"), ("b", 2, 0, "event", "g"))
    result = sessionize(log)
    for condition in (pl.col("event_id") == "f", pl.col("user_id") == "b", pl.col("session_id").is_not_null()):
        assert rows_of(result.filter(condition).collect()) == rows_of(result.collect().filter(condition))


GOOD = ("a", 10, 0, "event", "e")
BAD_ROWS: dict[str, tuple[Any, ...]] = {
    "null or empty user ids: 2": ("", 11, 1, "event", "f"),
    "null sequences: 2": ("a", 11, None, "event", "f"),
    "inputs other than start, event": ("a", 11, 1, "click", "f"),
    "events with null or empty ids: 2": ("a", 11, 1, "event", ""),
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_bad_rows_are_counted_and_shown(message: str) -> None:
    """The error has each problem's count, and its first rows."""
    log = log_of(GOOD, BAD_ROWS[message], BAD_ROWS[message])
    with pytest.raises(LogError, match=message) as caught:
        sessionize(log).collect()
    (problem,) = caught.value.problems
    assert problem.count == 2
    assert len(problem.examples) == 2
    assert "2026-01-01T00:00:11" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301  # our own


def test_all_problems_of_rows_are_reported() -> None:
    """One error has every problem, with three examples each."""
    log = log_of(*[("a", second, second, "event", None) for second in range(5)], ("a", 6, 6, "click", None))
    with pytest.raises(LogError) as caught:
        carried_state(log).collect()
    assert [(problem.count, len(problem.examples)) for problem in caught.value.problems] == [(1, 1), (5, 3)]


@pytest.mark.parametrize("time", [None, "yesterday", "2026-02-30T00:00:00Z", "2026-01-01"])
def test_text_that_is_not_a_time(time: str | None) -> None:
    """A null, or text that is not a time, is reported as it is in the log."""
    log = log_of(GOOD, ("a", 11, 1, "event", "f")).with_columns(time=pl.Series(["2026-01-01T00:00:00Z", time]))
    with pytest.raises(
        LogError, match=f"times that are null, or text that is not like 2026-03-01T08:04:00Z: 1, such as .*{time}"
    ):
        sessionize(log).collect()


def test_rows_without_an_order() -> None:
    """Rows that differ must not have the same user, time and sequence."""
    with pytest.raises(LogError, match=r"rows that differ, with equal user, time and sequence: 1, .*event_id='f'"):
        sessionize(log_of(GOOD, ("a", 10, 0, "event", "f"))).collect()
    with pytest.raises(LogError, match="rows that differ"):
        sessionize(log_of(GOOD, ("a", 10, 0, "passive", "e"))).collect()


def test_rows_before_the_carried_state() -> None:
    """Rows that are earlier than their user's state must not be sessionized after it."""
    carried = carried_state(log_of(GOOD)).collect()
    late = log_of(("a", 9, 5, "event", "f"), ("a", 12, 6, "event", "g"), ("b", 1, 0, "event", "h"))
    with pytest.raises(LogError, match=r"times earlier than .* carried with: 1, such as .*event_id='f'"):
        sessionize(late, carried=carried).collect()


def test_times_before_a_clock_that_was_set_back() -> None:
    """After a clock was set back, no row may be earlier than the clock's record, unless it is later than all before."""
    log = log_of(GOOD, ("a", 5, 1, "clock", None), ("a", 4, 2, "event", "f"))
    with pytest.raises(LogError, match=r"times earlier than those before them.*: 1, such as .*event_id='f'"):
        sessionize(log).collect()


def test_ids_may_be_integers() -> None:
    """Integers give the same rows as the text of these integers."""
    text = log_of(("7", 0, 0, "event", "1"), ("7", 1, 1, "event", "2"), ("7", 9, 2, "event", "3"))
    integers = text.with_columns(user_id=pl.col("user_id").cast(pl.Int32), event_id=pl.col("event_id").cast(pl.UInt64))
    assert sessionize(integers).collect().equals(sessionize(text).collect())


def test_wrong_columns_raise_at_once() -> None:
    """Missing columns and wrong types are errors of the call, not of the collection."""
    log = log_of(GOOD)
    with pytest.raises(TypeError, match=r"columns must be a mapping such as .*, or None, not 'user_id=who'"):
        sessionize(log, columns="user_id=who")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="log lacks the columns event_id; it has user_id, time"):
        sessionize(log.drop("event_id"))
    with pytest.raises(TypeError, match=r"column time must be Datetime or String \(pl.from_epoch .*\), not Int32"):
        sessionize(log.with_columns(time=1))
    with pytest.raises(TypeError, match="the log's column sequence must be an integer, not Float64"):
        sessionize(log.with_columns(sequence=1.0))
    with pytest.raises(TypeError, match="must be String, Categorical or Enum, or an integer, not Float64"):
        sessionize(log.with_columns(user_id=1.0))
    with pytest.raises(TypeError, match="the log's column input must be String, Categorical or Enum, not Int32"):
        sessionize(log.with_columns(input=1))
    with pytest.raises(ValueError, match="carried lacks the columns time"):
        sessionize(log, carried=carried_state(log).drop("time"))
    with pytest.raises(TypeError, match="carried's column is_over must be Boolean, not String"):
        sessionize(log, carried=carried_state(log).with_columns(is_over=pl.lit("no")))
    with pytest.raises(TypeError, match=r"log must be a LazyFrame or a DataFrame, not \[\]"):
        sessionize([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="drop_repeats must be True or False"):
        sessionize(log, drop_repeats=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("partitions", [None, 1, 7])
def test_parquet_equals_one_run(tmp_path: Path, partitions: int | None) -> None:
    """A log that is sessionized in parts gives the same rows in one file, and reports its progress."""
    records = [record for log in exhaustive_logs(2) for record in log]
    log_frame(records).write_parquet(tmp_path / "log.parquet")
    output, reported = tmp_path / "sessions.parquet", list[float]()
    sessionize_parquet(tmp_path / "log.parquet", output, partitions=partitions, progress=reported.append)
    assert rows_of(pl.read_parquet(output)) == rows_of(sessionize(log_frame(records)).collect())
    assert reported == sorted(reported)
    assert reported[-1] == pytest.approx(1)
    assert {path.name for path in tmp_path.iterdir()} == {"log.parquet", "sessions.parquet"}


def test_parquet_continues_from_states(tmp_path: Path) -> None:
    """Each part continues from the states of its own users."""
    records = [record for log in exhaustive_logs(2, ("event", "background", "repeat")) for record in log]
    before, after = log_frame(records[::2]), log_frame(records[1::2])
    sessionize_parquet(after.lazy(), tmp_path / "out", carried=carried_state(before), partitions=3)
    events = [*rows_of(sessionize(before).collect()), *pl.read_parquet(tmp_path / "out").rows()]
    assert sorted(events) == rows_of(sessionize(log_frame(records)).collect())


def test_parquet_of_a_bad_log(tmp_path: Path) -> None:
    """Problems of all parts are counted together, the file is not replaced, and no temporary file remains."""
    output = tmp_path / "sessions.parquet"
    output.write_text("as before")
    log = log_of(*[(f"user-{number}", 0, 0, "event" if number % 2 else "click", "e") for number in range(40)])
    with pytest.raises(LogError, match=r"inputs other than .*: 20, such as") as caught:
        sessionize_parquet(log.lazy(), output, partitions=4)
    assert len(caught.value.problems) == 1
    assert len(caught.value.problems[0].examples) == 3
    assert output.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [output]


def test_offsets_do_not_depend_on_the_local_zone() -> None:
    """Aware times of any zone are the same moments."""
    zone = timezone(timedelta(hours=5, minutes=30))
    log = log_frame([InputRecord("a", MIDNIGHT.astimezone(zone), 0, "event", "e")])
    assert sessionize(log).collect()["first_event_timestamp"].item() == MIDNIGHT
