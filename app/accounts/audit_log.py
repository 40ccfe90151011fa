"""The audit log, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.core.accounts.audit import list_entries
from app.core.table import MAX_ID
from app.web.dependencies import SessionDep
from app.web.templating import render

router = APIRouter()

_PAGE = 100


@router.get("/audit")
def show_audit_log(
    request: Request, session: SessionDep, before: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None
) -> Response:
    """Who changed what, the newest first."""
    entries = list_entries(session, before, _PAGE)
    older = entries[-1].id if len(entries) == _PAGE else None
    return render(request, "accounts/audit.html", {"entries": entries, "older": older})
