"""The dataset doctor's panel: what is wrong with a dataset's rows, and how long they are under a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from sqlmodel import Session

from app.core.datasets.store import get_dataset
from app.core.errors import AppError, Conflict, Fault, InvalidInput, NotFound
from app.core.jobs import queue
from app.core.jobs.checks import ask_check, check_faults, get_check, list_checks, read_report
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobStatus
from app.core.models.models import BaseModel as Model
from app.core.models.models import ModelStatus
from app.core.models.registry import get_model, list_models
from app.core.table import MAX_ID
from app.datasets.doctor_view import findings_context, report_context
from app.web.dependencies import DatabaseDep, SessionDep
from app.web.templating import redirect, render, render_region, wants_partial

router = APIRouter(include_in_schema=False)

_WHOLE: TypeAdapter[int] = TypeAdapter(int)


class Asked(BaseModel):
    """What the panel asks for; without a model nothing is said of tokens."""

    model: str = ""
    max_length: str = ""
    job: int | None = Field(None, ge=1, le=MAX_ID)  # that was queued for it

    @model_validator(mode="before")
    @classmethod
    def _take_empty_for_absent(cls, values: Any) -> Any:
        return {name: value for name, value in dict(values).items() if value not in ("", None)}

    def address(self, **changes: Any) -> str:
        """The query of the same panel with some values changed."""
        query = urlencode(self.model_copy(update=changes).model_dump(exclude_defaults=True))
        return f"?{query}" if query else ""

    def find_model(self, session: Session) -> Model | None:
        """Raises: NotFound."""
        return get_model(session, self.model) if self.model else None

    @property
    def tokens(self) -> int | None:
        """`max_length` as a number, where a model is asked for. Raises: InvalidInput."""
        if not self.model or not self.max_length:
            return None
        try:
            return _WHOLE.validate_python(self.max_length)
        except ValidationError:
            raise InvalidInput(f"{self.max_length[:40]!r} is not a whole number", field="max_length") from None


AskedDep = Annotated[Asked, Query()]


@router.get("/datasets/{dataset_id}/check")
def show_check(request: Request, dataset_id: int, asked: AskedDep, session: SessionDep) -> Response:
    """The panel: the report where there is one, else how far the check is; by itself it asks nothing of the worker."""
    context = panel_context(session, dataset_id, asked)
    return render_region(request, "datasets/_doctor.html", "datasets/check.html", context, _status(context))


@router.get("/datasets/{dataset_id}/check/result")
def show_check_result(request: Request, dataset_id: int, asked: AskedDep, session: SessionDep) -> Response:
    """The region below the form, which asks again while the check runs."""
    context = panel_context(session, dataset_id, asked)
    return render(request, "datasets/_doctor_result.html", context, _status(context))


@router.post("/datasets/{dataset_id}/check")
def ask_for_check(request: Request, dataset_id: int, asked: AskedDep, database: DatabaseDep) -> Response:
    """Let the worker check the dataset, unless it has done so already."""
    with database.write() as session:
        try:
            job = ask_check(session, get_dataset(session, str(dataset_id)), asked.find_model(session), asked.tokens)
        except (InvalidInput, NotFound, Conflict):
            job = None  # the panel says what is wrong
    return _answer(request, database, dataset_id, asked.model_copy(update={"job": job.key if job else None}))


@router.post("/datasets/{dataset_id}/check/cancel")
def cancel_check(request: Request, dataset_id: int, asked: AskedDep, database: DatabaseDep) -> Response:
    """Stop the check that runs, or waits. Raises: Conflict where it has ended."""
    with database.write() as session:
        queue.request_cancel(session, get_check(session, asked.job or 0))
    return _answer(request, database, dataset_id, asked)


def _answer(request: Request, database: DatabaseDep, dataset_id: int, asked: Asked) -> Response:
    if not wants_partial(request):
        path = str(request.app.url_path_for("show_check", dataset_id=dataset_id))
        return redirect(request, path + asked.address())
    with database.read() as session:
        context = panel_context(session, dataset_id, asked)
    return render(request, "datasets/_doctor.html", context, _status(context))


def _status(context: dict[str, Any]) -> int:
    return 422 if context["faults"] else 200


def panel_context(session: Session, dataset_id: int, asked: Asked) -> dict[str, Any]:
    """The panel's context: what is asked, what is wrong with that, and how far its answer is."""
    dataset = get_dataset(session, str(dataset_id))
    models = [model for model in list_models(session) if model.status == ModelStatus.READY]
    context: dict[str, Any] = {"dataset": dataset, "models": models, "asked": asked}
    context |= {"state": "faulty", "job": None, "faults": []}
    try:
        model = asked.find_model(session)
        alike = list_checks(session, dataset, model, asked.tokens)
    except (InvalidInput, NotFound, Conflict) as error:
        return {**context, "faults": _faults(error)}
    job = _job_of(session, alike, asked)
    return {**context, **_progress(job, dataset.name)}


def _faults(error: AppError) -> Sequence[Fault]:
    if isinstance(error, InvalidInput):
        return error.faults
    return [Fault("model" if isinstance(error, NotFound) else "", error.message, error.advice)]


def _job_of(session: Session, alike: Sequence[Job], asked: Asked) -> Job | None:
    """The check that was queued for it, else the newest one like it that did not end without a report."""
    if asked.job is not None:
        return next((job for job in alike if job.id == asked.job), None) or get_check(session, asked.job)
    whole = (job for job in alike if job.status == JobStatus.COMPLETED)
    return next(whole, None) or next(iter(alike), None)


def _progress(job: Job | None, dataset: str) -> dict[str, Any]:
    """How far the answer is, as `state`: unasked, waiting, failed, cancelled, or done with the report."""
    if job is None:
        return {"state": "unasked"}
    if job.status == JobStatus.COMPLETED:
        return {"state": "done", "job": job, **report_context(read_report(job), dataset)}
    found = {"job": job, **findings_context(job.summary)}
    if job.status not in ENDED:
        return {"state": "waiting", **found}
    if job.status == JobStatus.FAILED:
        return {"state": "failed", "failures": check_faults(job), **found}
    return {"state": "cancelled", **found}
