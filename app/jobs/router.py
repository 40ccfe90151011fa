"""Pages of jobs: list, new, one job, and what can be done with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, Response

from app.core.artifacts.keeping import keep_checkpoint
from app.core.errors import InvalidInput
from app.core.first_run import queue_demo
from app.core.jobs import queue
from app.core.jobs.merges import submit_merge
from app.core.jobs.receipts import get_receipt, receipt_path
from app.core.jobs.rerun import rerun_training
from app.core.jobs.submit import training_yaml
from app.core.table import as_id
from app.jobs import about, autopsy, controls, list_page, new, parts, selection, series
from app.jobs import queue as queue_page
from app.jobs.charts import job_charts
from app.jobs.timeline import describe_timeline
from app.jobs.view import log_tail, view_job
from app.web.dependencies import DatabaseDep, FolderDep, JobDep, SessionDep, WriteSessionDep
from app.web.logs import log_response
from app.web.templating import redirect, render, render_region

router = APIRouter(include_in_schema=False)

router.include_router(list_page.router)
router.include_router(selection.router)
router.include_router(about.router)
router.include_router(parts.router)
router.include_router(new.router)  # ahead of /jobs/{job_id}
router.include_router(autopsy.router)
router.include_router(controls.router)
router.include_router(series.router)
router.include_router(queue_page.router)


@router.post("/jobs/demo")
def run_demo_job(request: Request, database: DatabaseDep) -> Response:
    """Queue the demo job, or show the one that waits or runs."""
    job = queue_demo(database)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))


@router.get("/jobs/{job_id}")
def show_job(request: Request, job: JobDep, session: SessionDep, folder: FolderDep) -> Response:
    """One job: all that has happened so far; the stream brings what comes behind it."""
    view = view_job(session, folder, job)
    context = {
        "view": view,
        "charts": job_charts(session, job),
        "log": log_tail(session, job),
        "timeline": describe_timeline(session, job, view.artifacts),
    }
    return render(request, "jobs/show.html", context)


@router.get("/jobs/{job_id}/overview")
def show_job_overview(request: Request, job: JobDep, session: SessionDep, folder: FolderDep) -> Response:
    """The region with status, progress, figures, outcome, actions and downloads."""
    return render(request, "jobs/_overview.html", {"view": view_job(session, folder, job)})


@router.get("/jobs/{job_id}/samples")
def show_job_samples(request: Request, job: JobDep, session: SessionDep, folder: FolderDep) -> Response:
    """Answers of the base model, the checkpoints and the final one, side by side."""
    view = view_job(session, folder, job)
    context = {"view": view, "timeline": describe_timeline(session, job, view.artifacts)}
    return render_region(request, "jobs/_samples.html", "jobs/samples.html", context)


@router.post("/jobs/{job_id}/checkpoints/{step}/keep")
def keep_job_checkpoint(
    request: Request,
    job_id: int,
    step: int,
    session: WriteSessionDep,
    folder: FolderDep,
    kept: Annotated[bool, Form()] = True,
) -> Response:
    """Keep a checkpoint, however many come after it, or let it go with the others again."""
    keep_checkpoint(session, folder, queue.get_job(session, job_id), step, kept=kept)
    return redirect(request, request.app.url_path_for("show_job", job_id=job_id))


@router.get("/jobs/{job_id}/log")
def download_job_log(job: JobDep, folder: FolderDep) -> Response:
    """The whole log as a text file."""
    return log_response(folder.job(job.key) / "train.log", filename=f"loradeck-job-{job.key}.log")


@router.get("/jobs/{job_id}/spec.yaml")
def download_job_spec(job: JobDep) -> Response:
    """A training job's spec as a file that `loradeck jobs submit` takes."""
    headers = {"Content-Disposition": f'attachment; filename="loradeck-job-{job.key}.yaml"'}
    return Response(training_yaml(job), media_type="application/yaml", headers=headers)


@router.get("/jobs/{job_id}/receipt")
def download_job_receipt(job: JobDep, folder: FolderDep) -> Response:
    """The receipt of a completed training as a file."""
    get_receipt(folder, job)
    name = f"loradeck-job-{job.key}-receipt.json"
    return FileResponse(receipt_path(folder, job), media_type="application/json", filename=name)


@router.post("/jobs/{job_id}/rerun")
def rerun_job(request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Queue a completed training again exactly as its receipt says."""
    job = rerun_training(session, folder, queue.get_job(session, job_id))
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))


@router.post("/jobs/{job_id}/merge")
def merge_job(
    request: Request,
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    dtype: Annotated[str, Form()] = "bf16",
    onto: Annotated[str, Form()] = "trained",
    checkpoint: Annotated[str, Form()] = "",
) -> Response:
    """Queue the merge of the job's adapter, or of a checkpoint, into its base model."""
    submit_merge(session, folder, queue.get_job(session, job_id), dtype, onto, _step(checkpoint))
    return redirect(request, request.app.url_path_for("show_job", job_id=job_id))


def _step(typed: str) -> int | None:
    """A checkpoint's step as a form sends it; nothing stands for the adapter. Raises: InvalidInput."""
    if not typed:
        return None
    step = as_id(typed)
    if step is None:
        raise InvalidInput(f"{typed[:40]!r} is not a checkpoint's step", field="checkpoint")
    return step
