"""Imports every table, so that the metadata is whole. Import this where foreign keys must resolve."""

from app.core.accounts.models import ApiToken, AuditEntry, LoginSession, User
from app.core.artifacts.models import Artifact
from app.core.chats.models import ChatTurn, SamplePrompt
from app.core.datasets.models import Dataset
from app.core.events.models import Event
from app.core.jobs.models import Attempt, Job, QueueState, WorkerState
from app.core.metrics.models import MemoryReading, Metric, MetricBucket
from app.core.models.models import BaseModel, CodeConsent
from app.core.notices.models import Notice, Webhook

__all__ = [
    "ApiToken",
    "Artifact",
    "Attempt",
    "AuditEntry",
    "BaseModel",
    "ChatTurn",
    "CodeConsent",
    "Dataset",
    "Event",
    "Job",
    "LoginSession",
    "MemoryReading",
    "Metric",
    "MetricBucket",
    "Notice",
    "QueueState",
    "SamplePrompt",
    "User",
    "Webhook",
    "WorkerState",
]
