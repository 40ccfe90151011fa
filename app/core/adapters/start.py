"""Train on from an adapter, of a training here or imported: whether a spec goes with the adapter that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.adapters.fields import AGREEING, CONFIG, UNSAID, WEIGHTS
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import find_artifact
from app.core.errors import Fault
from app.core.jobs.models import Job
from app.core.jobs.shown import show
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.status import WITH_ADAPTER, JobKind
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

_FIELD = "init_adapter"
_LISTED = 100
_MAY_BE_NULL = frozenset({"modules_to_save", "rank_pattern", "alpha_pattern"})  # peft's null is a spec's nothing


@dataclass(frozen=True, slots=True)
class Start:
    """The adapter that a training starts from."""

    job: Job
    artifact: Artifact

    @property
    def sha256(self) -> str:
        """Of its weights, as they were saved."""
        return next(str(file["sha256"]) for file in self.artifact.files if file["path"] == WEIGHTS)

    def place(self, folder: DataFolder) -> Path:
        return (folder.job(self.artifact.job_id) / self.artifact.path).resolve()


def find_start(session: Session, spec: TrainingSpec) -> Start | Fault | None:
    """The adapter that the spec starts from, what is wrong with its name, or None where it names none."""
    return None if spec.init_adapter is None else _find(session, spec.init_adapter)


def list_starts(session: Session, model: BaseModel, method: str) -> list[Job]:
    """The jobs whose adapter a training of this method on the model can start from, the newest first."""
    saved = select(Artifact.job_id).where(Artifact.kind == "adapter")
    usable = select(Job).where(Job.base_model_id == model.id, col(Job.kind).in_(WITH_ADAPTER), col(Job.id).in_(saved))
    same_method = (col(Job.kind) == JobKind.ADAPTER) | (func.json_extract(col(Job.spec), "$.method") == method)
    return list(session.exec(usable.where(same_method).order_by(col(Job.id).desc()).limit(_LISTED)))


def decided_fields(session: Session, folder: DataFolder, named: str, model: BaseModel) -> dict[str, Any]:
    """What a training that starts from the named adapter must say: each field that the adapter decides.

    Nothing where there is no such adapter of the model, or it cannot be read: that is said when the job is queued.
    """
    start = _find(session, named)
    if isinstance(start, Fault) or start.job.base_model_id != model.id:
        return {}
    try:
        config = _read_config(start, folder)
    except (OSError, ValueError, RecursionError):
        return {}
    fields: dict[str, Any] = {"init_lora_weights": "default"}  # of a new adapter, which this one is not
    said = {name: config.get(name) for name in AGREEING}
    fields |= {name: AGREEING[name](value) for name, value in said.items() if value is not None or name in _MAY_BE_NULL}
    theirs = config.get("target_modules")
    if isinstance(theirs, list):
        fields["target_modules"] = _shown_targets(theirs, set(model.linear_modules or ()))
    return fields


def _find(session: Session, given: str) -> Start | Fault:
    named = given.strip().removeprefix("#")
    job = session.get(Job, int(named)) if named.isdecimal() and len(named) <= 18 else None
    if job is None:
        return Fault(_FIELD, f"there is no job {given!r:.60}", "Give the id of a job with an adapter.")
    if job.kind not in WITH_ADAPTER:
        return Fault(_FIELD, f"job {job.id} is no training and no imported adapter ({job.kind})", "Give another id.")
    artifact = find_artifact(session, job, "adapter")
    if artifact is None:
        return Fault(_FIELD, f"job {job.id} ({job.status}) has no adapter", "Wait until it is completed.")
    return Start(job, artifact)


def start_faults(session: Session, folder: DataFolder | None, spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    """Everything in which the spec does not go with the adapter, each at its field, with the value that does.

    Without the data folder only what the database knows is compared; the rest is before the job starts.
    """
    start = find_start(session, spec)
    if start is None:
        return []
    if isinstance(start, Fault):
        return [start]
    faults = list(_base_faults(session, start, spec, model))
    if folder is not None and not faults:
        faults += _config_faults(start, folder, spec, model)
    return faults


def _base_faults(session: Session, start: Start, spec: TrainingSpec, model: BaseModel) -> Iterator[Fault]:
    base = session.get(BaseModel, start.job.base_model_id) if start.job.base_model_id else None
    if base is None or base.id != model.id:
        name = base.name if base is not None else str(start.job.spec.get("base_model"))
        message = f"the adapter of job {start.job.id} was trained on {name}, not on {model.name}"
        yield Fault("base_model", message, f"Set base_model: {name}.", {"base_model": name})
    method = start.job.spec.get("method")
    if start.job.kind == "train" and method != spec.method:
        message = f"is {spec.method}, and the adapter of job {start.job.id} was trained by {method}"
        yield Fault("method", message, f"Set method: {method}.", {"method": method})


def _config_faults(start: Start, folder: DataFolder, spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    try:
        config = _read_config(start, folder)
    except (OSError, ValueError, RecursionError) as error:
        return [Fault(_FIELD, f"{CONFIG} of job {start.job.id} cannot be read: {error}")]
    return [*_unlike(start, spec, config), *_other_targets(start, spec, model, config), *_unsaid(start, config)]


def _read_config(start: Start, folder: DataFolder) -> dict[str, Any]:
    """Raises: OSError, ValueError, RecursionError."""
    config: dict[str, Any] = json.loads((start.place(folder) / CONFIG).read_text(encoding="utf-8"))
    return config


def _unlike(start: Start, spec: TrainingSpec, config: Mapping[str, Any]) -> Iterator[Fault]:
    for name, form in AGREEING.items():
        ours, theirs = form(getattr(spec, name)), form(config.get(name))
        if ours != theirs:
            yield _mismatch(start, name, ours, theirs)


def _other_targets(start: Start, spec: TrainingSpec, model: BaseModel, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Compared by the modules' names; an expression is compared by its tensors, once it is loaded."""
    theirs, all_linear = config.get("target_modules"), set(model.linear_modules or ())
    if not isinstance(theirs, list):
        return
    ours = all_linear if spec.target_modules == "all-linear" else set(spec.target_modules)
    if ours and ours != set(theirs):
        yield _mismatch(start, "target_modules", spec.target_modules, _shown_targets(theirs, all_linear))


def _shown_targets(names: list[str], all_linear: set[str]) -> str | list[str]:
    return "all-linear" if set(names) == all_linear else sorted(names)


def _unsaid(start: Start, config: Mapping[str, Any]) -> Iterator[Fault]:
    odd = [name for name in UNSAID if config.get(name)]
    if odd:
        yield Fault(
            _FIELD,
            f"the adapter of job {start.job.id} was made with {', '.join(odd)}, which a job's spec cannot say",
            "Merge it, and train on the merged model.",
        )


def _mismatch(start: Start, name: str, ours: Any, theirs: Any) -> Fault:
    shown = show(theirs) or "nothing"
    message = f"is {show(ours) or 'nothing'}, and the adapter of job {start.job.id} has {shown}"
    return Fault(name, message, f"Set {name}: {shown}.", {name: theirs})
