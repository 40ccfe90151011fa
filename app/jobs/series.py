"""What a job's charts ask for: parts of series, readings, marks, and all points as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from app.core.database import Database
from app.core.jobs.marks import list_marks
from app.core.metrics.readings import COLUMNS, iterate_readings
from app.core.metrics.store import iterate_steps
from app.web.charts import SeriesDep, memory_chart, read_chart
from app.web.csv import csv_response
from app.web.dependencies import DatabaseDep, JobDep, SessionDep

router = APIRouter(include_in_schema=False)

_NAMES = Annotated[str, Query(min_length=1, max_length=2000)]


@router.get("/jobs/{job_id}/series")
def show_job_series(job: JobDep, session: SessionDep, query: SeriesDep) -> Response:
    """Parts of series in buckets."""
    return JSONResponse(read_chart(session, job, query))


@router.get("/jobs/{job_id}/readings")
def show_job_readings(
    job: JobDep,
    session: SessionDep,
    start: Annotated[float | None, Query(alias="from")] = None,
    end: Annotated[float | None, Query(alias="to")] = None,
    buckets: Annotated[int, Query(ge=10, le=4000)] = 1000,
) -> Response:
    """Readings of memory and GPU, of several the largest of each value."""
    return JSONResponse(memory_chart(session, job.key, start, end, buckets))


@router.get("/jobs/{job_id}/marks")
def show_job_marks(job: JobDep, session: SessionDep) -> Response:
    """Checkpoints, attempts, and the end where memory ran out."""
    return JSONResponse({"marks": [asdict(mark) for mark in list_marks(session, job)]})


@router.get("/jobs/{job_id}/series.csv")
def download_job_series(job: JobDep, database: DatabaseDep, names: _NAMES) -> Response:
    """Every point of some series, a row for each step."""
    chosen = [name for name in dict.fromkeys(names.split(",")) if name]
    filename = f"loradeck-job-{job.key}-{chosen[0] if chosen[0].isidentifier() else 'series'}.csv"
    return csv_response(_rows(database, job.key, chosen), filename)


@router.get("/jobs/{job_id}/readings.csv")
def download_job_readings(job: JobDep, database: DatabaseDep) -> Response:
    """Every reading of memory and GPU that is kept, in bytes, percent, °C and watts."""
    return csv_response(_readings(database, job.key), f"loradeck-job-{job.key}-readings.csv")


def _readings(database: Database, job_id: int) -> Iterator[list[Any]]:
    yield [COLUMNS]
    after = 0.0
    while True:
        with database.read() as session:
            chunk = iterate_readings(session, job_id, after)
        if not chunk:
            return
        yield chunk
        after = chunk[-1][0]


def _rows(database: Database, job_id: int, names: list[str]) -> Iterator[list[list[Any]]]:
    yield [["step", "time", *names]]
    after = -1
    while True:
        with database.read() as session:
            chunk = iterate_steps(session, job_id, names, after)
        if not chunk:
            return
        yield [[step, time, *(values.get(name) for name in names)] for step, time, values in chunk]
        after = chunk[-1][0]
