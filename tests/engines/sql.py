"""SQL engines that run in tests only, beside `client_session.verify.sql_engines`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from client_session.verify.sql_engines import column_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql import SparkSession


class PostgresEngine:
    """PostgreSQL, on a server of its own."""

    dialect = "postgres"

    def __init__(self, port: int) -> None:
        """Create the tables."""
        import psycopg  # noqa: PLC0415  # it may be missing

        self._connection = psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres", autocommit=True)
        log, carried = column_types("text", "timestamptz", "bigint", "boolean")
        self._connection.execute(f"CREATE TABLE log ({log}); CREATE TABLE carried ({carried})")

    def load(self, log: Iterable[Sequence[Any]], carried: Iterable[Sequence[Any]]) -> None:
        """Replace the rows of both tables."""
        for table, rows in (("log", log), ("carried", carried)):
            self._connection.execute(f"TRUNCATE {table}")
            with self._connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            self._connection.execute(f"ANALYZE {table}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query's result."""
        return self._connection.execute(sql).fetchall()


class SparkEngine:
    """Spark, in local mode, with a session of its own."""

    dialect = "spark"

    def __init__(self, spark: SparkSession) -> None:
        """Store the session."""
        self._spark = spark
        self._types = column_types("STRING", "TIMESTAMP", "BIGINT", "BOOLEAN")

    def load(self, log: Iterable[Sequence[Any]], carried: Iterable[Sequence[Any]]) -> None:
        """Replace the rows of both tables."""
        for table, types, rows in zip(("log", "carried"), self._types, (log, carried), strict=True):
            self._spark.createDataFrame(list(rows), types).coalesce(1).createOrReplaceTempView(table)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query's result."""
        # Times are local: the tests' session has UTC.
        return [
            tuple(value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in row)
            for row in self._spark.sql(sql).collect()
        ]
