"""Parquet files for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], row_group_rows: int = 2048) -> Path:
    """Write rows, types inferred; a field that a row lacks is null there."""
    lines = path.with_suffix(".lines")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run_sql(
        "COPY (FROM read_json($lines, format = 'newline_delimited', sample_size = -1, hive_partitioning = false)) "
        f"TO $path (FORMAT parquet, ROW_GROUP_SIZE {row_group_rows})",
        {"lines": str(lines), "path": str(path)},
    )
    lines.unlink()
    return path


def run_sql(query: str, parameters: dict[str, str] | None = None) -> None:
    """Run a statement, as COPY (SELECT …) TO '….parquet'."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.execute(query, parameters)
