"""The loss-mask X-ray: rows of a dataset as training would see them under a model."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from app.api.schemas import JobOut
from app.core.database import Database
from app.core.datasets.store import get_dataset
from app.core.datasets.xray import WINDOW_ROWS
from app.core.errors import NotFound
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.previews import Question, ask, find_answer, make_question, read_answer
from app.core.jobs.status import ENDED
from app.core.models.registry import get_model
from app.core.paths import DataFolder
from app.web.dependencies import DatabaseDep, FolderDep

router = APIRouter(prefix="/datasets/{reference}/preview", tags=["datasets"])

WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.1


class PreviewIn(BaseModel):
    """Which rows, under which settings of a spec; what is missing follows the dataset, the model and the spec."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, description="A registered base model, by name or id.")
    row: int = Field(1, ge=1, description="The first row's number, from 1.")
    count: int = Field(10, ge=1, le=WINDOW_ROWS, description="Rows at most; an answer may hold fewer.")
    find: bool = Field(False, description="Begin with the first suspicious row from `row` on.")
    wait_seconds: float = Field(WAIT_SECONDS, ge=0, le=WAIT_SECONDS)
    task: str | None = None
    max_length: int | None = None
    overlong_rows: str | None = None
    packing: bool | None = None
    eval_fraction: float | None = None
    eval_max_rows: int | None = None
    seed: int | None = None

    def to_question(self, session: Session, reference: str) -> Question:
        """Raises: NotFound, Conflict, InvalidInput."""
        dataset, model = get_dataset(session, reference), get_model(session, self.model)
        return make_question(dataset, model, self.model_dump(), self.row, find=self.find)


@router.post("", name="api_ask_preview")
async def ask_for(reference: str, body: PreviewIn, database: DatabaseDep, folder: FolderDep) -> Response:
    """{rows: [{row, tokens: [{id, text, trained, special}], trained_tokens, total_tokens, flags, …}], …}.

    The worker makes it. After `wait_seconds` without an answer: 202 and the job to wait for. 422 says why there can be
    none.
    """

    def queue_it() -> Job:
        with database.write() as session:
            return ask(session, folder, body.to_question(session, reference))

    return await _answer(database, folder, body, await run_in_threadpool(queue_it))


@router.get("", name="api_show_preview")
async def show(
    reference: str, database: DatabaseDep, folder: FolderDep, asked: Annotated[PreviewIn, Query()]
) -> Response:
    """The same of what has been asked before; 404 where nobody has asked for it."""

    def look() -> Job:
        with database.read() as session:
            job = find_answer(session, folder, asked.to_question(session, reference))
        if job is None:
            raise NotFound("This X-ray has not been made yet.", advice="Ask for it by POST to the same address.")
        return job

    return await _answer(database, folder, asked, await run_in_threadpool(look))


async def _answer(database: Database, folder: DataFolder, asked: PreviewIn, job: Job) -> Response:
    give_up_at = time.monotonic() + asked.wait_seconds
    while job.status not in ENDED:
        if time.monotonic() > give_up_at:
            return JSONResponse({"job": JobOut.model_validate(job).model_dump(mode="json")}, 202)
        await asyncio.sleep(_POLL_SECONDS)
        job = await run_in_threadpool(_look_again, database, job.key)
    return JSONResponse(await run_in_threadpool(_read, folder, asked, job))


def _look_again(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return queue.get_job(session, job_id)


def _read(folder: DataFolder, asked: PreviewIn, job: Job) -> dict[str, Any]:
    xray = read_answer(folder, job)
    first = xray["first"] if asked.find else asked.row
    rows = [row for row in xray["rows"] if first <= row["row"] < first + asked.count]
    found = {name: job.summary[name] for name in ("found", "searched_to")} if asked.find else {}
    return {**xray, "rows": rows, "first": first, "last": first + len(rows) - 1, "job_id": job.id, **found}
