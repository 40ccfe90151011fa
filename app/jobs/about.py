"""Tags and notes of a job: shown on its page, and written there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from app.core.errors import InvalidInput
from app.core.jobs.queue import get_job
from app.core.jobs.tagging import describe, split_tags
from app.web.dependencies import WriteSessionDep
from app.web.templating import redirect, render_region

router = APIRouter(include_in_schema=False)


@router.post("/jobs/{job_id}/about")
def describe_job(
    request: Request,
    job_id: int,
    session: WriteSessionDep,
    tags: Annotated[str, Form()] = "",
    notes: Annotated[str, Form()] = "",
) -> Response:
    """Store tags and notes; what cannot be is said beside its field, with all that was typed."""
    job = get_job(session, job_id)
    try:
        describe(session, job, tags=split_tags(tags), notes=notes)
    except InvalidInput as error:
        errors: dict[str, list[str]] = {}
        for fault in error.faults:
            errors.setdefault(fault.field, []).append(fault.message)
        context = {"job": job, "errors": errors, "typed": {"tags": tags, "notes": notes}}
        return render_region(request, "jobs/_about.html", "jobs/about.html", context, 422)
    return redirect(request, request.app.url_path_for("show_job", job_id=job_id))
