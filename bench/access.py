"""What the door costs a request, and what a login costs: `python -m bench.access`.

The door is measured around an application that answers at once, with identities in memory, as they are after the first
request of a login. A login is one POST to the whole application, Argon2 and the new session's row included.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.accounts.roles import Role
from app.core.accounts.sessions import start_session
from app.core.accounts.users import add_user
from app.core.settings import Settings
from app.main import create_app
from app.web.access import AccessMiddleware

PASSWORD = "correct horse battery"
REQUESTS = 2000
LOGINS = 30
PATHS = ("/", "/jobs/7", "/datasets/3/xray", "/api/v1/jobs/7/metrics")


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _ask(door: Any, app: FastAPI, cookie: str, path: str) -> None:
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1:8000"), (b"cookie", cookie.encode())], "app": app, "state": {},
    }  # fmt: skip

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 204:
            raise AssertionError(f"{path} was refused: {message['status']}")

    await door(scope, None, send)


async def measure_door(app: FastAPI, cookie: str) -> list[float]:
    """Milliseconds that the door adds, one for each path and round, after the first."""
    door = AccessMiddleware(_answer, app, app.state.database, app.state.identities)
    added = []
    for path in PATHS:
        await _ask(door, app, cookie, path)
        for _ in range(REQUESTS // len(PATHS)):
            began = time.perf_counter()
            await _ask(door, app, cookie, path)
            added.append(1000 * (time.perf_counter() - began))
    return added


def measure_logins(app: FastAPI) -> list[float]:
    """Milliseconds of a login, from the request to its answer."""
    times = []
    for _ in range(LOGINS):
        client = TestClient(app, base_url="http://127.0.0.1", headers={"Sec-Fetch-Site": "same-origin"})
        client.follow_redirects = False
        began = time.perf_counter()
        response = client.post("/login", data={"name": "ann", "password": PASSWORD})
        times.append(1000 * (time.perf_counter() - began))
        assert response.status_code == 303
    return times


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(home=Path(folder) / "home", auth="accounts"))
        with app.state.database.write() as session:
            user = add_user(session, "ann", PASSWORD, Role.MEMBER)
            cookie = f"{app.state.identities.cookie}={start_session(session, user, '', '')}"
        door = asyncio.run(measure_door(app, cookie))
        logins = measure_logins(app)
    figures = {
        "door_ms_median": statistics.median(door),
        "door_ms_p95": statistics.quantiles(door, n=20)[-1],
        "login_ms_median": statistics.median(logins),
        "login_ms_p95": statistics.quantiles(logins, n=20)[-1],
    }
    for name, value in figures.items():
        print(f"{name:<18}{value:8.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
