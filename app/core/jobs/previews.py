"""Ask the worker for the X-ray of some rows, and take one that it has made before."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app import __version__
from app.core.datasets.models import Dataset
from app.core.datasets.xray import WINDOW_ROWS, XRAY_FILE, Xray
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.ready import require_ready
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.jobs.submit import KIND_OF_TASK, check_references
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

# What of a spec decides how rows become sequences, and which of them are held out.
DECIDING = ("task", "max_length", "overlong_rows", "packing", "eval_fraction", "eval_max_rows", "seed")
TOOK_TOO_LONG = "took_too_long"
KEPT_PREVIEWS = 100  # the files of older ones go
_READ_BY_TOKENIZERS = (".jinja", ".json", ".model", ".tiktoken", ".txt")


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows are asked for, under which settings; `find`: from the first suspicious row from `row` on."""

    dataset: Dataset
    model: BaseModel
    training: dict[str, Any]
    row: int
    find: bool = False

    def to_spec(self, first: int) -> dict[str, Any]:
        """The spec of the job that answers it; an equal one means an equal answer."""
        return {
            "training": self.training,
            "first": first,
            "rows": WINDOW_ROWS,
            "find": self.find,
            "total": self.dataset.rows,
            "made_of": made_of(self.dataset, self.model),
        }


def make_question(
    dataset: Dataset, model: BaseModel, given: Mapping[str, Any], row: int = 1, *, find: bool = False
) -> Question:
    """Check what is asked. `given` are fields of a spec; those missing follow the dataset, the model and the spec.

    Raises: Conflict while something is not ready, NotFound beyond the last row, InvalidInput with every fault.
    """
    require_ready(dataset)
    require_ready(model)
    spec = _spec(dataset, model, given)
    faults = check_references(spec, model, dataset)
    if faults:
        raise InvalidInput(faults)
    if row > dataset.rows:
        raise NotFound(f"{dataset.name} has no row {row:,}.", advice=f"Its last row is {dataset.rows:,}.")
    training = spec.model_dump(mode="json", include={"base_model", "dataset", *DECIDING})
    return Question(dataset, model, training, row, find)


def _spec(dataset: Dataset, model: BaseModel, given: Mapping[str, Any]) -> TrainingSpec:
    usual = TrainingSpec.model_fields["max_length"].default
    defaults = {
        "base_model": model.name,
        "dataset": dataset.name,
        "task": next(task for task, kind in KIND_OF_TASK.items() if kind == dataset.kind),
        "max_length": min(usual, model.max_length or usual),
        **({"eval_fraction": 0.0} if dataset.rows < 2 else {}),
    }
    return parse_spec({**defaults, **{name: given[name] for name in DECIDING if given.get(name) is not None}})


def ask(session: Session, folder: DataFolder, question: Question) -> Job:
    """The job that answers the question: ended, on its way, or queued now."""
    known = find_answer(session, folder, question)
    if known is not None:
        return known
    job = Job(
        name=f"X-ray of {question.dataset.name}"[:200],
        kind=JobKind.PREVIEW,
        spec=question.to_spec(_first(_alike(session, question), question)),
        base_model_id=question.model.id,
        dataset_id=question.dataset.id,
        created_at=time.time(),
    )
    _drop_old_files(session, folder)
    return enqueue(session, job)


def find_answer(session: Session, folder: DataFolder, question: Question) -> Job | None:
    """A job that has answered the question, or is about to."""
    alike = _alike(session, question)
    if not question.find:
        for job in alike:
            if job.status == JobStatus.COMPLETED and _covers(job, question.row) and _file(folder, job).is_file():
                return job
    wanted = question.to_spec(_first(alike, question))
    same = (job for job in alike if job.spec == wanted)
    return next((job for job in same if job.status not in ENDED or _file(folder, job).is_file()), None)


def _alike(session: Session, question: Question) -> Sequence[Job]:
    """Jobs of other windows under the same settings, the newest first; those that failed are tried again."""
    query = select(Job).where(
        Job.kind == JobKind.PREVIEW,
        Job.dataset_id == question.dataset.id,
        Job.base_model_id == question.model.id,
        col(Job.status).not_in((JobStatus.FAILED, JobStatus.CANCELLED)),
    )
    made = made_of(question.dataset, question.model)
    found = session.exec(query.order_by(col(Job.id).desc()).limit(KEPT_PREVIEWS))
    return [job for job in found if job.spec["training"] == question.training and job.spec["made_of"] == made]


def _covers(job: Job, row: int) -> bool:
    return bool(job.summary["first"] <= row <= job.summary["last"])


def _first(alike: Sequence[Job], question: Question) -> int:
    """Windows lie side by side, so that the rows before and behind are there too; one of long rows may end early."""
    start = (question.row - 1) // WINDOW_ROWS * WINDOW_ROWS + 1
    ended = [job for job in alike if job.status == JobStatus.COMPLETED and not job.spec["find"]]
    short = any(job.spec["first"] == start and not _covers(job, question.row) for job in ended)
    return question.row if question.find or short else start


def read_answer(folder: DataFolder, job: Job) -> Xray:
    """What an ended job has found. Raises: InvalidInput with the reason where it failed, Conflict, NotFound."""
    if job.status == JobStatus.FAILED:
        raise InvalidInput([failure_of(job)])
    if job.status != JobStatus.COMPLETED:
        raise Conflict(f"The X-ray (job {job.id}) is {job.status}.", advice="Ask for it again.")
    try:
        xray: Xray = json.loads(_file(folder, job).read_bytes())
    except FileNotFoundError:
        raise NotFound(f"The X-ray of job {job.id} is not kept any more.", advice="Ask for it again.") from None
    return xray


def failure_of(job: Job) -> Fault:
    """Why there is no answer, at the field `model`."""
    error = job.error or {"kind": "cancelled", "message": "It was cancelled."}
    if error["kind"] == TOOK_TOO_LONG:  # by the kernel, which knows of no template; nothing else has such a limit here
        message = "One step of the model's chat template took longer than it may; its process was ended."
        return Fault("model", message, "Look at chat_template in the model's tokenizer_config.json, and mend it there.")
    return Fault("model", error["message"], error.get("advice"))


def _file(folder: DataFolder, job: Job) -> Path:
    return folder.job(job.key) / XRAY_FILE


def made_of(dataset: Dataset, model: BaseModel | None) -> str:
    """What an answer follows from beside the settings: rows, the tokenizer's files by size and time, our version."""
    stats, folder = [], Path(model.path) if model and model.path else None
    for path in sorted(folder.iterdir()) if folder and folder.is_dir() else ():
        if path.suffix in _READ_BY_TOKENIZERS and not path.name.endswith(".index.json"):
            stat = path.stat()
            stats.append((path.name, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr((dataset.rows_sha256, str(folder), stats, __version__)).encode()).hexdigest()


def _drop_old_files(session: Session, folder: DataFolder) -> None:
    old = select(Job).where(Job.kind == JobKind.PREVIEW, col(Job.status).in_(ENDED))
    for job in session.exec(old.order_by(col(Job.id).desc()).offset(KEPT_PREVIEWS).limit(KEPT_PREVIEWS)):
        shutil.rmtree(folder.job(job.key), ignore_errors=True)
