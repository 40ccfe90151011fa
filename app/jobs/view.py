"""Everything that a job's page shows, read in one snapshot, so that the stream can take over behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.core.artifacts.deletion import freed_bytes, job_states
from app.core.artifacts.models import Artifact
from app.core.artifacts.snippets import Snippet, list_snippets
from app.core.artifacts.store import list_artifacts
from app.core.datasets.models import Dataset
from app.core.events.log import latest_id
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.exports.uploads import Offer, describe_offer, is_upload
from app.core.jobs.controls import Action, possible_actions, states_to_retry
from app.core.jobs.expected_start import Start, expected_starts
from app.core.jobs.models import Job, QueueState
from app.core.jobs.queries import find_awaited, queue_position
from app.core.jobs.queue_state import get_queue
from app.core.jobs.receipts import find_receipt
from app.core.jobs.states import State, list_states
from app.core.jobs.status import ENDED, GPU_KINDS, JobKind, JobStatus
from app.core.metrics.store import latest_values, read_series
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from app.jobs.autopsy import ShownAutopsy, show_autopsy
from app.jobs.outcome import Fact, describe_outcome
from app.jobs.progress import Alert, Phase, find_alerts, list_phases

LOG_TAIL_EVENTS = 200
LOG_TAIL_LINES = 500


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with what belongs to it. `stream_job` is the one whose events the page follows, None when all is over."""

    job: Job
    model: BaseModel | None
    dataset: Dataset | None
    position: int | None
    start: Start | None  # when it is expected to start, where that is known
    awaited: str | None  # the model or dataset whose import the job waits for
    metrics: dict[str, float | None]
    artifacts: Sequence[Artifact]
    merge: Job | None
    exporting: Job | None  # the newest export, where it made nothing yet
    offer: Offer  # what can be uploaded, and was
    snippets: Sequence[Snippet]
    freed: Mapping[int | None, int]  # bytes by artifact; None: all of them, with what a training could go on from
    source: Job | None
    receipt: dict[str, Any] | None
    outcome: Sequence[Fact]
    phases: Sequence[Phase]
    alerts: Sequence[Alert]
    autopsy: ShownAutopsy | None
    possible: Sequence[Action]  # what its state allows
    states: Sequence[State]  # what it can go on from
    retries: Sequence[State]  # what it can start again from, beside its start
    queue_state: QueueState
    after: int

    @property
    def live(self) -> bool:
        return self.job.status not in ENDED

    @property
    def held_by_queue(self) -> bool:
        """Whether it waits because the queue is paused."""
        return self.queue_state.paused and self.job.status == JobStatus.QUEUED and self.job.kind in GPU_KINDS

    @property
    def stream_job(self) -> Job | None:
        if self.live:
            return self.job
        beside = (each for each in (self.merge, self.exporting, self.offer.unfinished) if each is not None)
        return next((each for each in beside if each.status not in ENDED), None)

    @property
    def repeats(self) -> Job | None:
        """The training that this one runs again exactly."""
        return self.source if self.job.kind == JobKind.TRAIN else None

    @property
    def same_result(self) -> bool:
        """Whether a repeated training came to the very losses of the first one."""
        losses = ("train_loss", "eval_loss")
        first = self.source.summary if self.source is not None else {}
        return "train_loss" in first and all(self.job.summary.get(name) == first.get(name) for name in losses)

    def artifacts_of(self, kind: str) -> list[Artifact]:
        """Newest first."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]


def view_job(session: Session, folder: DataFolder, job: Job) -> JobView:
    """Read what the job's page shows."""
    training = job.kind == JobKind.TRAIN
    outcome: list[Fact] = []
    if training and job.status in ENDED:
        evals = read_series(session, job.key, "eval_loss").get("eval_loss", [])
        outcome = describe_outcome(job.spec, job.summary, evals)
    model = session.get(BaseModel, job.base_model_id) if job.base_model_id else None
    artifacts = list_artifacts(session, job)
    return JobView(
        job=job,
        model=model,
        dataset=session.get(Dataset, job.dataset_id) if job.dataset_id else None,
        position=queue_position(session, job),
        start=expected_starts(session).get(job.key) if job.status == JobStatus.QUEUED else None,
        awaited=find_awaited(session, job),
        metrics=latest_values(session, job.key),
        artifacts=artifacts,
        merge=_latest(session, job, JobKind.MERGE),
        exporting=_unfinished_export(session, job),
        offer=describe_offer(session, folder, job, artifacts),
        snippets=list_snippets(job.key, artifacts, model),
        freed=_freed(folder, job, artifacts),
        source=session.get(Job, job.source_job_id) if job.source_job_id else None,
        receipt=find_receipt(folder, job) if training and job.status in ENDED else None,
        outcome=outcome,
        phases=list_phases(session, job),
        alerts=find_alerts(session, job, artifacts),
        autopsy=show_autopsy(session, job),
        possible=possible_actions(folder, job),
        states=list_states(folder, job) if training else [],
        retries=states_to_retry(folder, job) if training else [],
        queue_state=get_queue(session),
        after=latest_id(session),
    )


def log_tail(session: Session, job: Job) -> list[str]:
    """The log's last lines."""
    events = _events(session, job, EventKind.LOG, LOG_TAIL_EVENTS)
    lines = [line for event in reversed(events) for line in event.data["lines"]]
    return lines[-LOG_TAIL_LINES:]


def _events(session: Session, job: Job, kind: EventKind, limit: int) -> Sequence[Event]:
    """The newest first."""
    of_kind = select(Event).where(Event.job_id == job.id, Event.kind == kind.value)
    return session.exec(of_kind.order_by(col(Event.id).desc()).limit(limit)).all()


def _latest(session: Session, job: Job, kind: JobKind) -> Job | None:
    """The newest job of a kind that was made of this one."""
    made = select(Job).where(Job.source_job_id == job.id, Job.kind == kind)
    return session.exec(made.order_by(col(Job.id).desc()).limit(1)).first()


def _unfinished_export(session: Session, job: Job) -> Job | None:
    exports = select(Job).where(Job.source_job_id == job.id, Job.kind == JobKind.EXPORT).order_by(col(Job.id).desc())
    export = next((each for each in session.exec(exports) if not is_upload(each)), None)
    return export if export is not None and export.status != JobStatus.COMPLETED else None


def _freed(folder: DataFolder, job: Job, artifacts: Sequence[Artifact]) -> dict[int | None, int]:
    """What deleting would free, for a job that has ended: looking at every file takes a while."""
    if job.status not in ENDED or not artifacts:
        return {}
    single: dict[int | None, int] = {artifact.id: freed_bytes(folder, [artifact]) for artifact in artifacts}
    return single | {None: sum(single.values()) + freed_bytes(folder, [], job_states(folder, job))}
