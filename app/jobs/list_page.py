"""The list of jobs as its page shows it; filter, order and page stand in its address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.events.log import latest_id
from app.core.jobs.listing import JobSort, Page
from app.core.jobs.listing import list_jobs as query_jobs
from app.core.jobs.models import Job
from app.core.jobs.queue_state import get_queue
from app.core.jobs.status import ACTIVE, JobStatus
from app.core.jobs.tagging import list_tags
from app.core.metrics.store import latest_values
from app.web.dependencies import SessionDep
from app.web.sparkline import loss_lines
from app.web.templating import render_region

router = APIRouter(include_in_schema=False)

SORTS: Mapping[JobSort, str] = {
    JobSort.NEWEST: "newest first",
    JobSort.OLDEST: "oldest first",
    JobSort.LOSS: "lowest loss",
    JobSort.LOSS_DESC: "highest loss",
    JobSort.EVAL_LOSS: "lowest eval loss",
    JobSort.EVAL_LOSS_DESC: "highest eval loss",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for; what it cannot mean is left out."""

    path: str
    q: str
    status: JobStatus | None
    tag: str
    sort: JobSort
    page: int

    @property
    def filtered(self) -> bool:
        return bool(self.q or self.status or self.tag)

    def address(self, **changes: str | int) -> str:
        """The address of this list with something changed; without what is as usual. Another order begins at page 1."""
        page = 1 if "sort" in changes else self.page
        values = {"q": self.q, "status": self.status or "", "tag": self.tag, "sort": self.sort, "page": page, **changes}
        usual = {"q": "", "status": "", "tag": "", "sort": JobSort.NEWEST, "page": 1}
        kept = {name: str(value) for name, value in values.items() if value != usual[name]}
        return f"{self.path}?{urlencode(kept)}" if kept else self.path

    def order(self, name: str) -> str | None:
        """Of a column: `ascending`, `descending`, or None where the list is not sorted by it."""
        return {name: "ascending", f"-{name}": "descending"}.get(self.sort)


@router.get("/jobs")
def list_jobs(
    request: Request,
    session: SessionDep,
    status: str = "",
    q: str = "",
    tag: str = "",
    sort: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """All jobs, filtered by status, tag and part of the name."""
    asked = Asked(
        request.url.path,
        q.strip(),
        JobStatus(status) if status in set(JobStatus) else None,
        tag.strip(),
        JobSort(sort) if sort in set(JobSort) else JobSort.NEWEST,
        page,
    )
    found = query_jobs(session, status=asked.status, search=asked.q, tag=asked.tag, sort=asked.sort, page=page)
    context = {
        "asked": asked,
        "found": found,
        "losses": _losses(session, found),
        "lines": loss_lines(session, found.jobs),
        "statuses": list(JobStatus),
        "sorts": SORTS,
        "tags": list_tags(session),
        "after": latest_id(session),
        "queue_state": get_queue(session),
    }
    return render_region(request, "jobs/_list.html", "jobs/list.html", context)


def _losses(session: Session, found: Page) -> dict[int, Mapping[str, float | None]]:
    """{job id: {loss, eval_loss}}: what came out, or the newest of a job that runs."""
    return {job.key: _loss_of(session, job) for job in found.jobs}


def _loss_of(session: Session, job: Job) -> Mapping[str, float | None]:
    if job.status in ACTIVE:
        return latest_values(session, job.key)
    return {"loss": job.summary.get("train_loss"), "eval_loss": job.summary.get("eval_loss")}


def selected_ids(ids: Sequence[str]) -> list[int]:
    """Ids as a form of checkboxes sends them, once each; what is no number is left out."""
    return list(dict.fromkeys(int(each) for each in ids if each.isascii() and each.isdecimal() and len(each) < 19))
