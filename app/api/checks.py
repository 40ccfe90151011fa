"""The dataset doctor: what is wrong with a dataset or a data file, and how long its rows are under a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.api.schemas import JobOut
from app.core.database import Database
from app.core.datasets.columns import parse_columns
from app.core.datasets.store import get_dataset
from app.core.errors import NotFound
from app.core.jobs.checks import ask_check, ask_file_check, find_check, get_check, read_report
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.models.models import BaseModel as Model
from app.core.models.registry import get_model
from app.core.paths import DataFolder
from app.datasets.uploading import stored_upload
from app.web.dependencies import DatabaseDep, FolderDep, SettingsDep
from app.web.uploads import StoringRoute

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StoringRoute)

WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.1

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the report.")]


class CheckIn(BaseModel):
    """Under which model lengths are counted; without one they are not."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A registered base model, by name or id.")
    max_length: int | None = Field(None, description="As in a job's spec; default: as there.")

    def find_model(self, session: Session) -> Model | None:
        """Raises: NotFound."""
        return get_model(session, self.model) if self.model else None


@router.post("/check", name="api_check_file")
async def check_file(
    file: UploadFile,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    model: Annotated[str | None, Form(description="A registered base model, by name or id.")] = None,
    max_length: Annotated[int | None, Form()] = None,
    column: Annotated[Sequence[str], Form(description="field=column, as instruction=question; may be repeated")] = (),
    wait: Wait = WAIT_SECONDS,
) -> Response:
    """Check a data file that is not registered; it is removed when that is done.

    {format, rows, problems: [{row, field, kind, message}], tokens, duplicates, …}. After `wait` seconds without a
    report: 202 and the job, whose report is at `/datasets/check/{job_id}`.
    """
    asked = CheckIn(model=model, max_length=max_length)
    job = await run_in_threadpool(_receive, database, folder, file, settings.max_upload_bytes, asked, column)
    return await _answer(database, job, wait)


@router.get("/check/{job_id}", name="api_show_check")
async def show_by_job(job_id: int, database: DatabaseDep, wait: Wait = 0.0) -> Response:
    """The report of one check; 202 and the job while there is none."""
    return await _answer(database, await run_in_threadpool(_look_again, database, job_id), wait)


@router.post("/{reference}/check", name="api_ask_check")
async def check_dataset(reference: str, body: CheckIn, database: DatabaseDep, wait: Wait = WAIT_SECONDS) -> Response:
    """Check a registered dataset; one that has been checked alike is answered at once."""

    def ask() -> Job:
        with database.write() as session:
            return ask_check(session, get_dataset(session, reference), body.find_model(session), body.max_length)

    return await _answer(database, await run_in_threadpool(ask), wait)


@router.get("/{reference}/check", name="api_find_check")
async def show_of_dataset(reference: str, database: DatabaseDep, asked: Annotated[CheckIn, Query()]) -> Response:
    """The report of a check that has been asked for before; 404 where nobody has asked for it."""

    def look() -> Job:
        with database.read() as session:
            dataset = get_dataset(session, reference)
            job = find_check(session, dataset, asked.find_model(session), asked.max_length)
        if job is None:
            raise NotFound(f"{reference} has not been checked so yet.", advice="Ask by POST to the same address.")
        return job

    return await _answer(database, await run_in_threadpool(look), 0)


def _receive(
    database: Database, folder: DataFolder, file: UploadFile, max_bytes: int, asked: CheckIn, column: Sequence[str]
) -> Job:
    """Raises: InvalidInput, NotFound, Conflict, TooLarge; then nothing is left behind."""
    columns = parse_columns(column)
    with stored_upload(folder, file) as upload:
        upload.accept(max_bytes)
        with database.write() as session:
            model = asked.find_model(session)
            return ask_file_check(session, folder, upload, model, asked.max_length, columns)


async def _answer(database: Database, job: Job, wait_seconds: float) -> Response:
    give_up_at = time.monotonic() + wait_seconds
    while job.status not in ENDED:
        if time.monotonic() > give_up_at:
            return JSONResponse({"job": JobOut.model_validate(job).model_dump(mode="json")}, 202)
        await asyncio.sleep(_POLL_SECONDS)
        job = await run_in_threadpool(_look_again, database, job.key)
    return JSONResponse({**read_report(job), "job_id": job.id})


def _look_again(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return get_check(session, job_id)
