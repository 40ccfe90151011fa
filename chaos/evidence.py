"""What a run left behind: its database and files, beside what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sqlmodel import col, select

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.events.models import Event
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import Metric
from app.core.paths import DataFolder

Finding = Iterator[str | None]  # for each thing looked at: None, or what is wrong with it


@dataclass
class Evidence:
    """Read once everything has stopped. `jobs` maps each acknowledged training to its variant, `twins` each variant to
    its undisturbed job, `merges` each acknowledged merge to its training.
    """

    folder: DataFolder
    database: Database
    jobs: dict[int, str]
    twins: dict[str, int]
    merges: dict[int, int]
    unsure: set[str] = field(default_factory=set)
    streamed: Sequence[int] = ()  # ids of events in the order in which they came
    resumed: Sequence[float] = ()  # seconds that it took what was hit to go on
    late: Sequence[str] = ()
    left_over: Sequence[str] = ()

    @cached_property
    def rows(self) -> list[Job]:
        """Every job."""
        with self.database.read() as session:
            return list(session.exec(select(Job).order_by(col(Job.id))))

    @cached_property
    def done(self) -> list[Job]:
        """Those that completed."""
        return [job for job in self.rows if job.status == JobStatus.COMPLETED]

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Every attempt, by job and number."""
        with self.database.read() as session:
            return list(session.exec(select(Attempt).order_by(col(Attempt.job_id), col(Attempt.number))))

    def attempts_of(self, job: Job) -> list[Attempt]:
        """Of one job, by number."""
        return [attempt for attempt in self.attempts if attempt.job_id == job.id]

    @cached_property
    def events(self) -> list[Event]:
        """The log, by id."""
        with self.database.read() as session:
            return list(session.exec(select(Event).order_by(col(Event.id))))

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Every artifact's row."""
        with self.database.read() as session:
            return list(session.exec(select(Artifact).order_by(col(Artifact.id))))

    def metrics(self, job_id: int) -> dict[tuple[str, int], float | None]:
        """{(name, step): value} of a job."""
        with self.database.read() as session:
            rows = session.exec(select(Metric).where(Metric.job_id == job_id)).all()
        return {(row.name, row.step): row.value for row in rows}

    def twin_of(self, job: Job) -> int | None:
        """The undisturbed job with the same spec."""
        variant = self.jobs.get(job.key)
        if variant is None:  # its submission was cut off, and it is here all the same
            specs = {each.key: each.spec for each in self.rows}
            variant = next((name for name, twin in self.twins.items() if specs[twin] == job.spec), None)
        return self.twins.get(variant or "")

    def with_twins(self) -> Iterator[tuple[Job, int]]:
        """Each completed training beside its twin."""
        for job in self.done:
            twin = self.twin_of(job) if job.kind == JobKind.TRAIN else None
            if twin is not None and twin != job.id:
                yield job, twin
