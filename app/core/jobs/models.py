"""Tables of the queue: jobs, their attempts, and the worker's own row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field

from app.core.jobs.status import JobKind, JobStatus, OnFailure
from app.core.table import Numbered, Table, enum_field, json_field


class Job(Numbered, table=True):
    """One unit of work for the worker. `spec` is a TrainingSpec for training, else the request's values."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_queue", "status", "priority", "position"),
        Index("ix_job_kind_status", "kind", "status"),  # how many a list has; the newest finished trainings
        Index(
            "ix_job_train_loss", text("json_extract(summary, '$.train_loss')")
        ),  # the list's order; a batch migration would lose it
        Index("ix_job_eval_loss", text("json_extract(summary, '$.eval_loss')")),
        {"sqlite_autoincrement": True},
    )

    name: str
    kind: JobKind = enum_field(JobKind, "kind")
    status: JobStatus = enum_field(JobStatus, "status", default=JobStatus.QUEUED)
    priority: int = 0  # the higher goes first
    position: float = 0.0  # within a priority, the lower goes first
    spec: dict[str, Any] = json_field(nullable=False, default_factory=dict)
    base_model_id: int | None = Field(default=None, foreign_key="base_model.id", index=True)
    dataset_id: int | None = Field(default=None, foreign_key="dataset.id", index=True)
    source_job_id: int | None = Field(default=None, foreign_key="job.id", index=True)
    sweep_id: int | None = Field(default=None, index=True)  # of the first job of the sweep that this one is part of
    cancel_requested: bool = False
    save_requested: bool = False
    save_now_requested: bool = False  # a checkpoint after the step in hand, without an end
    sample_now_requested: bool = False  # answers to its sample prompts after the step in hand
    paused: bool = False  # not to be claimed; where a process runs, it is to save its state and end
    pause_reason: dict[str, Any] | None = json_field(default=None)  # {kind, message, advice}; None: somebody asked
    start_from: int | None = None  # the step of the state to start from, 0 for anew; None: from the newest
    forgiven_attempts: int = 0  # those before somebody started the job again; their losses count no more
    inputs: dict[str, Any] | None = json_field(default=None)  # what it was queued on; see app.core.jobs.inputs
    held_up: dict[str, Any] | None = json_field(default=None)  # {kind, message, since}: what it waits for in mid-run
    phase: str | None = None
    step: int = 0
    max_steps: int | None = None
    eta_seconds: float | None = None
    error: dict[str, Any] | None = json_field(default=None)
    summary: dict[str, Any] = json_field(nullable=False, default_factory=dict)
    attempts: int = 0
    fence: int = 0  # grows with each claim; a writer with an older one is refused
    queued_by: str | None = None  # the user's name, also once the user is gone; None: nobody who is known by name
    tags: list[str] = json_field(nullable=False, default_factory=list)  # what people call it by
    notes: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = Field(default=None, index=True)


class Attempt(Table, table=True):
    """One process that worked on a job, and how far its spool and log are ingested."""

    __tablename__ = "attempt"

    job_id: int = Field(foreign_key="job.id", primary_key=True)
    number: int = Field(primary_key=True)
    fence: int
    pid: int | None = None
    pid_started_at: float | None = None  # since the boot; with its id it tells a process from a later one of that pid
    boot_id: str | None = None
    spool_offset: int = 0
    spool_seq: int = 0
    log_offset: int = 0
    outcome: dict[str, Any] | None = json_field(default=None)  # the child's own last word
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None


class WorkerState(Table, table=True):
    """The one worker of this data folder: alive while its heartbeat is fresh."""

    __tablename__ = "worker_state"

    id: int = Field(default=1, primary_key=True)
    pid: int
    pid_started_at: float
    boot_id: str
    version: str
    started_at: float
    heartbeat_at: float  # seconds since the boot, which no clock that is set moves; 0 once it has said goodbye
    reading: dict[str, Any] | None = json_field(default=None)  # the newest GPU and host reading
    capabilities: dict[str, Any] | None = json_field(default=None)  # what its children can do; None until they said
    hub_token: bool = False  # its own environment has a token of the Hugging Face hub, beside the one that is stored


class QueueState(Table, table=True):
    """Whether jobs for the GPU start; one row, there once something was set."""

    __tablename__ = "queue_state"

    id: int = Field(default=1, primary_key=True)
    paused: bool = False
    pause_reason: dict[str, Any] | None = json_field(default=None)  # {kind, message, job_id}; None: somebody asked
    on_failure: OnFailure = enum_field(OnFailure, "on_failure", default=OnFailure.CONTINUE)
