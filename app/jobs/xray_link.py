"""From the new-job form to the X-ray of the chosen dataset, under the settings that are typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.datasets.models import DatasetStatus
from app.core.datasets.store import find_dataset
from app.core.jobs.previews import DECIDING
from app.core.models.models import ModelStatus
from app.core.models.registry import find_model
from app.web.dependencies import SessionDep
from app.web.templating import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class XrayLink:
    """The dataset's id, and the query of its X-ray."""

    dataset_id: int
    query: str


@router.get("/jobs/new/xray")
def show_xray_link(request: Request, session: SessionDep) -> Response:
    """The region with the link, as the form stands now."""
    return render(request, "jobs/_xray_link.html", {"xray": find_xray_link(session, request.query_params)})


def find_xray_link(session: Session, chosen: Mapping[str, str]) -> XrayLink | None:
    """None where the dataset or the model is not there to look at. `chosen` are the form's values by name."""
    model = find_model(session, chosen.get("base_model", ""))
    dataset = find_dataset(session, chosen.get("dataset", ""))
    if model is None or dataset is None or model.status != ModelStatus.READY or dataset.status != DatasetStatus.READY:
        return None
    typed = {name: chosen[name] for name in DECIDING if chosen.get(name)}
    return XrayLink(dataset.key, urlencode({"model": model.name, **typed}))
