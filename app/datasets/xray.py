"""Pages of the loss-mask X-ray: a dataset's rows token by token, as training would see them."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, model_validator
from sqlmodel import Session

from app.core.datasets.store import get_dataset
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.previews import DECIDING, Question, ask, failure_of, find_answer, make_question, read_answer
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.models.models import ModelStatus
from app.core.models.registry import find_model, list_models
from app.core.paths import DataFolder
from app.core.table import MAX_ID
from app.datasets.xray_view import row_context, rows_context
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep
from app.web.errors import status_of
from app.web.templating import redirect, render, render_region, wants_partial

router = APIRouter(include_in_schema=False)


class Asked(BaseModel):
    """What the page's address asks for. A field that is left empty follows the spec's default."""

    model: str = ""
    row: int = Field(1, ge=1, le=MAX_ID)
    find: bool = False  # the first suspicious row from `row` on
    job: int | None = Field(None, ge=1, le=MAX_ID)  # that was queued for it
    token: int = Field(0, ge=0, le=MAX_ID)  # of the row, from 0: from which one on
    task: str | None = None
    max_length: str | None = None
    overlong_rows: str | None = None
    packing: bool = False
    eval_fraction: str | None = None
    eval_max_rows: str | None = None
    seed: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_empty_for_absent(cls, values: Any) -> Any:
        return {name: value for name, value in dict(values).items() if value not in ("", None)}

    def address(self, **changes: Any) -> str:
        """The query of the same page with some values changed; those that are as usual are left out."""
        asked = self.model_copy(update={"job": None, "find": False, "token": 0, **changes})
        query = urlencode(asked.model_dump(exclude_defaults=True))
        return f"?{query}" if query else ""


AskedDep = Annotated[Asked, Query()]


@router.get("/datasets/{dataset_id}/xray")
def show_xray(request: Request, dataset_id: int, asked: AskedDep, session: SessionDep, folder: FolderDep) -> Response:
    """The rows where the worker has encoded them, else how far it is; by itself it asks nothing of the worker."""
    return _page(request, session, folder, dataset_id, asked)


@router.post("/datasets/{dataset_id}/xray")
def ask_xray(request: Request, dataset_id: int, asked: AskedDep, database: DatabaseDep, folder: FolderDep) -> Response:
    """Let the worker encode the rows, or search for a suspicious one."""
    with database.write() as session:
        question = _look(session, folder, dataset_id, asked)["question"]
        job = ask(session, folder, question) if question is not None else None
    asked = asked.model_copy(update={"job": job.key if job else None})
    if not wants_partial(request):
        return redirect(request, _path(request, dataset_id) + asked.address(job=asked.job, find=asked.find))
    with database.read() as session:
        return _page(request, session, folder, dataset_id, asked)


@router.get("/datasets/{dataset_id}/xray/row")
def show_xray_row(
    request: Request, dataset_id: int, asked: AskedDep, session: SessionDep, folder: FolderDep
) -> Response:
    """The region with one row's tokens. Raises: NotFound where they are not encoded."""
    context = _look(session, folder, dataset_id, asked)
    if context["opened"] is None:
        raise NotFound(f"Row {asked.row} is not encoded yet.", advice="Open its page.")
    return render(request, "datasets/_xray_row.html", context)


def _page(request: Request, session: Session, folder: DataFolder, dataset_id: int, asked: Asked) -> Response:
    context = _look(session, folder, dataset_id, asked)
    if context["state"] == "searched" and context["job"].summary["found"] is not None:
        return redirect(request, _path(request, dataset_id) + asked.address(row=context["job"].summary["found"]))
    return render_region(request, "datasets/_xray.html", "datasets/xray.html", context, context["status"])


def _path(request: Request, dataset_id: int) -> str:
    return str(request.app.url_path_for("show_xray", dataset_id=dataset_id))


def _look(session: Session, folder: DataFolder, dataset_id: int, asked: Asked) -> dict[str, Any]:
    """The page's context: what is asked, what is wrong with it, and how far its answer is."""
    dataset = get_dataset(session, str(dataset_id))
    known = list_models(session)
    models = [model for model in known if model.status == ModelStatus.READY]
    importing = [model.name for model in known if model.status == ModelStatus.IMPORTING]
    model = find_model(session, asked.model) if asked.model else next(iter(models), None)
    context: dict[str, Any] = {"dataset": dataset, "models": models, "model": model, "asked": asked}
    context |= {
        "importing": importing,
        "question": None,
        "state": "idle",
        "job": None,
        "opened": None,
        "faults": [],
        "status": 200,
    }
    if model is None:
        faults = [Fault("model", f"there is no base model {asked.model!r}")] if asked.model else []
        return {**context, "faults": faults, "status": 404 if faults else 200}
    try:
        question = make_question(dataset, model, asked.model_dump(include=set(DECIDING)), asked.row, find=asked.find)
    except (InvalidInput, Conflict, NotFound) as error:
        return {**context, "faults": _faults(error), "status": status_of(error)}
    return {**context, "question": question, **_answer(session, folder, question, asked)}


def _faults(error: InvalidInput | Conflict | NotFound) -> list[Fault]:
    """Each by the form's field, where it is one of its fields."""
    if isinstance(error, InvalidInput):
        return error.faults
    return [Fault("row" if isinstance(error, NotFound) else "", error.message, error.advice)]


def _answer(session: Session, folder: DataFolder, question: Question, asked: Asked) -> dict[str, Any]:
    """How far the answer is, as `state`: unasked, waiting, failed, searched, or rows with what they are."""
    job = _job_of(session, folder, question, asked.job)
    if job is None:
        return {"state": "unasked"}
    if job.status not in ENDED:
        return {"state": "waiting", "job": job}
    if job.status != JobStatus.COMPLETED:
        return {"state": "failed", "job": job, "failure": failure_of(job)}
    if asked.find:
        return {"state": "searched", "job": job}
    xray = read_answer(folder, job)
    shown = rows_context(xray, asked.row)
    opened = row_context(shown["rows"][0], asked.token, question.training["max_length"])
    return {"state": "rows", "job": job, "xray": xray, "opened": opened, **shown}


def _job_of(session: Session, folder: DataFolder, question: Question, job_id: int | None) -> Job | None:
    """The job that was queued for the question, as long as it has more to say than the one that answers it."""
    job = session.get(Job, job_id) if job_id is not None else None
    asked = job is not None and job.kind == JobKind.PREVIEW and job.dataset_id == question.dataset.id
    if job is not None and asked and (question.find or job.status != JobStatus.COMPLETED):
        return job
    return find_answer(session, folder, question)
