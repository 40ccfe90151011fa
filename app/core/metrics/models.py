"""Tables of numbers over time: training metrics and memory readings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlmodel import Field

from app.core.table import Numbered, Table, json_field


class Metric(Table, table=True):
    """One value of one series at one step. A step that is run again replaces its row."""

    __tablename__ = "metric"
    __table_args__ = ({"sqlite_with_rowid": False},)

    job_id: int = Field(foreign_key="job.id", primary_key=True)
    name: str = Field(primary_key=True)
    step: int = Field(primary_key=True)
    value: float | None  # None where the value was not finite
    time: float


class MetricBucket(Table, table=True):
    """The points of one series within 8**level steps; app.core.metrics.pyramid keeps them."""

    __tablename__ = "metric_bucket"
    __table_args__ = ({"sqlite_with_rowid": False},)

    job_id: int = Field(foreign_key="job.id", primary_key=True)
    name: str = Field(primary_key=True)
    level: int = Field(primary_key=True)
    bucket: int = Field(primary_key=True)
    step: int  # of its newest point, like time and last
    time: float
    last: float | None
    points: int  # finite ones
    missing: int  # those that were not finite
    total: float
    low: float | None
    high: float | None


class MemoryReading(Numbered, table=True):
    """One sample of GPU and host, about once a second, or several rolled up; `job_id` is the job that ran then."""

    __tablename__ = "memory_reading"
    __table_args__ = (
        Index("ix_memory_reading_job_id_time", "job_id", "time"),
        Index("ix_memory_reading_seconds_time", "seconds", "time"),  # what is due to be rolled up
    )

    job_id: int | None = None
    time: float
    seconds: int = 1  # 1: a sample; 10 or 60: rolled up; 0: a sample that is never rolled up
    data: dict[str, Any] = json_field(nullable=False, default_factory=dict)
