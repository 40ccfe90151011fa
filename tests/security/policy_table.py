"""What the door says to each identity at each route and method: `python -m tests.security.policy_table` writes it.

The rows come from the application's routes, the answers from its own middleware, in front of a stub of the rest.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.core.accounts.roles import Role
from app.core.accounts.roles import Scope as TokenScope
from app.core.accounts.sessions import start_session
from app.core.accounts.tokens import add_token, revoke_token
from app.core.accounts.users import add_user
from app.core.settings import Settings
from app.main import create_app
from app.web.access import AccessMiddleware

FILE = Path(__file__).parent / "policy.csv"
REACHED = 204


def routes(app: FastAPI) -> list[tuple[str, str, str]]:
    """(name, method, path) of every route and method."""
    contexts = iter_route_contexts(app.router.routes)
    return sorted((c.name or "", method, c.path or "") for c in contexts for method in c.methods or ())


def table(app: FastAPI) -> str:
    """As CSV."""
    identities = _identities(app)
    door = _door(app)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["route", "method", "path", *identities])
    for name, method, path in routes(app):
        answers = [_ask(door, method, path, headers) for headers in identities.values()]
        writer.writerow([name, method, path, *answers])
    return out.getvalue()


def _door(app: FastAPI) -> TestClient:
    async def reached(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": REACHED, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    door = AccessMiddleware(reached, app, app.state.database, app.state.identities)

    async def with_app(scope: Scope, receive: Receive, send: Send) -> None:
        await door({**scope, "app": app}, receive, send)

    return TestClient(with_app, base_url="http://127.0.0.1", follow_redirects=False)


def _ask(door: TestClient, method: str, path: str, headers: dict[str, str]) -> str:
    filled = path.replace("{job_id}", "1").replace(":path}", "}")
    status = door.request(method, filled, headers=headers).status_code
    return "yes" if status == REACHED else str(status)


def _identities(app: FastAPI) -> dict[str, dict[str, str]]:
    """Kind of identity → the headers it sends."""
    with app.state.database.write() as session:
        users = {role: add_user(session, role.value, "correct horse battery", role) for role in Role}
        cookies = {role: _cookie(app, start_session(session, users[role], "", "")) for role in Role}
        tokens = {scope: add_token(session, users[Role.ADMIN], scope.value, scope)[1] for scope in TokenScope}
        revoked, secret = add_token(session, users[Role.ADMIN], "revoked", TokenScope.ADMIN)
        revoke_token(session, revoked.key)
        members = add_token(session, users[Role.MEMBER], "too much", TokenScope.ADMIN)[1]
    return {
        "anonymous": {},
        **{role.value: cookies[role] for role in Role},
        **{f"admin's {scope.value} token": _bearer(tokens[scope]) for scope in TokenScope},
        "member's admin token": _bearer(members),
        "revoked token": _bearer(secret),
        "server.json": _bearer(app.state.token),
    }


def _cookie(app: FastAPI, secret: str) -> dict[str, str]:
    return {"Cookie": f"{app.state.identities.cookie}={secret}"}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADECK_HOME"] = home
        FILE.write_text(table(create_app(Settings(home=Path(home), auth="accounts"))), encoding="utf-8")


if __name__ == "__main__":
    main()
