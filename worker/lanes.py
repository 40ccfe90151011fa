"""Which lane a job belongs to, as the queue's claims have it, and whether its process has limits."""

from __future__ import annotations

from app.core.exports.uploads import is_upload
from app.core.jobs.models import Job
from app.core.jobs.status import LIGHT_LANES, JobKind, Lane

_LANES = {
    JobKind.CHECK: Lane.CHECK,
    JobKind.PREVIEW: Lane.VIEW,
    JobKind.MERGE: Lane.MERGE,
    JobKind.EXPORT: Lane.EXPORT,
    JobKind.ADAPTER: Lane.DATA,
}


def lane_of(job: Job) -> Lane:
    """The lane in which the job runs."""
    if job.kind == JobKind.IMPORT:
        return Lane.MODEL if job.dataset_id is None else Lane.DATA
    if job.kind == JobKind.PLAYGROUND and job.spec.get("device") == "cpu":
        return Lane.CHAT
    if is_upload(job):
        return Lane.UPLOAD
    return _LANES.get(job.kind, Lane.GPU)


def is_light(job: Job) -> bool:
    """Whether the process has limits. A download takes what it takes; what comes after it sets its own limit."""
    return lane_of(job) in LIGHT_LANES and not uses_hub(job)


def uses_hub(job: Job) -> bool:
    """Whether it talks to the Hugging Face hub: imports from there, and uploads."""
    return (job.kind == JobKind.IMPORT and job.spec.get("kind") == "hub") or is_upload(job)
