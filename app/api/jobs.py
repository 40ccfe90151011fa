"""Jobs: submit, look, clone, run again, merge, ask; `app.api.controls` has what is done to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from app.api.schemas import (
    ChangeIn,
    CloneIn,
    DescribeIn,
    ExportIn,
    GenerateIn,
    JobOut,
    JobPage,
    MergeIn,
    RecipeIn,
    SubmitIn,
)
from app.core.errors import InvalidInput
from app.core.exports.submit import submit_export
from app.core.jobs import queue
from app.core.jobs.answers import submit_generation
from app.core.jobs.autopsy import apply_change, get_autopsy
from app.core.jobs.controls import Action, require
from app.core.jobs.listing import JobSort, list_jobs
from app.core.jobs.merges import submit_merge
from app.core.jobs.receipts import get_receipt
from app.core.jobs.recipes.read import read_recipe
from app.core.jobs.rerun import rerun_training
from app.core.jobs.spec import read_yaml
from app.core.jobs.status import JobKind, JobStatus
from app.core.jobs.submit import check_values, clone_training, submit_values, training_yaml
from app.core.jobs.tagging import describe as describe_job
from app.core.metrics.store import Series, read_series
from app.core.table import MAX_ID
from app.web.charts import SeriesDep, read_chart
from app.web.dependencies import FolderDep, JobDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.logs import log_response

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", name="api_list_jobs")
def list_all(
    session: SessionDep,
    status: JobStatus | None = None,
    search: str = "",
    tag: str = "",
    sort: JobSort = JobSort.NEWEST,
    kind: Annotated[list[JobKind] | None, Query()] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    size: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """A page of jobs, newest first unless asked; answers of the playground only if asked for by kind."""
    kinds = {"kinds": kind} if kind else {}
    found = list_jobs(session, status=status, search=search, tag=tag, sort=sort, page=page, size=size, **kinds)
    jobs = [JobOut.model_validate(job) for job in found.jobs]
    return JobPage(jobs=jobs, total=found.total, page=page, pages=found.last)


@router.post("", status_code=201, name="api_submit_job")
def submit(body: SubmitIn, session: WriteSessionDep, settings: SettingsDep, folder: FolderDep) -> JobOut:
    """Queue a training job. 422 names every fault at once, and nothing is queued."""
    job = submit_values(session, spec_values(body), body.name, settings.local_roots, folder)
    return JobOut.model_validate(job)


def spec_values(body: SubmitIn) -> dict[str, Any]:
    """The spec's values, not yet checked. Raises: InvalidInput unless there is exactly one of the two."""
    if (body.spec is None) == (body.yaml is None):
        raise InvalidInput("Give the spec as `spec` or as `yaml`.", field="spec")
    return read_yaml(body.yaml) if body.yaml is not None else body.spec or {}


@router.post("/import", name="api_import_job")
def import_recipe(body: RecipeIn, session: SessionDep) -> dict[str, Any]:
    """What a training file of axolotl or LLaMA-Factory is as a spec, with an account of every key; queues nothing.

    `faults` are those that submitting `values` would meet, and values that have no equivalent.
    """
    recipe = read_recipe(body.yaml, body.source)
    recipe.faults.extend(check_values(session, recipe.values))
    return recipe.to_json()


@router.get("/{job_id}/spec", name="api_job_spec")
def spec(job: JobDep) -> Response:
    """A training job's spec as YAML, which `POST /jobs` takes back to the same spec."""
    return Response(training_yaml(job), media_type="application/yaml")


@router.get("/{job_id}", name="api_show_job")
def show(job: JobDep) -> JobOut:
    """One job."""
    return JobOut.model_validate(job)


@router.patch("/{job_id}", name="api_describe_job")
def describe(job_id: int, body: DescribeIn, session: WriteSessionDep) -> JobOut:
    """Set a job's tags, its notes, or both; what is not given stays."""
    job = queue.get_job(session, job_id)
    return JobOut.model_validate(describe_job(session, job, tags=body.tags, notes=body.notes))


@router.post("/{job_id}/clone", status_code=201, name="api_clone_job")
def clone(
    job_id: int,
    session: WriteSessionDep,
    settings: SettingsDep,
    folder: FolderDep,
    body: Annotated[CloneIn, Body()] = CloneIn(),  # noqa: B008
) -> JobOut:
    """Queue a training job with the same spec, checked anew as when it is submitted."""
    source = queue.get_job(session, job_id)
    require(folder, source, Action.CLONE, ": only a training job can be")
    return JobOut.model_validate(clone_training(session, source, body.name, settings.local_roots, folder))


@router.post("/{job_id}/rerun", status_code=201, name="api_rerun_job")
def rerun(
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    body: Annotated[CloneIn, Body()] = CloneIn(),  # noqa: B008
) -> JobOut:
    """Queue a completed training again exactly as its receipt says; 409 names what is not the same any more."""
    source = queue.get_job(session, job_id)
    return JobOut.model_validate(rerun_training(session, folder, source, body.name))


@router.get("/{job_id}/receipt", name="api_job_receipt")
def receipt(job: JobDep, folder: FolderDep) -> dict[str, Any]:
    """What decided a completed training: spec, hashes of data and model, versions, hardware, result."""
    return get_receipt(folder, job)


@router.get("/{job_id}/autopsy", name="api_job_autopsy")
def autopsy(job: JobDep, session: SessionDep) -> dict[str, Any]:
    """Why a job ran out of memory, its last readings, and ranked changes, each with its predicted peak."""
    return get_autopsy(session, job).to_json()


@router.post("/{job_id}/changes", status_code=201, name="api_change_job")
def change(job_id: int, session: WriteSessionDep, settings: SettingsDep, folder: FolderDep, body: ChangeIn) -> JobOut:
    """Queue a job that ran out of memory again, with one of the changes that its autopsy names."""
    source = queue.get_job(session, job_id)
    return JobOut.model_validate(apply_change(session, source, body.change, settings.local_roots, folder))


@router.get("/{job_id}/metrics", name="api_job_metrics")
def metrics(job: JobDep, session: SessionDep, name: str | None = None) -> dict[str, Series]:
    """{series: {name: [[step, value], …]}}."""
    return {"series": read_series(session, job.key, name)}


@router.get("/{job_id}/series", name="api_job_series")
def series(job: JobDep, session: SessionDep, query: SeriesDep) -> dict[str, Any]:
    """Parts of series in buckets that keep their smallest and largest: as much as a chart can show of any run."""
    return read_chart(session, job, query)


@router.get("/{job_id}/logs", name="api_job_logs")
def logs(job: JobDep, folder: FolderDep, offset: Annotated[int, Query(ge=0, le=MAX_ID)] = 0) -> Response:
    """The job's log as text, from a byte offset on."""
    return log_response(folder.job(job.key) / "train.log", offset)


@router.post("/{job_id}/merge", status_code=201, name="api_merge_job")
def merge(job_id: int, body: MergeIn, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """Queue the merge of the job's adapter, or of a checkpoint, into its base model."""
    source = queue.get_job(session, job_id)
    return JobOut.model_validate(submit_merge(session, folder, source, body.dtype, body.onto, body.checkpoint))


@router.post("/{job_id}/export", status_code=201, name="api_export_job")
def export(job_id: int, body: ExportIn, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """Queue an export of the job's merged or whole model; 422 says why an architecture cannot be exported."""
    source = queue.get_job(session, job_id)
    return JobOut.model_validate(submit_export(session, folder, source, body.format, body.quantization))


@router.post("/{job_id}/generate", status_code=201, name="api_generate")
def generate(job_id: int, body: GenerateIn, session: WriteSessionDep) -> JobOut:
    """Queue one answer; when the job is completed its summary holds {text, tokens, stop_reason}."""
    source = queue.get_job(session, job_id)
    return JobOut.model_validate(submit_generation(session, source, **body.model_dump()))
