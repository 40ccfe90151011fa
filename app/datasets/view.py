"""What the pages of datasets show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from app.core.datasets.formats import FIELDS, FORMATS
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.normalise import UNMAPPED
from app.core.datasets.store import list_datasets
from app.core.errors import Fault
from app.core.events.log import latest_id
from app.core.jobs.models import Job
from app.core.jobs.queries import worker_view
from app.core.jobs.status import JobKind

HUB_FIELDS = ("hub_id", "config", "split", "revision", "columns", "name")


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The upload form as it was sent: `mapped` are its field=column pairs, `found` the columns offered to be mapped."""

    name: str = ""
    mapped: Sequence[str] = ()
    found: Sequence[str] = ()
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True)
class HubForm:
    """The form for a hub dataset as it was sent."""

    values: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[Fault] = ()


def page_context(
    session: Session, max_bytes: int, upload: UploadForm = UploadForm(), hub: HubForm = HubForm()
) -> dict[str, Any]:
    """The page with both forms and the list."""
    return {
        **list_context(session),
        "max_bytes": max_bytes,
        "name": upload.name,
        "mapped": upload.mapped,
        "found": upload.found,
        "faults": upload.faults,
        "formats": FORMATS.values(),
        "fields": FIELDS,
        **hub_context(hub),
    }


def hub_context(form: HubForm) -> dict[str, Any]:
    """The form for a hub dataset."""
    return {"hub": {name: form.values.get(name, "") for name in HUB_FIELDS}, "hub_faults": form.faults}


def import_context(session: Session, dataset: Dataset) -> dict[str, Any]:
    """A dataset that is not there yet: its newest import job, and the form that imports it again."""
    job = import_jobs(session, [dataset]).get(dataset.id)
    again = hub_context(_hub_form(dataset)) if "hub_id" in dataset.source else _map_context(dataset, job)
    return {
        "dataset": dataset,
        "job": job,
        "after": latest_id(session),
        "worker_alive": worker_view(session)["alive"],
        **again,
    }


def _hub_form(dataset: Dataset) -> HubForm:
    columns = ", ".join(f"{field}={column}" for field, column in dataset.columns.items())
    return HubForm({**dataset.source, "columns": columns, "name": dataset.name})


def _map_context(dataset: Dataset, job: Job | None) -> dict[str, Any]:
    """What was found in a file so far, and the columns that can be mapped if its rows are of no known format."""
    error, summary = (job.error or {}, job.summary) if job else ({}, {})
    faults = [fault["message"] for fault in error.get("faults", ())]
    return {
        "problems": faults or summary.get("problems", []),
        "found": summary.get(UNMAPPED) or list(dataset.columns.values()),
        "mapped": [f"{field}={column}" for field, column in dataset.columns.items()],
        "fields": FIELDS,
    }


def list_context(session: Session) -> dict[str, Any]:
    """The region with the registered datasets, and the jobs that import some of them."""
    datasets = list_datasets(session)
    jobs = import_jobs(session, [each for each in datasets if each.status == DatasetStatus.IMPORTING])
    return {"datasets": datasets, "import_jobs": jobs, "after": latest_id(session)}


def import_jobs(session: Session, datasets: Sequence[Dataset]) -> dict[int | None, Job]:
    """The newest import job of each dataset, by the dataset's id."""
    ids = [dataset.id for dataset in datasets]
    jobs = select(Job).where(Job.kind == JobKind.IMPORT, col(Job.dataset_id).in_(ids)).order_by(col(Job.id))
    return {job.dataset_id: job for job in session.exec(jobs)}
