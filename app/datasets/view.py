"""What the pages of datasets show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from app.core.datasets.formats import FIELDS, FORMATS
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import list_datasets
from app.core.errors import Fault
from app.core.events.log import latest_id
from app.core.jobs.models import Job
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
    """A hub dataset that is not there yet: its newest import job, and the form that imports it again."""
    columns = ", ".join(f"{field}={column}" for field, column in dataset.columns.items())
    form = HubForm({**dataset.source, "columns": columns, "name": dataset.name})
    job = import_jobs(session, [dataset]).get(dataset.id)
    return {"dataset": dataset, "job": job, "after": latest_id(session), **hub_context(form)}


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
