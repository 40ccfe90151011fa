"""What a check of the chosen dataset says of the typed length: how many rows are longer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.report import Tokens
from app.core.datasets.store import find_dataset
from app.core.jobs.checks import find_lengths
from app.core.models.models import ModelStatus
from app.core.models.registry import find_model
from app.web.dependencies import SessionDep
from app.web.templating import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class LengthNote:
    """`share` of the rows, from 0 to 1, that are longer than the length; None where nobody has measured them."""

    dataset_id: int
    max_length: int | None
    share: float | None = None
    exact: bool = True
    longest: int | None = None  # tokens

    @property
    def percent(self) -> str:
        """As in `3.2` or `41`; never 0 for some rows, nor 100 for not all."""
        per_cent = 100 * (self.share or 0.0)
        return (
            f"{min(99.9, max(0.1, per_cent)):.1f}" if 0 < per_cent < 10 or 99.5 < per_cent < 100 else f"{per_cent:.0f}"
        )


@router.get("/jobs/new/lengths")
def show_length_note(request: Request, session: SessionDep) -> Response:
    """The region below the dataset, as the form stands now."""
    return render(request, "jobs/_lengths.html", {"lengths": describe_lengths(session, request.query_params)})


def describe_lengths(session: Session, chosen: Mapping[str, str]) -> LengthNote | None:
    """None where dataset or model are not there to measure. `chosen` are the form's values by name."""
    model = find_model(session, chosen.get("base_model", ""))
    dataset = find_dataset(session, chosen.get("dataset", ""))
    if model is None or dataset is None or model.status != ModelStatus.READY or dataset.status != DatasetStatus.READY:
        return None
    typed = chosen.get("max_length", "").strip()
    length = int(typed) if typed.isdecimal() and len(typed) < 8 else None
    tokens = find_lengths(session, dataset, model)
    return _note(dataset, tokens, length)


def _note(dataset: Dataset, tokens: Tokens | None, length: int | None) -> LengthNote:
    if tokens is None or not tokens["rows"] or length is None:
        return LengthNote(dataset.key, length)
    exact = length == tokens["max_length"] or length >= tokens["max"]
    share = share_longer(tokens, length)
    return LengthNote(dataset.key, length, share, exact, tokens["max"])


def share_longer(tokens: Tokens, length: int) -> float:
    """The share of the rows that are longer; between two bars of the histogram in proportion."""
    if length >= tokens["max"]:
        return 0.0
    if length == tokens["max_length"]:
        return tokens["truncated"] / tokens["rows"]
    width, longer = tokens["histogram"]["width"], float(tokens["histogram"]["over"])
    for index, count in enumerate(tokens["histogram"]["counts"]):
        inside = min(max((index + 1) * width - 1 - length, 0), width) / width
        longer += count * inside
    return min(1.0, longer / tokens["rows"])
