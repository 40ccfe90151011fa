"""Ask the worker what is wrong with a dataset or a data file, and take what it has found."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any, cast

from sqlmodel import Session, col, select

from app import __version__
from app.core.datasets.columns import Columns
from app.core.datasets.models import Dataset
from app.core.datasets.report import AT_ONCE, Report, Tokens
from app.core.datasets.store import Upload
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.previews import failure_of, made_of
from app.core.jobs.queue import enqueue, get_job
from app.core.jobs.ready import require_ready
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.jobs.submit import check_references
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

_UPLOADED = "uploaded"  # folder below the job's own, of a file that is no dataset
_LOOKED_THROUGH = 100  # of a dataset's checks, the newest


def ask_check(session: Session, dataset: Dataset, model: BaseModel | None = None, max_length: int | None = None) -> Job:
    """The job that checks the dataset: ended, on its way, or queued now.

    Raises: Conflict while something is not ready, InvalidInput on `max_length`.
    """
    known = find_check(session, dataset, model, max_length)
    if known is not None:
        return known
    job = Job(
        name=f"check {dataset.name}"[:200],
        kind=JobKind.CHECK,
        spec=_spec_of(dataset, model, max_length),
        base_model_id=model.id if model else None,
        dataset_id=dataset.id,
        created_at=time.time(),
    )
    return enqueue(session, job)


def find_check(
    session: Session, dataset: Dataset, model: BaseModel | None = None, max_length: int | None = None
) -> Job | None:
    """A job that has checked just this, or is about to. Raises: as `ask_check`."""
    lost = (JobStatus.FAILED, JobStatus.CANCELLED)
    alike = list_checks(session, dataset, model, max_length)
    return next((job for job in alike if job.status not in lost and not job.cancel_requested), None)


def list_checks(
    session: Session, dataset: Dataset, model: BaseModel | None = None, max_length: int | None = None
) -> list[Job]:
    """Jobs that were asked for just this, the newest first, however they ended. Raises: as `ask_check`.

    Without a model the import is the last of them where it brought a report of its own.
    """
    wanted = _spec_of(dataset, model, max_length)
    query = select(Job).where(
        Job.kind == JobKind.CHECK,
        Job.dataset_id == dataset.id,
        Job.base_model_id == (model.id if model else None),
    )
    newest = session.exec(query.order_by(col(Job.id).desc()).limit(_LOOKED_THROUGH))
    alike = [job for job in newest if job.spec == wanted]
    return alike if model else [*alike, *_reporting_import(session, dataset)]


def find_lengths(session: Session, dataset: Dataset, model: BaseModel) -> Tokens | None:
    """Lengths of the dataset's rows under the model as they are now, by the newest check, whatever its max_length."""
    query = select(Job).where(
        Job.kind == JobKind.CHECK,
        Job.status == JobStatus.COMPLETED,
        Job.dataset_id == dataset.id,
        Job.base_model_id == model.id,
    )
    same = made_of(dataset, model)
    for job in session.exec(query.order_by(col(Job.id).desc()).limit(_LOOKED_THROUGH)):
        if job.spec.get("made_of") == same:
            return read_report(job)["tokens"]
    return None


def _reporting_import(session: Session, dataset: Dataset) -> Sequence[Job]:
    """The dataset's import, where it told all that this version would find."""
    imports = select(Job).where(
        Job.kind == JobKind.IMPORT, Job.dataset_id == dataset.id, Job.status == JobStatus.COMPLETED
    )
    newest = session.exec(imports.order_by(col(Job.id).desc())).first()
    told = newest.summary.get(AT_ONCE) if newest else None
    return [newest] if newest and told and told["version"] == __version__ else []


def ask_file_check(
    session: Session,
    folder: DataFolder,
    upload: Upload,
    model: BaseModel | None = None,
    max_length: int | None = None,
    columns: Columns | None = None,
) -> Job:
    """Queue the check of a received file, which is not registered and goes when the job ends.

    Raises: Conflict while the model is not ready, InvalidInput on `max_length`.
    """
    asked = {"filename": upload.filename, "columns": columns or {}, "max_length": _max_length(model, max_length)}
    job = Job(
        name=f"check {upload.filename}"[:200],
        kind=JobKind.CHECK,
        spec=asked,
        base_model_id=model.id if model else None,
        created_at=time.time(),
    )
    drop_files(session, folder)
    enqueue(session, job)
    target = folder.job(job.key) / _UPLOADED / upload.source.name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.move(upload.source, target)
    job.spec = {**asked, "path": str(target.resolve())}
    return job


def drop_files(session: Session, folder: DataFolder) -> None:
    """Remove the files of ended checks that are no datasets; the worker does so, too, unless it never had the job."""
    ended = select(Job).where(Job.kind == JobKind.CHECK, col(Job.dataset_id).is_(None), col(Job.status).in_(ENDED))
    for job in session.exec(ended.order_by(col(Job.id).desc()).limit(_LOOKED_THROUGH)):
        drop_file(folder, job)


def drop_file(folder: DataFolder, job: Job) -> None:
    """Remove what was uploaded for this check alone."""
    shutil.rmtree(folder.job(job.key) / _UPLOADED, ignore_errors=True)


def get_check(session: Session, job_id: int) -> Job:
    """Raises: NotFound for what is no check."""
    job = get_job(session, job_id)
    if job.kind != JobKind.CHECK:
        raise NotFound(f"Job {job_id} is not a check of a dataset ({job.kind}).")
    return job


def read_report(job: Job) -> Report:
    """What an ended check has found. Raises: InvalidInput with the reason where it failed, Conflict."""
    if job.status == JobStatus.FAILED:
        raise InvalidInput(check_faults(job))
    if job.status != JobStatus.COMPLETED:
        raise Conflict(f"The check (job {job.id}) is {job.status}.", advice="Ask for it again.")
    return cast(Report, job.summary[AT_ONCE]["report"] if job.kind == JobKind.IMPORT else job.summary)


def check_faults(job: Job) -> Sequence[Fault]:
    """Why a check failed."""
    faults = [Fault(**fault) for fault in (job.error or {}).get("faults", ())]
    return faults or [failure_of(job)]


def _spec_of(dataset: Dataset, model: BaseModel | None, max_length: int | None) -> dict[str, Any]:
    """An equal one means an equal report."""
    require_ready(dataset)
    return {"max_length": _max_length(model, max_length), "made_of": made_of(dataset, model)}


def _max_length(model: BaseModel | None, wanted: int | None) -> int | None:
    """What is wanted, or a spec's default as far as the model goes; None without a model. Raises: InvalidInput."""
    if model is None:
        if wanted is not None:
            raise InvalidInput("needs a model: lengths are counted in its tokens", field="max_length")
        return None
    require_ready(model)
    usual = TrainingSpec.model_fields["max_length"].default
    values = {"base_model": model.name, "dataset": "?", "max_length": wanted or min(usual, model.max_length or usual)}
    spec = parse_spec(values)
    faults = [fault for fault in check_references(spec, model, None) if fault.field == "max_length"]
    if faults:
        raise InvalidInput(faults)
    return spec.max_length
