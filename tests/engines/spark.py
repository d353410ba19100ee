"""Spark in local mode, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

OPTIONS: dict[str, bool | float | int | str | None] = {
    "spark.master": "local[2]",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    # Compiling and optimizing takes longer than these logs are worth.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
}


def skip_without_spark() -> None:
    """Skip the test if PySpark or Java is not installed."""
    pytest.importorskip("pyspark.sql", reason="needs pyspark")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=os.path.join(home, "bin") if home else None) is None:  # noqa: PTH118  # a search path
        pytest.skip("needs Java 17 or later (Debian's package openjdk-17-jre-headless)")


@contextlib.contextmanager
def run_spark() -> Iterator[SparkSession]:
    """Run Spark in this process; skip the test if it is not installed."""
    skip_without_spark()
    from pyspark.sql import SparkSession  # noqa: PLC0415  # it may be missing

    with SparkSession.builder.config(map=OPTIONS).getOrCreate() as session:
        yield session


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which programs run Spark as the tests do; the configuration is written to a folder."""
    text = "".join(f"{name} {value}\n" for name, value in OPTIONS.items())
    (folder / "spark-defaults.conf").write_text(text, encoding="utf-8")
    return {"SPARK_CONF_DIR": os.fspath(folder), "PYSPARK_PYTHON": sys.executable}
