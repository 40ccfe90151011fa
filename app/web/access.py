"""The door: who asks, what the route needs, what was done. Plain ASGI, ahead of the body: none is read in vain."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import OperationalError
from starlette._utils import get_route_path  # what the router itself looks a path up by
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.accounts import audit
from app.core.accounts.identity import ANONYMOUS, Identity, Kind, acting
from app.core.database import Database
from app.core.errors import AppError, Forbidden, TooLarge, Unauthorized
from app.web.errors import Busy, respond
from app.web.identities import Identities
from app.web.policy import POLICY, Rule

PUBLIC_BODY_BYTES = 64 * 1024  # what somebody unknown may send
_MOST_DIGITS = 18  # of a length; Python refuses to read a number of thousands
_TOKEN_ADVICE = (
    "Send `Authorization: Bearer …`; on the server's machine the token is in server.json in the data folder."
)

logger = logging.getLogger(__name__)


class RouteTable:
    """Every route in the router's own order, so that both find the same one."""

    def __init__(self, routes: Sequence[BaseRoute], policy: Mapping[str, Rule]) -> None:
        self._policy = policy
        self.routes: list[tuple[re.Pattern[str], frozenset[str], str]] = [
            (context.path_regex, frozenset(context.methods or ()), context.name or "")
            for context in iter_route_contexts(routes)
        ]

    def find_name(self, path: str, method: str) -> str | None:
        """The route that will answer; None where none will."""
        return next(
            (name for regex, methods, name in self.routes if regex.match(path) and method in methods),
            None,
        )

    def find_rule(self, name: str) -> Rule | None:
        """What that route needs; None where nobody said."""
        return self._policy.get(name)


class AccessMiddleware:
    """Asks the policy for each request, and writes down each change that was made."""

    def __init__(self, app: ASGIApp, owner: FastAPI, database: Database, identities: Identities) -> None:
        self._app = app
        self._table = RouteTable(owner.router.routes, POLICY)
        self._database, self._identities = database, identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request.state.identity = ANONYMOUS
        name = self._table.find_name(get_route_path(scope), scope["method"])
        rule = None if name is None else self._table.find_rule(name)
        try:
            identity = request.state.identity = await self._find_identity(request, rule)
            _check(request, name, rule, identity)
        except AppError as error:
            await _refuse(request, error)(scope, receive, send)
        except OperationalError as error:
            logger.warning("the database did not say who asks: %s", error)
            await respond(request, Busy(), 503)(scope, receive, send)
        else:
            await self._answer(request, name, rule, identity, receive, send)

    async def _find_identity(self, request: Request, rule: Rule | None) -> Identity:
        """Raises: Unauthorized, OperationalError."""
        try:
            return await self._identities.find(request)
        except Unauthorized:
            if rule is None or rule.role is not None:
                raise
            return ANONYMOUS  # a token that is none is no hindrance where none is needed

    async def _answer(
        self, request: Request, name: str | None, rule: Rule | None, identity: Identity, receive: Receive, send: Send
    ) -> None:
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if rule is not None and rule.changes:
                    self._identities.forget()  # what was changed is committed, and its answer has not left
            await send(message)

        before = acting.set(identity)
        try:
            await self._app(request.scope, receive, send_on)
        finally:
            acting.reset(before)
        if rule is not None and rule.changes and name is not None and status < 400:
            await run_in_threadpool(self._write_down, request, name, identity)

    def _write_down(self, request: Request, name: str, identity: Identity) -> None:
        try:
            with self._database.write() as session:
                audit.note(session, identity.label, name, request.url.path, peer(request))
        except (OperationalError, AppError) as error:
            logger.error("%s by %s is missing in the audit log: %s", name, identity.label, error)


def peer(request: Request) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def _check(request: Request, name: str | None, rule: Rule | None, identity: Identity) -> None:
    """Raises: Unauthorized, Forbidden, TooLarge."""
    if rule is not None and rule.role is None:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > _MOST_DIGITS or int(length) > PUBLIC_BODY_BYTES:
            raise TooLarge("That is more than a form of this page can hold.")
        return
    if identity.role is None:
        raise Unauthorized("This needs a login, or an API token.", advice=_TOKEN_ADVICE)
    if identity.kind is Kind.BOX or name is None:  # no such route: the router says 404 or 405
        return
    if rule is None:
        raise Forbidden(
            f"The route {name} is closed: nobody has said who may use it.", advice="Add it to app/web/policy.py."
        )
    if rule.person and identity.kind is not Kind.SESSION:
        raise Forbidden("This needs somebody who is logged in; a token is not enough.")
    if rule.role is not None and not identity.may(rule.role):
        raise Forbidden(
            f"This needs the role {rule.role}; yours here is {identity.role}.",
            advice="An admin can give you that role.",
        )


def _refuse(request: Request, error: AppError) -> Response:
    """A browser is led to the login; everybody else is told."""
    if isinstance(error, TooLarge):
        return respond(request, error, 400)
    script = request.url.path.startswith("/api/") or "authorization" in request.headers
    if not isinstance(error, Unauthorized) or script:
        return respond(request, error)
    target = (
        f"{request.scope.get('root_path', '')}{request.app.url_path_for('show_login')}?next={quote(_wanted(request))}"
    )
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)


def _wanted(request: Request) -> str:
    """The page to come back to after the login."""
    asked = request.headers.get("hx-current-url")
    if not asked and request.method not in ("GET", "HEAD"):
        return "/"
    try:
        url = urlsplit(asked) if asked else request.url
    except ValueError:  # no page of ours sent it
        return "/"
    return url.path + (f"?{url.query}" if url.query else "")
