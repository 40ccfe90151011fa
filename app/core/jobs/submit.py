"""Check a request against what is registered, and queue it. Nothing is queued unless everything is right."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlmodel import Session

from app.core.adapters.start import Start, find_start, start_faults
from app.core.artifacts.store import find_artifact
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import find_dataset, list_datasets
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.capabilities import capability_faults
from app.core.jobs.inputs import keep_spec, record_inputs
from app.core.jobs.models import Job
from app.core.jobs.modules import module_faults
from app.core.jobs.queries import find_capabilities
from app.core.jobs.queue import enqueue
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import WITH_ADAPTER, JobKind
from app.core.models.consent import code_faults
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_model, find_model, list_models
from app.core.paths import DataFolder

KIND_OF_TASK = {"sft": RowKind.MESSAGES, "dpo": RowKind.PREFERENCE, "text": RowKind.TEXT}
_WHOLE = TypeAdapter(int)


def submit_values(
    session: Session,
    values: Mapping[str, Any],
    name: str | None = None,
    local_roots: Sequence[Path] = (),
    folder: DataFolder | None = None,
) -> Job:
    """Check plain values and queue the training job. Raises: InvalidInput with every fault of every kind at once."""
    try:
        spec = parse_spec(values)
    except InvalidInput as error:
        faulty = {fault.field for fault in error.faults}
        _, _, more = _find_references(session, _what_is_right(values, error.faults), local_roots)
        raise InvalidInput([*error.faults, *(fault for fault in more if fault.field not in faulty)]) from None
    return submit_training(session, spec, name, local_roots, folder)


def check_values(session: Session, values: Mapping[str, Any]) -> list[Fault]:
    """Every fault that submitting the values would find, without queueing or registering anything."""
    try:
        spec = parse_spec(values)
        faults: list[Fault] = []
    except InvalidInput as error:
        spec, faults = _what_is_right(values, error.faults), error.faults
    faulty = {fault.field for fault in faults}
    model, dataset = find_model(session, spec.base_model), find_dataset(session, spec.dataset)
    more = [*capability_faults(spec, find_capabilities(session)), *check_references(spec, model, dataset)]
    if model is not None:
        more += code_faults(session, model)
    if model is not None and not faults:
        more += start_faults(session, None, spec, model)
    if model is None and "/" not in spec.base_model:  # else it would be registered
        more.append(_unknown_model(session, spec))
    if dataset is None:
        more.append(_unknown_dataset(session, spec))
    return [*faults, *(fault for fault in more if fault.field not in faulty)]


def submit_training(
    session: Session,
    spec: TrainingSpec,
    name: str | None = None,
    local_roots: Sequence[Path] = (),
    folder: DataFolder | None = None,
) -> Job:
    """Queue a training job. A model folder or hub id that is not registered yet is registered.

    With the data folder the job's spec.yaml is written there. Raises: InvalidInput with every fault.
    """
    model, dataset, faults = _find_references(session, spec, local_roots)
    faults += start_faults(session, folder, spec, model) if model is not None else ()
    if faults or model is None or dataset is None:
        raise InvalidInput(faults)
    job = Job(
        name=(name or "").strip()[:200] or f"{model.name} on {dataset.name}",
        kind=JobKind.TRAIN,
        spec=spec.model_dump(mode="json"),
        base_model_id=model.id,
        dataset_id=dataset.id,
        inputs={**record_inputs(model, dataset), **_record_start(session, spec)},
        created_at=time.time(),
    )
    enqueue(session, job)
    if folder is not None:
        keep_spec(folder, job)
    return job


def clone_training(
    session: Session,
    source: Job,
    name: str | None = None,
    local_roots: Sequence[Path] = (),
    folder: DataFolder | None = None,
) -> Job:
    """Queue a training job with another one's spec, checked anew. Raises: Conflict, InvalidInput with every fault."""
    if source.kind != JobKind.TRAIN:
        raise Conflict(f"Job {source.id} is not a training job ({source.kind}); only a training job can be cloned.")
    return submit_values(session, source.spec, name or source.name, local_roots, folder)


def training_yaml(job: Job) -> str:
    """The job YAML that queues the same training again. Raises: Conflict where the job is no training."""
    if job.kind != JobKind.TRAIN:
        raise Conflict(f"Job {job.id} is not a training job ({job.kind}); only a training job has a spec.")
    return parse_spec(job.spec).to_yaml()


def require_trained(session: Session, source: Job, kind: str) -> None:
    """Raises: Conflict where the job has saved no adapter, or no model, whichever `kind` is."""
    what = "an adapter" if kind == "adapter" else f"a {kind}"
    if source.kind not in WITH_ADAPTER:
        raise Conflict(f"Job {source.id} is not a training job ({source.kind}); only a training job saves {what}.")
    if find_artifact(session, source, kind) is None:
        raise Conflict(f"Job {source.id} ({source.status}) has no {kind}.", advice="Wait until it is completed.")


def _what_is_right(values: Mapping[str, Any], faults: Sequence[Fault]) -> TrainingSpec:
    """A spec of the values that have no fault; those are not converted."""
    faulty = {fault.field for fault in faults}
    known = {key: value for key, value in values.items() if key in TrainingSpec.model_fields and key not in faulty}
    known |= {key: str(known[key]) for key in ("base_model", "dataset") if key in known}  # ids may be numbers
    return TrainingSpec.model_construct(**{"base_model": "", "dataset": "", **known})


def _unknown_model(session: Session, spec: TrainingSpec) -> Fault:
    names = ", ".join(each.name for each in list_models(session)) or "none yet"
    return Fault("base_model", f"unknown base model {spec.base_model!r}", f"Registered: {names}.")


def _unknown_dataset(session: Session, spec: TrainingSpec) -> Fault:
    names = ", ".join(each.name for each in list_datasets(session)) or "none yet"
    return Fault("dataset", f"unknown dataset {spec.dataset!r}", advice=f"Registered: {names}.")


def _find_references(
    session: Session, spec: TrainingSpec, local_roots: Sequence[Path]
) -> tuple[BaseModel | None, Dataset | None, list[Fault]]:
    """What the spec names, and what is wrong with it."""
    faults = capability_faults(spec, find_capabilities(session))
    model = find_model(session, spec.base_model)
    if model is None and "/" in spec.base_model:
        try:
            model = add_model(session, spec.base_model, local_roots)
        except (InvalidInput, Conflict) as error:
            faults.append(Fault("base_model", error.message, error.advice))
    elif model is None:
        faults.append(_unknown_model(session, spec))
    dataset = find_dataset(session, spec.dataset)
    faults += check_references(spec, model, dataset)
    faults += code_faults(session, model) if model is not None else ()
    if dataset is None:
        faults.append(_unknown_dataset(session, spec))
    return model, dataset, faults


def _record_start(session: Session, spec: TrainingSpec) -> dict[str, Any]:
    start = find_start(session, spec)
    return {"init_adapter_sha256": start.sha256} if isinstance(start, Start) else {}


def check_references(spec: TrainingSpec, model: BaseModel | None, dataset: Dataset | None) -> list[Fault]:
    """What of the spec does not go with its model and dataset, as far as these are known before they are imported."""
    return [
        *(_model_faults(spec, model) if model is not None else ()),
        *(_dataset_faults(spec, dataset) if dataset is not None else ()),
    ]


def _model_faults(spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    if model.status == ModelStatus.FAILED:
        return [Fault("base_model", f"{model.name} could not be imported: {model.error}")]
    try:
        return [*module_faults(spec, model), *_length_faults(spec, model)]
    except InvalidInput as error:  # its files cannot be read
        return [Fault("base_model", error.message, error.advice)]


def _length_faults(spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    length = _WHOLE.validate_python(spec.max_length)  # as it was typed, where another field is at fault
    if model.max_length is None or length <= model.max_length:
        return []
    message = f"{length:,} is more than {model.name} was made for: {model.max_length:,} tokens"
    return [Fault("max_length", message, advice=f"Give {model.max_length} or less.")]


def _dataset_faults(spec: TrainingSpec, dataset: Dataset) -> list[Fault]:
    if dataset.status == DatasetStatus.FAILED:
        return [Fault("dataset", f"{dataset.name} could not be imported: {dataset.error}")]
    if dataset.status == DatasetStatus.IMPORTING:
        return []
    wanted = KIND_OF_TASK.get(spec.task)
    if wanted is not None and dataset.kind != wanted:
        fitting = next(task for task, kind in KIND_OF_TASK.items() if kind == dataset.kind)
        message = f"{dataset.name} holds {dataset.kind} rows; `task: {spec.task}` learns from {wanted} rows"
        return [Fault("dataset", message, f"Choose another dataset, or `task: {fitting}`.")]
    if spec.eval_fraction and dataset.rows < 2:
        return [Fault("eval_fraction", f"{dataset.name} has {dataset.rows} row; set 0 to train without an eval split")]
    return []
