"""The cookie that says which login a browser has."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.accounts import sessions
from app.core.accounts.models import User
from app.web.access import peer
from app.web.identities import Identities


def log_browser_in(request: Request, session: Session, user: User) -> str:
    """A new login in place of the browser's old one. Returns the secret for `hand_over`."""
    old = request.cookies.get(_identities(request).cookie)
    if old:
        sessions.end_session(session, sessions.digest(old))
    return sessions.start_session(session, user, request.headers.get("user-agent", ""), peer(request))


def hand_over(request: Request, response: Response, secret: str) -> Response:
    """Out of reach of scripts, sent with nothing that another site starts, and over TLS alone where there is TLS."""
    response.set_cookie(
        _identities(request).cookie,
        secret,
        max_age=int(sessions.LASTS_SECONDS),
        path=request.scope.get("root_path") or "/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def take_back(request: Request, response: Response) -> Response:
    """The browser forgets its login."""
    response.delete_cookie(_identities(request).cookie, path=request.scope.get("root_path") or "/")
    return response


def _identities(request: Request) -> Identities:
    identities: Identities = request.app.state.identities
    return identities
