"""Ask for an export, and refuse what cannot be exported before anything is queued."""

from __future__ import annotations

import re
import time
from pathlib import Path

from sqlmodel import Session

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import find_artifact, get_artifact, trained_kind
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.exports.formats import GGUF
from app.core.exports.gguf_rules import QUANTIZATIONS, gguf_faults
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue, get_job
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder

FORMATS = (GGUF,)


def submit_export(
    session: Session, folder: DataFolder, source: Job, format: str = "gguf", quantization: str = "q8_0"
) -> Job:
    """Queue an export of what was merged from a training job, or of the model that it trained whole.

    Raises: InvalidInput with every field that is wrong, and where the architecture cannot be exported; Conflict where
    there is no verified model yet.
    """
    faults = [] if format in FORMATS else [Fault("format", f"{format!r} is not one of {', '.join(FORMATS)}")]
    if quantization not in QUANTIZATIONS:
        faults.append(Fault("quantization", f"{quantization!r} is not one of {', '.join(QUANTIZATIONS)}"))
    if faults:
        raise InvalidInput(faults)
    if source.kind == JobKind.MERGE and source.source_job_id is not None:
        source = get_job(session, source.source_job_id)
    artifact = model_to_export(session, source)
    reasons = list(gguf_faults(model_path(folder, artifact)))
    if reasons:
        advice = "The merged model's safetensors can be downloaded: vLLM and transformers read them."
        raise InvalidInput([Fault("format", f"This model cannot be exported as GGUF: {r}", advice) for r in reasons])
    job = Job(
        name=f"{quantization} GGUF of {source.name}"[:200],
        kind=JobKind.EXPORT,
        spec={"job": source.id, "format": format, "quantization": quantization, "artifact": artifact.id},
        base_model_id=source.base_model_id,
        source_job_id=source.id,
        created_at=time.time(),
    )
    return enqueue(session, job)


def model_to_export(session: Session, source: Job) -> Artifact:
    """The newest merged model, or the model that was trained whole. Raises: Conflict."""
    kind = "model" if trained_kind(source) == "model" else "merged"
    artifact = find_artifact(session, source, kind)
    if artifact is None or artifact.verified is False:
        raise Conflict(
            f"Job {source.id} has no verified {kind} model to export.",
            advice=f"Merge it first: loradeck merge {source.id} --wait"
            if kind == "merged"
            else "Wait until it is completed.",
        )
    return artifact


def model_path(folder: DataFolder, artifact: Artifact) -> Path:
    """Where it lies."""
    return (folder.job(artifact.job_id) / artifact.path).resolve()


def export_payload(session: Session, folder: DataFolder, job: Job) -> dict[str, object]:
    """What the child is told. Raises: Conflict, NotFound where the model is gone since."""
    source = get_job(session, job.spec["job"])
    artifact = session.get(Artifact, job.spec["artifact"]) or get_artifact(session, source, "merged")
    return {
        "quantization": job.spec["quantization"],
        "name": source.name,
        "file_stem": _stem(source),
        "model_path": str(model_path(folder, artifact)),
        "source_job_id": source.id,
    }


def _stem(source: Job) -> str:
    """A file's name from a job's: letters, digits and dashes."""
    words = re.sub(r"[^a-z0-9]+", "-", source.name.lower()).strip("-")[:60].rstrip("-")
    return words or f"loradeck-job-{source.id}"
