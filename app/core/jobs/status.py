"""The states of a job and the moves between them."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands. Requests (cancel, save) are fields of the job, not states."""

    QUEUED = "queued"  # waits for the worker, and for its base model
    STARTING = "starting"  # claimed by the worker; its process starts
    RUNNING = "running"  # its process has begun
    STOPPING = "stopping"  # told to stop; its process has not been seen to end
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # its process is gone through no fault of its own; rescue queues it again


class JobKind(StrEnum):
    """What a job does."""

    TRAIN = "train"
    MERGE = "merge"
    IMPORT = "import"  # make a base model ready: convert, or download
    PLAYGROUND = "playground"  # one answer


ACTIVE = frozenset({JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING})
ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.STARTING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.STARTING: frozenset({JobStatus.RUNNING, JobStatus.STOPPING, JobStatus.INTERRUPTED} | ENDED),
    JobStatus.RUNNING: frozenset({JobStatus.STOPPING, JobStatus.INTERRUPTED} | ENDED),
    JobStatus.STOPPING: frozenset({JobStatus.INTERRUPTED} | ENDED),
    JobStatus.INTERRUPTED: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
