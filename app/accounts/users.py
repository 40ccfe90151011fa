"""Users, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from app.core.accounts.roles import Role
from app.core.accounts.sessions import end_sessions
from app.core.accounts.users import add_user, get_user_by_id, list_users, remove_user, set_password, set_role
from app.core.errors import AppError, Conflict, InvalidInput
from app.core.table import MAX_ID
from app.web.dependencies import DatabaseDep, SessionDep, WriteSessionDep
from app.web.templating import render

router = APIRouter()


@router.get("/users")
def show_users(request: Request, session: SessionDep) -> Response:
    """Everybody who has an account, and the form for one more."""
    return _page(request, session)


@router.post("/users")
def create_user(
    request: Request,
    database: DatabaseDep,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    role: Annotated[Role, Form()] = Role.MEMBER,
) -> Response:
    """A new account; where that is not possible, the form again."""
    try:
        with database.write() as session:
            add_user(session, name, password, role)
    except (InvalidInput, Conflict) as error:
        with database.read() as session:
            return _page(request, session, error, name)
    return _back(request)


@router.post("/users/{user_id}/role")
def change_role(request: Request, user_id: int, session: WriteSessionDep, role: Annotated[Role, Form()]) -> Response:
    """From the next request on. Raises: NotFound, Conflict."""
    set_role(session, get_user_by_id(session, min(user_id, MAX_ID)), role)
    return _back(request)


@router.post("/users/{user_id}/password")
def reset_password(
    request: Request, user_id: int, database: DatabaseDep, password: Annotated[str, Form()] = ""
) -> Response:
    """A new password; the user is logged out everywhere. Raises: NotFound."""
    try:
        with database.write() as session:
            set_password(session, get_user_by_id(session, min(user_id, MAX_ID)), password)
    except InvalidInput as error:
        with database.read() as session:
            return _page(request, session, error)
    return _back(request)


@router.post("/users/{user_id}/log-out")
def log_user_out(request: Request, user_id: int, session: WriteSessionDep) -> Response:
    """Everywhere. Raises: NotFound."""
    end_sessions(session, get_user_by_id(session, min(user_id, MAX_ID)).key)
    return _back(request)


@router.post("/users/{user_id}/remove")
def delete_user(request: Request, user_id: int, session: WriteSessionDep) -> Response:
    """With logins and tokens; what they queued stays. Raises: NotFound, Conflict."""
    remove_user(session, get_user_by_id(session, min(user_id, MAX_ID)))
    return _back(request)


def _page(request: Request, session: Session, fault: AppError | None = None, name: str = "") -> Response:
    context = {
        "users": list_users(session),
        "roles": list(Role),
        "fault": fault.message if fault else "",
        "name": name[:64],
    }
    response = render(request, "accounts/users.html", context, 422 if fault else 200)
    response.headers["Cache-Control"] = "no-store"
    return response


def _back(request: Request) -> Response:
    return RedirectResponse(request.app.url_path_for("show_users"), 303)
