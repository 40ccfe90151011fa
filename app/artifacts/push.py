"""Upload what a job made to the Hugging Face hub, from the job's page."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.core.artifacts.store import list_artifacts
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.exports.uploads import Target, describe_offer, submit_upload
from app.core.jobs.queue import get_job
from app.web.dependencies import DatabaseDep, FolderDep
from app.web.forms import Typed
from app.web.templating import redirect, render, wants_partial

router = APIRouter(include_in_schema=False)


@router.post("/jobs/{job_id}/push")
def push_job_artifact(
    request: Request, job_id: int, typed: Typed, database: DatabaseDep, folder: FolderDep
) -> Response:
    """Queue the upload and show its job; where that is not possible, the form says why."""
    target = Target(typed.get("repo", ""), typed.get("visibility") != "public", bool(typed.get("existing")))
    try:
        with database.write() as session:
            source = get_job(session, job_id)
            chosen = [each for each in list_artifacts(session, source) if str(each.id) == typed.get("artifact")]
            if not chosen:
                raise NotFound("This artifact is not there any more.", advice="Choose another one.")
            job = submit_upload(session, folder, source, chosen[0], target)
    except (InvalidInput, Conflict, NotFound) as error:
        if not wants_partial(request):
            raise
        faults = error.faults if isinstance(error, InvalidInput) else [Fault("", error.message, error.advice)]
        with database.read() as session:
            source = get_job(session, job_id)
            offer = describe_offer(session, folder, source, list_artifacts(session, source))
            context = {"offer": replace(offer, typed=typed, faults=faults)}
            return render(request, "artifacts/_push.html", context, 422)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))
