"""Log in, log out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.accounts.cookies import hand_over, log_browser_in, take_back
from app.accounts.people import PersonDep
from app.core.accounts import audit, sessions
from app.core.accounts.models import User
from app.core.accounts.passwords import MAX_LENGTH, verify_password
from app.core.accounts.throttle import LoginThrottle
from app.core.accounts.users import find_user, has_users
from app.core.database import Database
from app.core.errors import TooManyRequests
from app.web.access import PUBLIC_BODY_BYTES, peer
from app.web.dependencies import DatabaseDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.identities import identity_of
from app.web.redirects import local_path
from app.web.templating import render

router = APIRouter()

_WRONG = "This name and password do not belong together."


@router.get("/login")
def show_login(request: Request, session: SessionDep, settings: SettingsDep, next: str = "/") -> Response:
    """The form; whoever is logged in, or needs not be, is led on, and so is the first user."""
    if settings.auth == "off" or identity_of(request).role is not None:
        return RedirectResponse(local_path(next), 303)
    if not has_users(session):
        return RedirectResponse(request.app.url_path_for("show_setup"), 303)
    return _form(request, next)


@router.post("/login", max_body_size=PUBLIC_BODY_BYTES)
def log_in(
    request: Request,
    database: DatabaseDep,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """A new login. An unknown name and a wrong password are answered alike, and as slowly."""
    throttle: LoginThrottle = request.app.state.login_throttle
    if len(password) > MAX_LENGTH or len(name) > MAX_LENGTH:
        return _form(request, next, "That is longer than a name or a password can be.", 400)
    try:
        throttle.count(peer(request), name)
        user = _check(database, name, password)
    except TooManyRequests as error:
        response = _form(request, next, error.message, 429, name)
        response.headers["Retry-After"] = str(error.retry_seconds)
        return response
    with database.write() as session:
        audit.note(session, name[:64], "log_in" if user else "failed_login", "", peer(request))
        secret = log_browser_in(request, session, user) if user else ""
    if user is None:
        return _form(request, next, _WRONG, 401, name)
    throttle.forgive(peer(request), name)
    return hand_over(request, RedirectResponse(local_path(next), 303), secret)


@router.post("/logout")
def log_out(request: Request, session: WriteSessionDep, person: PersonDep) -> Response:
    """End this browser's login."""
    sessions.end_session(session, person.credential)
    return take_back(request, RedirectResponse(request.app.url_path_for("show_login"), 303))


def _check(database: Database, name: str, password: str) -> User | None:
    """Raises: TooManyRequests."""
    with database.read() as session:
        user = find_user(session, name)
    right = verify_password(password, user.password_hash if user else None)
    return user if right else None


def _form(request: Request, next: str, fault: str = "", status: int = 200, name: str = "") -> Response:
    context = {"next": local_path(next), "fault": fault, "name": name}
    response = render(request, "accounts/login.html", context, status)
    response.headers["Cache-Control"] = "no-store"
    return response
