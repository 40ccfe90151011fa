"""The new-job form: shown, followed as choices are made, and posted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.chats.samples import list_samples
from app.core.datasets.models import DatasetStatus
from app.core.datasets.store import list_datasets
from app.core.errors import Fault, InvalidInput
from app.core.jobs import queue
from app.core.jobs.presets import PRESETS
from app.core.jobs.queue_state import get_queue
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import JobKind
from app.core.jobs.submit import submit_values
from app.core.models.models import ModelStatus
from app.core.models.registry import list_models
from app.jobs.defaults import default_references, model_defaults
from app.jobs.fit import CARDS_GIB, describe_fit
from app.jobs.fit import router as fit_router
from app.jobs.forms import (
    CARD,
    KEPT,
    NAME,
    PRESET,
    SHOWN_FOR,
    build_form,
    choice_moved_on,
    follow_choice,
    parse_form,
    start_from_preset,
)
from app.jobs.launch import FILENAME, describe_launch
from app.jobs.launch import router as launch_router
from app.jobs.notes import describe_dataset, describe_limits, describe_targets, label_dataset
from app.jobs.xray_link import find_xray_link
from app.jobs.xray_link import router as xray_link_router
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep
from app.web.forms import Typed
from app.web.templating import redirect, render, render_region

router = APIRouter(include_in_schema=False)
router.include_router(xray_link_router)
router.include_router(fit_router)
router.include_router(launch_router)

_TAKEN = {NAME, PRESET, SHOWN_FOR, CARD, *TrainingSpec.model_fields}  # what a link to the form may fill in

_LOOK_AGAIN = "The fields follow the method and the task chosen now: look at them, then add the job again"


@router.get("/jobs/new")
def new_job(
    request: Request,
    session: SessionDep,
    folder: FolderDep,
    clone: Annotated[int | None, Query(alias="from")] = None,
    apply: str = "",
) -> Response:
    """The form, with the defaults, with a preset's values over what the query holds, or with another job's.

    A method or a task other than the ones that the query was typed for brings its own defaults along.
    """
    given = {key: text for key, text in request.query_params.items() if key in _TAKEN or key.startswith(KEPT)}
    values: dict[str, Any] = {**default_references(session), **follow_choice(given)}
    if apply:
        values = start_from_preset(apply, values)
    if clone is not None:
        source = queue.get_job(session, clone)
        values |= {**source.spec, NAME: source.name} if source.kind == JobKind.TRAIN else {}
    context = _form_context(session, folder.home, values)
    return render_region(request, "jobs/_form.html", "jobs/new.html", context)


@router.get("/jobs/new/targets")
def show_targets(request: Request, session: SessionDep, base_model: str = "", target_modules: str = "") -> Response:
    """The region below the target modules: what the chosen model has, and what is doubtful about the choice."""
    return render(request, "jobs/_targets.html", {"targets": describe_targets(session, base_model, target_modules)})


@router.get("/jobs/new/dataset")
def show_dataset_notes(request: Request, session: SessionDep, dataset: str = "", task: str = "") -> Response:
    """The region below the dataset: whether its rows are what the task learns from."""
    return render(request, "jobs/_dataset.html", {"dataset_notes": describe_dataset(session, dataset, task)})


@router.post("/jobs")
def create_job(request: Request, typed: Typed, database: DatabaseDep, folder: FolderDep) -> Response:
    """Queue a training job; where that is not possible, the form again with every fault beside its field."""
    if choice_moved_on(typed):
        with database.read() as session:
            context = _form_context(session, folder.home, follow_choice(typed), [Fault("", _LOOK_AGAIN)])
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    try:
        with database.write() as session:
            job = submit_values(session, parse_form(typed), typed.get(NAME), folder=folder)
    except InvalidInput as error:
        with database.read() as session:
            context = _form_context(session, folder.home, typed, error.faults)
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))


@router.post("/jobs/new/yaml")
def export_yaml(request: Request, typed: Typed, session: SessionDep, folder: FolderDep) -> Response:
    """The job in the form as a file; where it is not valid, the form with every fault beside its field."""
    try:
        spec = parse_spec(parse_form(typed))
    except InvalidInput as error:
        context = _form_context(session, folder.home, typed, error.faults)
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    headers = {"Content-Disposition": f'attachment; filename="{FILENAME}"'}
    return Response(spec.to_yaml(), media_type="application/yaml", headers=headers)


def _form_context(
    session: Session, home: Path, values: Mapping[str, Any], faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    models = {model.name: model.name for model in list_models(session) if model.status != ModelStatus.FAILED}
    usable = [dataset for dataset in list_datasets(session) if dataset.status != DatasetStatus.FAILED]
    datasets = {dataset.name: label_dataset(dataset) for dataset in usable}
    model = str(values.get("base_model") or next(iter(models), ""))
    form = build_form(models, datasets, values, faults, model_defaults(session, model))
    chosen = {name: each.value for name, each in form.fields.items()}
    dataset = chosen["dataset"] or next(iter(datasets), "")
    standing = {**chosen, "base_model": model, "dataset": dataset}
    card = str(values.get(CARD, ""))
    refused = any(fault.field == "dataset" for fault in faults)  # what the note would say stands beside the field
    return {
        "queue_state": get_queue(session),
        "form": form,
        "presets": PRESETS,
        "models": models,
        "datasets": datasets,
        "targets": describe_targets(session, model, chosen.get("target_modules", "")),
        "limits": describe_limits(session, chosen),
        "dataset_notes": [] if refused else describe_dataset(session, dataset, chosen["task"]),
        "xray": find_xray_link(session, standing),
        "card": card,
        "kept_samples": [sample.text for sample in list_samples(session)],
        "cards": CARDS_GIB,
        "fit": describe_fit(session, home, {**standing, CARD: card}),
        "launch": describe_launch(session, {**standing, NAME: form.name}),
    }
