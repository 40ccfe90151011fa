"""The first account, by the one-time link that `loradeck serve` prints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.accounts.cookies import hand_over, log_browser_in
from app.core.accounts import audit
from app.core.accounts.setup import check_setup_token, set_up_admin
from app.core.accounts.users import has_users
from app.core.errors import InvalidInput, NotFound
from app.web.access import PUBLIC_BODY_BYTES, peer
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep
from app.web.templating import render

router = APIRouter()


@router.get("/setup")
def show_setup(
    request: Request, session: SessionDep, folder: FolderDep, settings: SettingsDep, token: str = ""
) -> Response:
    """The form for the first account; not there once it was made. Raises: NotFound, Forbidden without the token."""
    if settings.auth == "off" or has_users(session):
        raise NotFound("There is nothing at this address.")
    check_setup_token(folder, token)
    return _form(request, token, "")


@router.post("/setup", max_body_size=PUBLIC_BODY_BYTES)
def set_up(
    request: Request,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    token: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Make the first admin and log them in."""
    if settings.auth == "off":
        raise NotFound("There is nothing at this address.")
    try:
        user = set_up_admin(database, folder, token, name, password)
    except InvalidInput as error:
        return _form(request, token, error.message, name, 422)
    with database.write() as session:
        audit.note(session, user.name, "set_up", "", peer(request))
        secret = log_browser_in(request, session, user)
    return hand_over(request, RedirectResponse(request.app.url_path_for("show_dashboard"), 303), secret)


def _form(request: Request, token: str, fault: str, name: str = "admin", status: int = 200) -> Response:
    response = render(request, "accounts/setup.html", {"token": token, "fault": fault, "name": name}, status)
    response.headers["Cache-Control"] = "no-store"
    return response
