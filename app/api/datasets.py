"""Datasets: add, list, look at rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from app.api.schemas import AddHubDatasetIn, DatasetOut, PendingDatasetOut
from app.core.datasets.columns import parse_columns
from app.core.datasets.hub import HubReference, add_from_hub, import_again
from app.core.datasets.models import DatasetStatus
from app.core.datasets.preview import preview_raw, preview_rows
from app.core.datasets.store import get_dataset, list_datasets
from app.core.datasets.uploads import forget
from app.datasets.uploading import describe_wait, receive, take, wait_for_import
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.uploads import StoringRoute

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StoringRoute)

_ADDED: dict[int | str, dict[str, Any]] = {202: {"model": PendingDatasetOut}}


@router.get("", name="api_list_datasets")
def list_all(session: SessionDep) -> list[DatasetOut]:
    """All datasets by name."""
    return [DatasetOut.model_validate(dataset) for dataset in list_datasets(session)]


@router.post("", status_code=201, name="api_add_dataset", response_model=DatasetOut, responses=_ADDED)
async def add(
    file: UploadFile,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    name: Annotated[str | None, Form(max_length=120)] = None,
    column: Annotated[Sequence[str], Form(description="field=column, as instruction=question; may be repeated")] = (),
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the rows' check.")] = 30.0,
) -> Any:
    """Upload a JSON, JSONL, CSV or Parquet file; a job checks its rows. 422 names those that cannot be used.

    202 where that takes longer, or no worker is there: ask for the job until it has ended.
    """
    queued = await run_in_threadpool(receive, database, folder, file, settings.max_upload_bytes, column, name)
    job = await wait_for_import(database, queued.key, wait)
    dataset = await run_in_threadpool(take, database, folder, job)
    if dataset.status == DatasetStatus.READY:
        return dataset
    message, advice = await run_in_threadpool(describe_wait, database, job)
    known = DatasetOut.model_validate(dataset).model_dump()
    pending = PendingDatasetOut.model_validate({**known, "job_id": job.id, "message": message, "advice": advice})
    return JSONResponse(pending.model_dump(), 202)


@router.delete("/{reference}", status_code=204, name="api_forget_dataset")
def forget_failed(reference: str, session: WriteSessionDep, folder: FolderDep) -> None:
    """Delete a dataset whose import failed; 409 for any other."""
    forget(session, folder, get_dataset(session, reference))


@router.post("/hub", status_code=201, name="api_add_hub_dataset")
def add_of_hub(body: AddHubDatasetIn, session: WriteSessionDep) -> DatasetOut:
    """Register a dataset of the Hugging Face hub; a job imports it.

    The name of a hub dataset whose import failed is used again, with what is asked now.
    """
    reference = HubReference(body.hub_id, body.config, body.split, body.revision)
    columns = parse_columns([f"{field}={column}" for field, column in body.columns.items()])
    return DatasetOut.model_validate(add_from_hub(session, reference, body.name, columns))


@router.post("/{reference}/import", name="api_import_dataset_again")
def import_once_more(reference: str, session: WriteSessionDep) -> DatasetOut:
    """Queue the import of a hub dataset whose last one failed."""
    return DatasetOut.model_validate(import_again(session, get_dataset(session, reference)))


@router.get("/{reference}", name="api_show_dataset")
def show(reference: str, session: SessionDep) -> DatasetOut:
    """One dataset, by id or name."""
    return DatasetOut.model_validate(get_dataset(session, reference))


@router.get("/{reference}/rows", name="api_dataset_rows")
def rows(
    reference: str,
    session: SessionDep,
    folder: FolderDep,
    first: Annotated[int, Query(ge=1)] = 1,
    count: Annotated[int, Query(ge=1, le=500)] = 10,
) -> dict[str, Any]:
    """{rows: [{row, raw, …}], total}: rows as they came, and as training reads them.

    The latter's fields follow the dataset's kind: messages; or text; or prompt, chosen and rejected, each messages;
    or too_long alone. `raw` is null for what is not kept as it came: rows behind the first thousand, and long ones.
    """
    dataset = get_dataset(session, reference)
    raw = preview_raw(folder, dataset, first, count)
    pairs = zip(raw, preview_rows(folder, dataset, first, count), strict=False)
    return {
        "rows": [
            {"row": first + index, "raw": as_it_came, **(read or {"too_long": True})}
            for index, (as_it_came, read) in enumerate(pairs)
        ],
        "total": dataset.rows,
    }
