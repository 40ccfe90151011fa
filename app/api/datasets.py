"""Datasets: add, list, look at rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, UploadFile

from app.api.auth import TokenRoute
from app.api.schemas import AddHubDatasetIn, DatasetOut
from app.core.datasets.columns import parse_columns
from app.core.datasets.hub import HubReference, add_from_hub, import_again
from app.core.datasets.preview import preview_raw, preview_rows
from app.core.datasets.store import Upload, get_dataset, list_datasets
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep, WriteSessionDep

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=TokenRoute)


@router.get("", name="api_list_datasets")
def list_all(session: SessionDep) -> list[DatasetOut]:
    """All datasets by name."""
    return [DatasetOut.model_validate(dataset) for dataset in list_datasets(session)]


@router.post("", status_code=201, name="api_add_dataset")
def add(
    file: UploadFile,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    name: Annotated[str | None, Form(max_length=120)] = None,
    column: Annotated[Sequence[str], Form(description="field=column, as instruction=question; may be repeated")] = (),
) -> DatasetOut:
    """Upload a JSON, JSONL, CSV or Parquet file. 422 names the rows that cannot be used."""
    columns = parse_columns(column)
    with Upload(folder, file.filename or "") as upload:
        checked = upload.receive(file.file, settings.max_upload_bytes).check(columns)
        with database.write() as session:
            return DatasetOut.model_validate(upload.register(session, checked, name))


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

    The latter's fields follow the dataset's kind: messages; or text; or prompt, chosen and rejected, each messages.
    """
    dataset = get_dataset(session, reference)
    raw = preview_raw(folder, dataset, first, count)
    pairs = zip(raw, preview_rows(folder, dataset, first, count), strict=True)
    return {
        "rows": [{"row": first + index, "raw": r, **read} for index, (r, read) in enumerate(pairs)],
        "total": dataset.rows,
    }
