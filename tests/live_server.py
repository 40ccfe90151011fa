"""Real servers for tests: `loradeck serve` as a process of its own, or uvicorn in a thread of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from app.core.settings import Settings
from app.main import create_app
from app.web.connections import StreamConnection

_OPEN = {"LORADECK_AUTH": "off"}  # tests/security has its own
START_SECONDS = 60.0  # a busy machine is slow to import


@dataclass(frozen=True, slots=True)
class Served:
    """Where a server is to be asked, and with which token."""

    url: str
    token: str
    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    cookie: str = ""  # the name of the cookie that a login has, of a server in this process

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def environment_for(home: Path) -> dict[str, str]:
    """An environment in which no developer's settings are left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LORADECK_")}
    cache = home.with_name(f"{home.name}-cache")
    return {**kept, "LORADECK_HOME": str(home), "LORADECK_CACHE": str(cache), "LORADECK_PORT": "0", **_OPEN}


@contextmanager
def serve_process(home: Path, *flags: str, worker: bool = False, **more: str) -> Iterator[Served]:
    """`loradeck serve` on a free port, without a worker unless asked; ended by SIGTERM."""
    environment = {**environment_for(home), **more}
    command = [sys.executable, "-m", "app.cli", "serve", *([] if worker else ["--no-worker"]), *flags]
    with (home.with_name(f"{home.name}.log")).open("w") as log_file:
        process = subprocess.Popen(command, env=environment, stdout=log_file, stderr=log_file, text=True)
    try:
        server = _wait_for_server(home, process)
        yield Served(server["url"], server["token"], home, environment, process)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for_server(home: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while not (home / "server.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the server did not start: {home.with_name(f'{home.name}.log').read_text()}")
        time.sleep(0.05)
    return json.loads((home / "server.json").read_text())


@contextmanager
def serve_thread(settings: Settings) -> Iterator[Served]:
    """The application on uvicorn in a thread, so that a test can shorten its waits."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, http=StreamConnection, port=0, log_config=None, timeout_graceful_shutdown=3, proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url, cookie = f"http://127.0.0.1:{port}", app.state.identities.cookie
        yield Served(url, app.state.token, settings.home, environment_for(settings.home), cookie=cookie)
    finally:
        server.should_exit = True
        thread.join()
