"""One's own account: password, logins, API tokens."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from app.accounts.cookies import take_back
from app.accounts.people import PersonDep
from app.core.accounts import sessions, tokens
from app.core.accounts.passwords import MAX_LENGTH, verify_password
from app.core.accounts.roles import Role, Scope
from app.core.accounts.throttle import LoginThrottle
from app.core.accounts.users import set_password
from app.core.errors import InvalidInput, NotFound
from app.core.table import MAX_ID
from app.web.access import peer
from app.web.dependencies import DatabaseDep, SessionDep, WriteSessionDep
from app.web.identities import identity_of
from app.web.templating import render

router = APIRouter()


@router.get("/account")
def show_account(request: Request, session: SessionDep) -> Response:
    """Who is logged in here, from where else, and with which tokens; or that accounts are off."""
    identity = identity_of(request)
    if identity.user_id is None:
        return render(request, "accounts/off.html", {})
    return _page(request, session, identity.user_id)


@router.post("/account/password")
def change_password(
    request: Request,
    database: DatabaseDep,
    person: PersonDep,
    current: Annotated[str, Form(max_length=MAX_LENGTH)] = "",
    password: Annotated[str, Form(max_length=MAX_LENGTH)] = "",
) -> Response:
    """A new password; all other logins of this user end. Guesses of the old one count as failed logins do."""
    throttle: LoginThrottle = request.app.state.login_throttle
    throttle.count(peer(request), person.user.name)
    try:
        if not verify_password(current, person.user.password_hash):
            raise InvalidInput("That is not your password.", field="current")
        throttle.forgive(peer(request), person.user.name)
        with database.write() as session:
            set_password(session, session.merge(person.user), password, keep=person.credential)
    except InvalidInput as error:
        with database.read() as session:
            return _page(request, session, person.user.key, fault=error, status=422)
    return _back(request)


@router.post("/account/logins/end")
def end_login(request: Request, session: WriteSessionDep, person: PersonDep, login: Annotated[str, Form()]) -> Response:
    """Log another browser of this user out. Raises: NotFound."""
    if login not in {each.id_hash for each in sessions.list_sessions(session, person.user.key)}:
        raise NotFound("There is no such login.")
    sessions.end_session(session, login)
    return _back(request)


@router.post("/account/logins/end-all")
def end_all_logins(request: Request, session: WriteSessionDep, person: PersonDep) -> Response:
    """Log this user out everywhere, here too."""
    sessions.end_sessions(session, person.user.key)
    return take_back(request, RedirectResponse(request.app.url_path_for("show_login"), 303))


@router.post("/account/tokens")
def create_token(
    request: Request,
    database: DatabaseDep,
    person: PersonDep,
    name: Annotated[str, Form()] = "",
    scope: Annotated[Scope, Form()] = Scope.READ,
) -> Response:
    """A new API token, shown on this answer and never again."""
    try:
        with database.write() as session:
            token, secret = tokens.add_token(session, person.user, name, scope)
    except InvalidInput as error:
        with database.read() as session:
            return _page(request, session, person.user.key, fault=error, status=422)
    with database.read() as session:
        return _page(request, session, person.user.key, made={"name": token.name, "secret": secret})


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(request: Request, token_id: int, session: WriteSessionDep, person: PersonDep) -> Response:
    """From now on it opens nothing. Raises: NotFound."""
    tokens.revoke_token(session, min(token_id, MAX_ID), person.user.key)
    return _back(request)


def _page(
    request: Request,
    session: Session,
    user_id: int,
    *,
    fault: InvalidInput | None = None,
    made: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    identity = identity_of(request)
    faults = {each.field: each.message for each in fault.faults} if fault else {}
    context: dict[str, Any] = {
        "logins": sessions.list_sessions(session, user_id),
        "tokens": [token for token, _ in tokens.list_tokens(session, user_id) if token.revoked_at is None],
        "scopes": [scope for scope in Scope if identity.may(scope.limit(Role.ADMIN))],
        "faults": faults,
        "made": made,
    }
    response = render(request, "accounts/account.html", context, status)
    response.headers["Cache-Control"] = "no-store"
    return response


def _back(request: Request) -> Response:
    return RedirectResponse(request.app.url_path_for("show_account"), 303)
