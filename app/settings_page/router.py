"""The settings page: what is kept for this installation beside the environment's settings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.disk import read_disk
from app.core.errors import InvalidInput
from app.core.paths import DataFolder
from app.core.secrets import HF_TOKEN, describe_secret, remove_secret, set_secret
from app.core.settings import Settings
from app.settings_page import notifications
from app.settings_page.retention import describe_retention
from app.web.dependencies import FolderDep, SessionDep, SettingsDep
from app.web.templating import redirect, render, render_region

router = APIRouter(include_in_schema=False)
router.include_router(notifications.router)


@router.get("/settings")
def show_settings(request: Request, session: SessionDep, folder: FolderDep, settings: SettingsDep) -> Response:
    """Every section of the page."""
    return render(request, "settings/show.html", _page(session, folder, settings))


@router.post("/settings/hub-token")
def set_hub_token(
    request: Request, session: SessionDep, folder: FolderDep, settings: SettingsDep, token: Annotated[str, Form()] = ""
) -> Response:
    """Store the hub token; it is never sent back."""
    try:
        set_secret(folder, HF_TOKEN, token)
    except InvalidInput as error:
        context = {**_page(session, folder, settings), "token_errors": [fault.message for fault in error.faults]}
        return render_region(request, "settings/_hub_token.html", "settings/show.html", context, 422)
    return redirect(request, request.app.url_path_for("show_settings"))


@router.post("/settings/hub-token/remove")
def remove_hub_token(request: Request, folder: FolderDep) -> Response:
    """Forget the stored hub token."""
    remove_secret(folder, HF_TOKEN)
    return redirect(request, request.app.url_path_for("show_settings"))


def _page(session: Session, folder: DataFolder, settings: Settings) -> dict[str, Any]:
    return {
        "hub_token": describe_secret(folder, HF_TOKEN),
        "token_errors": [],
        "retention": describe_retention(session, settings, read_disk(session, folder.home)),
    }
