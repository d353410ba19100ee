"""Sessionizes a growing log with Spark's structured streaming: inputs in, events with their entities out.

    spark-submit examples/spark_streaming.py LOG OUT CHECKPOINT

LOG is a folder of JSON Lines, such as the records of `on_input`. OUT gets Parquet files. The program processes the
files that are new since its last run, then stops; with another trigger, it waits for more.

Rows may arrive in any order. A user's rows wait in the state until the watermark passes them, and are then applied in
order, so the result equals that of one run over the whole log. Only rows that arrive more than `MAX_DELAY` late are
dropped.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming.stateful_processor import StatefulProcessor

from client_session import InputRecord
from client_session.sessionize import Fold, UserState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.stateful_processor import ExpiredTimerInfo, StatefulProcessorHandle, TimerValues

MAX_DELAY = "10 minutes"
"""How much later than newer rows a row may arrive. The results are late by as much."""
KEEP = timedelta(days=90)
"""How long a user's state is kept after the last input. Users who return later start again with session 1."""

LOG = "user_id STRING, time TIMESTAMP, sequence BIGINT, input STRING, event_id STRING"
# Python gets and returns microseconds, because a datetime would depend on the time zone of the worker.
EVENTS = (
    "user_id STRING, time BIGINT, sequence BIGINT, input STRING, event_id STRING, session_id STRING, "
    "previous_session_id STRING, session_index BIGINT, event_index BIGINT, first_event_id STRING, "
    "first_event_timestamp BIGINT"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Sessions(StatefulProcessor):
    """The sessions of each user. Spark stores a user's state and waiting rows as JSON."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # passed on
        """Store the settings, which are those of `Fold`."""
        self._settings = settings

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Declare what Spark stores."""
        self._handle = handle
        self._stored: Any = handle.getValueState("user", "state STRING, waiting STRING")

    def handleInputRows(  # noqa: N802  # Spark's name
        self,
        key: Any,  # noqa: ANN401  # a tuple
        rows: Iterable[Any],
        timerValues: TimerValues,  # noqa: N803  # Spark's name
    ) -> Iterator[Row]:
        """Store a user's new rows, and apply those that the watermark has passed."""
        new = [[row.micros, row.sequence, row.input, row.event_id] for row in rows]
        return self._advance(key[0], new, timerValues.getCurrentWatermarkInMs())

    def handleExpiredTimer(  # noqa: N802  # Spark's name
        self,
        key: Any,  # noqa: ANN401  # a tuple
        timerValues: TimerValues,  # noqa: N803  # Spark's name
        expiredTimerInfo: ExpiredTimerInfo,  # noqa: N803  # the same
    ) -> Iterator[Row]:
        """Apply the rows that the watermark has passed, or forget a user who has been away for `KEEP`."""
        return self._advance(key[0], [], timerValues.getCurrentWatermarkInMs(), expiredTimerInfo.getExpiryTimeInMs())

    def _advance(self, user_id: str, new: list[Any], watermark: int, expired: int | None = None) -> Iterator[Row]:
        stored: tuple[Any, ...] = self._stored.get() or (None, "[]")
        state = load_state(stored[0]) if stored[0] else None
        waiting: list[Any] = sorted(json.loads(stored[1]) + new, key=_order)
        ready = [row for row in waiting if row[0] <= watermark * 1000]
        del waiting[: len(ready)]
        fold = Fold(**self._settings, carried=[state] if state else [])
        for micros, sequence, given, event_id in ready:
            if given == "clock":
                msg = f"a stream cannot follow a clock that was set back: {user_id}, sequence {sequence}"
                raise ValueError(msg)
            event = fold.add(InputRecord(user_id, EPOCH + micros * MICROSECOND, sequence, given, event_id))
            if event is not None:
                values = {**attrs.asdict(event), "time": micros}
                yield Row(**values | {"first_event_timestamp": (event.first_event_timestamp - EPOCH) // MICROSECOND})
        for timer in list(self._handle.listTimers()):
            if timer != expired:  # which Spark deletes
                self._handle.deleteTimer(timer)
        self._store(next(fold.states(), None), waiting, watermark)

    def _store(self, state: UserState | None, waiting: list[Any], watermark: int) -> None:
        if waiting:
            due = -(-waiting[0][0] // 1000)
        else:
            due = (state.time + KEEP - EPOCH) // timedelta(milliseconds=1) if state else watermark
        if due > watermark:
            self._stored.update((state and dump_state(state), json.dumps(waiting)))
            self._handle.registerTimer(due)
        else:
            self._stored.clear()


def _order(row: list[Any]) -> tuple[int, int]:
    return row[0], row[1]


def dump_state(state: UserState) -> str:
    """Return a state as JSON."""
    return json.dumps(attrs.asdict(state), default=datetime.isoformat)


def load_state(text: str) -> UserState:
    """Return the state from JSON."""
    values = json.loads(text)
    for name in ("time", "last_activity", "session_start", "first_event_timestamp"):
        values[name] = values[name] and datetime.fromisoformat(values[name])
    return UserState(**values | {"recent_event_ids": tuple(values["recent_event_ids"])})


def sessionize(log: DataFrame) -> DataFrame:
    """Return the events of a streaming log that belong to a session, with their entities."""
    events = (
        log.withColumn("micros", f.unix_micros("time"))
        .withWatermark("time", MAX_DELAY)
        .groupBy("user_id")
        .transformWithState(Sessions(), EVENTS, outputMode="append", timeMode="eventtime")
    )
    times = ("time", "first_event_timestamp")
    return events.withColumns({name: f.timestamp_micros(name) for name in times})


def main() -> None:
    """Process the files that are new."""
    parser = argparse.ArgumentParser(description="Sessionize a growing log.")
    for name in ("log", "out", "checkpoint"):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument("--files", metavar="N", type=int, default=1000, help="process N files at once (default: 1000)")
    options = parser.parse_args()
    spark = (
        SparkSession.builder.appName("sessions")
        .config(
            "spark.sql.streaming.stateStore.providerClass",
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        )
        .getOrCreate()
    )
    log = spark.readStream.schema(LOG).options(mode="FAILFAST", maxFilesPerTrigger=options.files).json(options.log)
    query = (
        sessionize(log)
        .writeStream.option("checkpointLocation", options.checkpoint)
        .trigger(availableNow=True)
        .start(options.out)
    )
    query.awaitTermination()


if __name__ == "__main__":
    main()
