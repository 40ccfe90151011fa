"""What the page with the new-job form is rendered from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.chats.samples import list_samples
from app.core.datasets.models import DatasetStatus
from app.core.datasets.store import list_datasets
from app.core.errors import Fault
from app.core.jobs.presets import PRESETS
from app.core.jobs.queue_state import get_queue
from app.core.models.models import ModelStatus
from app.core.models.registry import list_models
from app.jobs.defaults import model_defaults
from app.jobs.fit import CARDS_GIB, describe_fit
from app.jobs.forms import CARD, NAME, SWEEP, build_form
from app.jobs.launch import describe_launch
from app.jobs.lengths import describe_lengths
from app.jobs.notes import describe_dataset, describe_limits, describe_start, describe_targets, label_dataset
from app.jobs.sweeps import describe_sweep
from app.jobs.xray_link import find_xray_link

NOTHING_ASKED: Mapping[str, Any] = {"text": "", "source": "auto", "problems": []}  # of an import


def form_context(
    session: Session, home: Path, values: Mapping[str, Any], faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    """`values` are a spec's, or what was typed; each fault comes beside its field."""
    models = {model.name: model.name for model in list_models(session) if model.status != ModelStatus.FAILED}
    usable = [dataset for dataset in list_datasets(session) if dataset.status != DatasetStatus.FAILED]
    datasets = {dataset.name: label_dataset(dataset) for dataset in usable}
    model = str(values.get("base_model") or next(iter(models), ""))
    adapters, decided = describe_start(session, home, values, model)
    form = build_form(models, datasets, values, faults, model_defaults(session, model), adapters, decided)
    chosen = {name: each.value for name, each in form.fields.items()}
    dataset = chosen["dataset"] or next(iter(datasets), "")
    standing = {**chosen, "base_model": model, "dataset": dataset}
    card = str(values.get(CARD, ""))
    standing |= {CARD: card, NAME: form.name, SWEEP: form.sweep}
    refused = any(fault.field == "dataset" for fault in faults)  # what the note would say stands beside the field
    return {
        "asked": NOTHING_ASKED,
        "recipe": None,
        "source": None,
        "queue_state": get_queue(session),
        "form": form,
        "presets": PRESETS,
        "models": models,
        "datasets": datasets,
        "targets": describe_targets(session, model, chosen.get("target_modules", ""), chosen.get("init_adapter", "")),
        "limits": describe_limits(session, chosen),
        "dataset_notes": [] if refused else describe_dataset(session, dataset, chosen["task"]),
        "xray": find_xray_link(session, standing),
        "lengths": describe_lengths(session, standing),
        "card": card,
        "kept_samples": [sample.text for sample in list_samples(session)],
        "cards": CARDS_GIB,
        "fit": describe_fit(session, home, standing),
        "launch": describe_launch(session, standing),
        "sweep": describe_sweep(session, home, standing),
    }
