"""Pages of datasets: upload, list, look at rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlmodel import Session

from app.core.database import Database
from app.core.datasets.columns import parse_columns
from app.core.datasets.faults import Row
from app.core.datasets.formats import FORMATS
from app.core.datasets.hub import import_again
from app.core.datasets.models import DatasetStatus
from app.core.datasets.normalise import UnknownFormat
from app.core.datasets.preview import preview_raw, preview_rows
from app.core.datasets.store import get_dataset
from app.core.datasets.uploads import forget
from app.core.errors import Conflict, Fault, InvalidInput, TooLarge
from app.core.jobs.submit import KIND_OF_TASK
from app.datasets.doctor import Asked, panel_context
from app.datasets.hub import router as hub_router
from app.datasets.uploading import receive, take, wait_for_import
from app.datasets.view import UploadForm, import_context, page_context
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.templating import redirect, render, render_region, wants_partial
from app.web.uploads import StoringRoute

router = APIRouter(include_in_schema=False, route_class=StoringRoute)
router.include_router(hub_router)  # first: its /datasets/list is no dataset's id

PREVIEW_ROWS = 10
FORM_WAIT_SECONDS = 2.0  # most files are checked by then; others show their progress


@router.get("/datasets")
def show_datasets(request: Request, session: SessionDep, settings: SettingsDep) -> Response:
    """The upload form and the registered datasets."""
    return _page(request, session, settings.max_upload_bytes)


@router.post("/datasets")
async def create_dataset(
    request: Request,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    file: UploadFile | None = None,
    name: Annotated[str, Form(max_length=120)] = "",
    column: Annotated[Sequence[str], Form()] = (),
) -> Response:
    """Register the file, whose rows a job checks; where one cannot be used, the form again with its number.

    What takes longer is shown on the dataset's own page.
    """
    limit = settings.max_upload_bytes
    try:
        queued = await run_in_threadpool(receive, database, folder, file, limit, column, name.strip() or None)
        job = await wait_for_import(database, queued.key, FORM_WAIT_SECONDS, is_watched=True)
        dataset = await run_in_threadpool(take, database, folder, job)
    except (InvalidInput, Conflict, TooLarge) as error:
        return await run_in_threadpool(_form_again, request, database, limit, name, column, error)
    return redirect(request, request.app.url_path_for("show_dataset", dataset_id=dataset.key))


@router.post("/datasets/{dataset_id}/import")
def import_dataset_again(
    request: Request, dataset_id: int, session: WriteSessionDep, column: Annotated[Sequence[str], Form()] = ()
) -> Response:
    """Check the rows of a stored file once more, with the columns as they are mapped now."""
    dataset = get_dataset(session, str(dataset_id))
    import_again(session, dataset, parse_columns(column))
    return redirect(request, request.app.url_path_for("show_dataset", dataset_id=dataset.key))


@router.post("/datasets/{dataset_id}/forget")
def forget_dataset(request: Request, dataset_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Delete a dataset whose import failed, and its file."""
    forget(session, folder, get_dataset(session, str(dataset_id)))
    return redirect(request, request.app.url_path_for("show_datasets"))


@router.get("/datasets/{dataset_id}")
def show_dataset(
    request: Request,
    dataset_id: int,
    session: SessionDep,
    folder: FolderDep,
    first: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """One dataset and some of its rows: as they came, and as training reads them."""
    dataset = get_dataset(session, str(dataset_id))
    if dataset.status != DatasetStatus.READY:
        context = import_context(session, dataset)
        return render_region(request, "datasets/_import.html", "datasets/import.html", context)
    if wants_partial(request):  # the region that showed the import is not needed any more
        return redirect(request, request.url.path)
    raw = [_legible(row) if row is not None else None for row in preview_raw(folder, dataset, first, PREVIEW_ROWS)]
    context = {
        "dataset": dataset,
        "task": next(task for task, kind in KIND_OF_TASK.items() if kind == dataset.kind),
        "recognised_by": FORMATS[dataset.format].required,
        "rows": list(zip(raw, preview_rows(folder, dataset, first, PREVIEW_ROWS), strict=False)),
        "first": first,
        "page_rows": PREVIEW_ROWS,
        **panel_context(session, dataset_id, Asked()),
    }
    return render(request, "datasets/show.html", context)


def _legible(row: Row) -> list[tuple[str, str]]:
    """The row's fields; lists and objects as indented JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))
        for name, value in row.items()
    ]


def _form_again(
    request: Request,
    database: Database,
    max_bytes: int,
    name: str,
    column: Sequence[str],
    error: InvalidInput | Conflict | TooLarge,
) -> Response:
    with database.read() as session:
        return _page(request, session, max_bytes, name, column, error)


def _page(
    request: Request,
    session: Session,
    max_bytes: int,
    name: str = "",
    column: Sequence[str] = (),
    error: InvalidInput | Conflict | TooLarge | None = None,
) -> Response:
    form = UploadForm(name, list(filter(None, column)), _columns_to_map(column, error), _faults(error))
    context = page_context(session, max_bytes, form)
    if error is None:
        return render(request, "datasets/list.html", context)
    status = 413 if isinstance(error, TooLarge) else 422
    return render_region(request, "datasets/_upload.html", "datasets/list.html", context, status)


def _columns_to_map(column: Sequence[str], error: Exception | None) -> list[str]:
    """The columns that the form offers to map: those found in a file of unknown format, or mapped already."""
    if isinstance(error, UnknownFormat):
        return error.columns
    return list(dict.fromkeys(pair.partition("=")[2] for pair in column if pair))


def _faults(error: InvalidInput | Conflict | TooLarge | None) -> Sequence[Fault]:
    if error is None:
        return []
    if isinstance(error, UnknownFormat):  # the form offers what the advice says
        return [Fault("file", error.faults[0].message, "Map its columns below, or see Formats.")]
    if isinstance(error, InvalidInput):
        return error.faults
    field = error.field if isinstance(error, Conflict) else None
    return [Fault(field or "file", error.message, error.advice)]
