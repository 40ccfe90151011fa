"""All that jobs have saved, on one page: how large it is, whether it was verified, and what deleting it frees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session, col, func, select

from app.core.artifacts.deletion import freed_bytes
from app.core.artifacts.models import Artifact
from app.core.disk import read_disk
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.paths import DataFolder
from app.web.dependencies import FolderDep, SessionDep
from app.web.templating import render

router = APIRouter(include_in_schema=False)

KINDS = ("adapter", "model", "checkpoint", "merged", "gguf")
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact with the job that made it. `freed_bytes` is None where the job goes on, so that nothing may go."""

    artifact: Artifact
    job: Job
    freed_bytes: int | None


@dataclass(frozen=True, slots=True)
class Shelf:
    """One page of artifacts; `kinds` is {kind: (how many, bytes)} of all of them."""

    rows: Sequence[Row]
    kinds: dict[str, tuple[int, int]]
    kind: str
    largest_first: bool
    number: int

    @property
    def total(self) -> int:
        return self.kinds.get(self.kind, (0, 0))[0] if self.kind else sum(count for count, _ in self.kinds.values())

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.kinds.values())

    @property
    def last(self) -> int:
        return max(1, -(-self.total // PAGE_SIZE))

    def address(self, path: str, page: int) -> str:
        values = {"kind": self.kind, "sort": "size" if self.largest_first else "", "page": page if page > 1 else ""}
        kept = {name: value for name, value in values.items() if value}
        return f"{path}?{urlencode(kept)}" if kept else path


@router.get("/artifacts")
def list_all_artifacts(
    request: Request,
    session: SessionDep,
    folder: FolderDep,
    kind: str = "",
    sort: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Everything that jobs have saved, newest or largest first."""
    shelf = _read(session, folder, kind if kind in KINDS else "", sort == "size", page)
    context = {"shelf": shelf, "all_kinds": KINDS, "disk": read_disk(session, folder.home)}
    return render(request, "artifacts/list.html", context)


def _read(session: Session, folder: DataFolder, kind: str, largest_first: bool, number: int) -> Shelf:
    sums = select(Artifact.kind, func.count(), func.sum(Artifact.bytes)).group_by(Artifact.kind)
    kinds = {name: (count, size) for name, count, size in session.exec(sums)}
    found = select(Artifact, Job).join(Job, col(Job.id) == Artifact.job_id)
    if kind:
        found = found.where(Artifact.kind == kind)
    order = col(Artifact.bytes).desc() if largest_first else col(Artifact.id).desc()
    found = found.order_by(order, col(Artifact.id).desc()).offset((number - 1) * PAGE_SIZE).limit(PAGE_SIZE)
    shown = session.exec(found)
    return Shelf([_row(folder, *each) for each in shown], kinds, kind, largest_first, number)


def _row(folder: DataFolder, artifact: Artifact, job: Job) -> Row:
    return Row(artifact, job, freed_bytes(folder, [artifact]) if job.status in ENDED else None)
