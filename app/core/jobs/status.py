"""The kinds and states of jobs, the moves between states, and the lanes in which the worker runs jobs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


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


class OnFailure(StrEnum):
    """What becomes of the queue once a training has failed."""

    CONTINUE = "continue"  # the next job starts
    PAUSE = "pause"  # nothing starts until somebody has looked


class JobKind(StrEnum):
    """What a job does."""

    TRAIN = "train"
    MERGE = "merge"
    IMPORT = "import"  # make a base model or a dataset ready: convert, or download
    PLAYGROUND = "playground"  # one answer, or a chat
    CHECK = "check"  # what is wrong with a data file, and how its rows look to a model
    PREVIEW = "preview"  # some rows as training would see them
    EXPORT = "export"  # make another program's file of a model, or send what was made to the hub
    ADAPTER = "adapter"  # take in an adapter that was trained elsewhere


class Lane(StrEnum):
    """A queue within the queue: the worker runs one job of each lane at a time, all lanes beside each other."""

    GPU = "gpu"  # train, playground
    CHAT = "chat"  # on the CPU: chats that were asked not to wait for what trains
    MODEL = "model"  # imports of base models: a download of hours holds up nothing else
    DATA = "data"  # imports of datasets, and of adapters
    MERGE = "merge"  # on the CPU, yielding to what trains
    EXPORT = "export"  # on the CPU
    UPLOAD = "upload"  # to the hub: hours of it hold up no export
    CHECK = "check"  # of datasets: a million rows under a model take an hour
    VIEW = "view"  # previews: somebody waits for them


WITH_ADAPTER = frozenset({JobKind.TRAIN, JobKind.ADAPTER})  # what is merged, exported and chatted with
GPU_KINDS = frozenset({JobKind.TRAIN, JobKind.PLAYGROUND})
QUEUED_KINDS = frozenset(JobKind) - {JobKind.PREVIEW}  # previews have a lane of their own, and are gone in a moment
LIGHT_LANES = frozenset({Lane.DATA, Lane.CHECK, Lane.VIEW})  # their processes load no torch


ACTIVE = frozenset({JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING})
ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.STARTING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.STARTING: frozenset({JobStatus.RUNNING, JobStatus.STOPPING, JobStatus.INTERRUPTED} | ENDED),
    JobStatus.RUNNING: frozenset({JobStatus.STOPPING, JobStatus.INTERRUPTED} | ENDED),
    JobStatus.STOPPING: frozenset({JobStatus.INTERRUPTED} | ENDED),
    JobStatus.INTERRUPTED: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset({JobStatus.QUEUED}),  # an ended training, where somebody starts it again
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}


def status_words(status: str, summary: Mapping[str, Any], *, paused: bool = False) -> str:
    """For people: a job that was stopped and saved is cancelled by its status, and keeps what it learned."""
    if paused:
        return "pausing" if status in ACTIVE else "paused"
    saved = status == JobStatus.CANCELLED and summary.get("stopped_by_user")
    return "stopped, saved" if saved else str(status)
