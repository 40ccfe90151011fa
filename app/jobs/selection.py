"""What is done to several jobs at once: shown first, with what it comes to, then done on one confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from app.core.artifacts.deletion import delete_files, freed_bytes, job_states
from app.core.artifacts.store import list_artifacts
from app.core.errors import Conflict, InvalidInput
from app.core.jobs import controls
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import ENDED
from app.core.paths import DataFolder
from app.jobs.list_page import selected_ids
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep
from app.web.templating import redirect, render

router = APIRouter(include_in_schema=False)

_MOST = 200


class Deed(StrEnum):
    """What can be done to several jobs."""

    COMPARE = "compare"
    CANCEL = "cancel"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One job of the selection; `why_not` says why nothing is done to it."""

    job: Job
    freed_bytes: int
    why_not: str | None


@router.get("/jobs/selected")
def confirm_selection(
    request: Request,
    session: SessionDep,
    folder: FolderDep,
    do: Deed,
    ids: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """What would be done to the selected jobs."""
    jobs = [get_job(session, each) for each in _require(ids)]
    if do == Deed.COMPARE:
        return RedirectResponse(f"/compare?{urlencode({'ids': ','.join(str(job.id) for job in jobs)})}", 303)
    chosen = [_look_at(session, folder, do, job) for job in jobs]
    can = [each for each in chosen if each.why_not is None]
    context = {"do": do, "chosen": chosen, "can": can, "freed": sum(each.freed_bytes for each in can)}
    return render(request, "jobs/selected.html", context)


@router.post("/jobs/selected/{do}")
def act_on_selection(
    request: Request,
    do: Deed,
    database: DatabaseDep,
    folder: FolderDep,
    ids: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Do it. What has changed meanwhile is refused by name, after all others were done."""
    refused: list[str] = []
    for job_id in _require(ids):
        try:
            if do == Deed.CANCEL:
                with database.write() as session:
                    controls.cancel(session, folder, get_job(session, job_id))
            elif do == Deed.DELETE:
                delete_files(database, folder, job_id)
        except Conflict as conflict:
            refused.append(conflict.message)
    if refused:
        raise Conflict(" ".join(refused), advice="The other selected jobs are done with. Look at the list.")
    return redirect(request, request.app.url_path_for("list_jobs"))


def _require(ids: Sequence[str]) -> list[int]:
    chosen = selected_ids(ids)
    if not chosen:
        raise InvalidInput("No job is selected: tick the boxes before their names.", field="ids")
    if len(chosen) > _MOST:
        raise InvalidInput(f"{len(chosen)} jobs are selected; at most {_MOST} at once.", field="ids")
    return chosen


def _look_at(session: Session, folder: DataFolder, do: Deed, job: Job) -> Chosen:
    if do == Deed.CANCEL:
        return Chosen(job, 0, "has already ended" if job.status in ENDED else None)
    if job.status not in ENDED:
        return Chosen(job, 0, "has not ended; cancel it first")
    artifacts = list_artifacts(session, job)
    freed = freed_bytes(folder, artifacts, job_states(folder, job))
    return Chosen(job, freed, None if artifacts or freed else "has no files")
