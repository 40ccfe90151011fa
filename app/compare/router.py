"""The page that lays runs over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.compare.choice import MOST, choose, offer_runs
from app.compare.tables import list_answers, list_fields, list_figures
from app.core.events.log import latest_id
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.metrics.store import list_series
from app.web.dependencies import SessionDep
from app.web.templating import render

_CHARTS = {"loss": "Loss", "eval_loss": "Eval loss", "rewards_margin": "Reward margin"}

router = APIRouter(include_in_schema=False)


@router.get("/compare")
def show_comparison(
    request: Request,
    session: SessionDep,
    ids: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    all_fields: Annotated[bool, Query(alias="all")] = False,
) -> Response:
    """Runs over each other: their curves, settings, results and answers. The address holds all of it."""
    choice = choose(session, ids)
    context = {
        "choice": choice,
        "runs": [_described(number, run) for number, run in enumerate(choice.runs)],
        "ids": ",".join(str(run.id) for run in choice.runs),
        "all_fields": all_fields,
        "most": MOST,
        "offered": offer_runs(session) if len(choice.runs) < 2 else [],
        "after": latest_id(session),
        "live": any(run.status not in ENDED for run in choice.runs),
        **_tables(session, choice.runs),
    }
    return render(request, "compare/show.html", context)


def _described(number: int, run: Job) -> dict[str, Any]:
    """A run with its place among them, which decides its colour and its dashes."""
    label = f"#{run.id} {run.name}"
    return {"job": run, "number": number, "label": label, "origin": run.started_at or run.created_at}


def _tables(session: Session, runs: Sequence[Job]) -> dict[str, Any]:
    if not runs:
        return {"charts": [], "fields": [], "figures": [], "answers": []}
    told = {name for run in runs for name in list_series(session, run.key)}
    return {
        "charts": [(name, title) for name, title in _CHARTS.items() if name in told or name == "loss"],
        "fields": list_fields(runs),
        "figures": list_figures(session, runs),
        "answers": list_answers(session, runs) if len(runs) > 1 else [],
    }
