"""What the new-job form says of the chosen model and dataset, and what is doubtful about a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.adapters.start import decided_fields, list_starts
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import find_dataset
from app.core.jobs.capabilities import capability_faults
from app.core.jobs.dataset_warnings import dataset_warnings
from app.core.jobs.queries import find_capabilities
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.warnings import SpecWarning, target_warnings
from app.core.models.registry import find_model
from app.core.paths import DataFolder
from app.jobs.fields import START, parse

_WITHOUT_BITSANDBYTES = {
    "method": {"method": "lora"},
    "load_in_8bit": {"method": "lora"},
    "optim": {"optim": "adamw_torch"},
}


@dataclass(frozen=True, slots=True)
class Targets:
    """What LoRA can target in the chosen model, and what is doubtful about the choice made."""

    modules: Sequence[str]
    warnings: Sequence[SpecWarning]


def describe_start(
    session: Session, home: Path, values: Mapping[str, Any], base_model: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """The adapters that a training on the model may start from, {id: label}; what the chosen one decides, by field."""
    model = find_model(session, base_model) if base_model else None
    method = str(values.get("method") or TrainingSpec.model_fields["method"].default)
    if model is None or method == "full":
        return {}, {}
    adapters = {str(job.id): f"#{job.id} {job.name}" for job in list_starts(session, model, method)}
    named = str(values.get(START) or "")
    return adapters, decided_fields(session, DataFolder(home), named, model) if named else {}


def describe_targets(session: Session, base_model: str, typed: str, init_adapter: str = "") -> Targets:
    """`typed` is what the field of the target modules holds, which nobody can better where an adapter decides it."""
    model = find_model(session, base_model) if base_model else None
    modules = model.linear_modules if model else []
    if init_adapter:
        return Targets(modules, [])
    return Targets(modules, target_warnings(parse("target_modules", typed.strip()), modules))


def describe_dataset(session: Session, name: str, task: str) -> list[SpecWarning]:
    """Nothing for a dataset that there is not: that is a fault, and is said when the form is posted."""
    dataset = find_dataset(session, name) if name else None
    return dataset_warnings(dataset, task) if dataset is not None else []


def describe_limits(session: Session, chosen: Mapping[str, str]) -> dict[str, list[SpecWarning]]:
    """By field: what of the choice the worker's machine cannot run. `chosen` are the values of the fields shown."""
    quantised: dict[str, Any] = {
        "method": chosen["method"],
        "load_in_8bit": chosen.get("load_in_8bit") == "true",
        "optim": chosen["optim"],
    }
    spec = TrainingSpec.model_construct(**quantised)
    faults = capability_faults(spec, find_capabilities(session))
    return {
        fault.field: [SpecWarning("cannot_run", fault.field, f"{fault.message}.", _WITHOUT_BITSANDBYTES[fault.field])]
        for fault in faults
    }


def label_dataset(dataset: Dataset) -> str:
    """The name with what its rows are; while it is imported that is not known."""
    importing = dataset.status == DatasetStatus.IMPORTING
    return f"{dataset.name} ({'importing' if importing else dataset.kind})"
