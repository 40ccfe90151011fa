"""Ask for an upload to the Hugging Face hub, and refuse what cannot be sent before anything is queued."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import find_artifact, get_artifact
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.exports.formats import HUB
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queue import enqueue, get_job
from app.core.jobs.status import ENDED, JobKind
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from app.core.secrets import HF_TOKEN, SET_HUB_TOKEN, find_secret

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_MOST_CHARACTERS = 96


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. `existing`: a repository that holds files already gets a further commit; else it is refused."""

    repo: str
    private: bool = True
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What a page offers to upload, and what was typed in vain."""

    job: Job
    artifacts: Sequence[Artifact]
    uploads: Sequence[Job]  # so far, the newest first
    has_token: bool
    typed: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[Fault] = ()

    @property
    def unfinished(self) -> Job | None:
        """The newest upload, where it has not ended."""
        return next((job for job in self.uploads[:1] if job.status not in ENDED), None)


def describe_offer(session: Session, folder: DataFolder, job: Job, artifacts: Sequence[Artifact]) -> Offer:
    """Of what the job made that is verified, the newest of each kind; each GGUF and each kept checkpoint besides."""
    seen: set[tuple[str, Any]] = set()
    offered = []
    for artifact in artifacts:
        several = artifact.kind == "gguf" or (artifact.kind == "checkpoint" and artifact.kept)
        name = (artifact.kind, artifact.id if several else None)
        if artifact.verified is not False and (several or artifact.kind != "checkpoint") and name not in seen:
            seen.add(name)
            offered.append(artifact)
    return Offer(job, offered, list_uploads(session, job), has_hub_token(session, folder))


def has_hub_token(session: Session, folder: DataFolder) -> bool:
    """Whether an upload would have a token: one that is stored or set here, or that the worker has by itself."""
    worker = session.get(WorkerState, 1)
    return find_secret(folder, HF_TOKEN) is not None or (worker is not None and worker.hub_token)


def submit_upload(session: Session, folder: DataFolder, source: Job, artifact: Artifact, target: Target) -> Job:
    """Queue the upload of an artifact of the job.

    Raises: InvalidInput on `repo`; Conflict where it is not verified, or there is no token to upload with.
    """
    repo = target.repo.strip()
    if fault := _repo_fault(repo):
        raise InvalidInput([fault])
    if artifact.verified is False:
        raise Conflict(
            f"The {artifact.kind} of job {source.id} did not pass its verification, so it is not uploaded.",
            advice="Its certificate says what differs; merge it again.",
        )
    if not has_hub_token(session, folder):
        raise Conflict(
            "No hub token is set, and nothing is uploaded without one.", advice=f"Store one first. {SET_HUB_TOKEN}"
        )
    owner = get_job(session, artifact.job_id)
    root = owner.source_job_id if owner.kind in (JobKind.MERGE, JobKind.EXPORT) else owner.key
    job = Job(
        name=f"upload {artifact.kind} to {repo}"[:200],
        kind=JobKind.EXPORT,
        spec={
            "format": HUB,
            "job": root,
            "artifact": artifact.key,
            "kind": artifact.kind,
            "step": artifact.step,
            "repo": repo,
            "private": target.private,
            "existing": target.existing,
        },
        base_model_id=source.base_model_id,
        source_job_id=root,
        created_at=time.time(),
    )
    return enqueue(session, job)


def is_upload(job: Job) -> bool:
    """Whether the job sends something to the hub."""
    return job.kind == JobKind.EXPORT and job.spec.get("format") == HUB


def list_uploads(session: Session, job: Job) -> list[Job]:
    """Of what the job made, the newest first."""
    exports = select(Job).where(Job.source_job_id == job.id, Job.kind == JobKind.EXPORT)
    return [each for each in session.exec(exports.order_by(col(Job.id).desc())) if is_upload(each)]


def upload_payload(session: Session, folder: DataFolder, job: Job) -> dict[str, Any]:
    """What the child is told. Raises: NotFound where the artifact is gone since."""
    source, spec = get_job(session, job.spec["job"]), job.spec
    artifact = find_artifact(session, source, spec["kind"], artifact_id=spec["artifact"])
    artifact = artifact or get_artifact(session, source, spec["kind"], spec["step"])
    base = session.get(BaseModel, job.base_model_id) if job.base_model_id is not None else None
    return {
        **{name: spec[name] for name in ("format", "kind", "repo", "private", "existing")},
        "name": source.name,
        "folder": str((folder.job(artifact.job_id) / artifact.path).resolve()),
        "files": artifact.files,
        "base_name": base.name if base else None,
        "base_hub_id": base.source.get("hub_id") if base else None,
    }


def _repo_fault(repo: str) -> Fault | None:
    advice = "Write it as `owner/name`: your account or organization on the hub, and a name."
    if not repo or repo.count("/") != 1:
        return Fault("repo", f"{repo!r:.120} is not a repository", advice)
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        advice = "Letters, digits, `-`, `_` and `.` are possible, not at an end, and neither `--` nor `..`."
        return Fault("repo", f"{repo!r:.120} holds what no repository's name does", advice)
    if len(repo) > _MOST_CHARACTERS:
        return Fault("repo", f"has {len(repo)} characters, where {_MOST_CHARACTERS} are possible")
    return None
