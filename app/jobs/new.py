"""The new-job form: shown, followed as choices are made, and posted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import Fault, InvalidInput
from app.core.jobs import queue
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import JobKind
from app.core.jobs.submit import submit_values
from app.core.jobs.sweep import submit_sweep
from app.core.jobs.sweep_axes import read_axes
from app.core.paths import DataFolder
from app.jobs import fit, importing, launch, lengths, sweeps, xray_link
from app.jobs.defaults import default_references
from app.jobs.forms import (
    CARD,
    KEPT,
    NAME,
    PRESET,
    SHOWN_FOR,
    SWEEP,
    choice_moved_on,
    follow_choice,
    parse_form,
    start_from_preset,
)
from app.jobs.notes import describe_dataset, describe_targets
from app.jobs.page import form_context
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep
from app.web.forms import Typed
from app.web.templating import redirect, render, render_region

router = APIRouter(include_in_schema=False)
for each in (xray_link, lengths, fit, launch, importing, sweeps):
    router.include_router(each.router)

_TAKEN = {NAME, PRESET, SHOWN_FOR, CARD, SWEEP, *TrainingSpec.model_fields}  # what a link to the form may fill in

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
    source = queue.get_job(session, clone) if clone is not None else None
    if source is not None and source.kind == JobKind.TRAIN:
        values |= {**source.spec, NAME: source.name}
    context = {**form_context(session, folder.home, values), "source": source}
    return render_region(request, "jobs/_form.html", "jobs/new.html", context)


@router.get("/jobs/new/targets")
def show_targets(
    request: Request, session: SessionDep, base_model: str = "", target_modules: str = "", init_adapter: str = ""
) -> Response:
    """The region below the target modules: what the chosen model has, and what is doubtful about the choice."""
    targets = describe_targets(session, base_model, target_modules, init_adapter)
    return render(request, "jobs/_targets.html", {"targets": targets})


@router.get("/jobs/new/dataset")
def show_dataset_notes(request: Request, session: SessionDep, dataset: str = "", task: str = "") -> Response:
    """The region below the dataset: whether its rows are what the task learns from."""
    return render(request, "jobs/_dataset.html", {"dataset_notes": describe_dataset(session, dataset, task)})


@router.post("/jobs")
def create_job(
    request: Request, typed: Typed, database: DatabaseDep, folder: FolderDep, settings: SettingsDep
) -> Response:
    """Queue a training job, or a sweep of them; where that is not possible, the form with every fault at its field."""
    if choice_moved_on(typed):
        with database.read() as session:
            context = form_context(session, folder.home, follow_choice(typed), [Fault("", _LOOK_AGAIN)])
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    try:
        with database.write() as session:
            where = _queue(session, typed, settings.local_roots, folder)
    except InvalidInput as error:
        with database.read() as session:
            context = form_context(session, folder.home, typed, error.faults)
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    return redirect(request, request.app.url_path_for(where[0], **where[1]))


def _queue(
    session: Session, typed: Mapping[str, str], local_roots: Sequence[Path], folder: DataFolder
) -> tuple[str, dict[str, int]]:
    """The name of the page that shows what was queued, and its parameters. Raises: InvalidInput."""
    values, name = parse_form(typed), typed.get(NAME)
    if not typed.get(SWEEP, "").strip():
        return "show_job", {"job_id": submit_values(session, values, name, local_roots, folder).key}
    jobs = submit_sweep(session, values, read_axes(typed[SWEEP]), name, local_roots, folder)
    return "show_sweep", {"sweep_id": jobs[0].key}


@router.post("/jobs/new/yaml")
def export_yaml(request: Request, typed: Typed, session: SessionDep, folder: FolderDep) -> Response:
    """The job in the form as a file; where it is not valid, the form with every fault beside its field."""
    try:
        spec = parse_spec(parse_form(typed))
    except InvalidInput as error:
        context = form_context(session, folder.home, typed, error.faults)
        return render_region(request, "jobs/_form.html", "jobs/new.html", context, 422)
    headers = {"Content-Disposition": f'attachment; filename="{launch.FILENAME}"'}
    return Response(spec.to_yaml(), media_type="application/yaml", headers=headers)
