"""`loradeck serve` and `loradeck worker`."""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from types import FrameType
from typing import IO, Annotated

import typer

from app.cli.first_account import refuse_open_bind, setup_link
from app.cli.worker_process import WorkerProcess
from app.core.errors import Conflict, InvalidInput
from app.core.logs import set_up_logging
from app.core.paths import DataFolder, write_private
from app.core.settings import Settings

logger = logging.getLogger("loradeck")

app = typer.Typer()

_OPEN_FILES = 8192


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind to.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to bind to; 0 picks a free one.")] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only the web process.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Queue the demo job, unless one waits or runs.")] = False,
) -> None:
    """Start the dashboard: web and worker."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = Settings.load().model_copy(update=given)
    set_up_logging(settings.log_level)
    refuse_open_bind(settings)
    listener = _listen(settings)
    folder = DataFolder(settings.home).create()
    try:
        lock = _hold_web_lock(folder)
    except Conflict:
        listener.close()
        raise
    url = _url(settings.host, listener.getsockname()[1])

    import uvicorn  # imported here: the client commands need neither

    from app.main import create_app
    from app.web.connections import StreamConnection

    _allow_open_files()
    web = create_app(settings)
    damage = web.state.database.damage
    if demo and damage is None:
        from app.core.first_run import queue_demo  # other commands need no database

        queue_demo(web.state.database)
    write_private(folder.server_json, json.dumps({"url": url, "token": web.state.token, "pid": os.getpid()}) + "\n")
    config = uvicorn.Config(
        web,
        http=StreamConnection,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
        proxy_headers=False,  # create_app believes those that LORADECK_TRUSTED_PROXIES names, and no others
    )
    signal.signal(signal.SIGTERM, _exit)  # uvicorn raises the signal once more when it is done
    with suppress(KeyboardInterrupt), ExitStack() as running:
        running.enter_context(lock)
        running.callback(_forget_server, folder)
        worker = None if no_worker or damage is not None else running.enter_context(WorkerProcess(folder.worker_lock))
        typer.echo(f"Loradeck runs at {url}  (Ctrl+C stops it)")
        if (link := setup_link(web, url)) is not None:
            typer.echo(f"Make the first account: {link}  (it works once)")
        if damage is not None:
            typer.echo(f"It only says what to do: {damage.message} {damage.advice}")
        if worker is not None and worker.note is not None:
            typer.echo(worker.note)
        gc.freeze()  # what was made by now stays; looking through all of it would hold up every request for 0.1 s
        uvicorn.Server(config).run(sockets=[listener])


def _allow_open_files() -> None:
    """Each stream that is open holds a file, and many systems start a process with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


@app.command("worker")
def worker() -> None:
    """Start the worker alone."""
    # In place of this process, so that the client libraries imported here cost the worker no memory.
    os.execv(sys.executable, [sys.executable, "-m", "worker"])


def _listen(settings: Settings) -> socket.socket:
    """Raises: InvalidInput where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"Cannot bind to {settings.host}:{settings.port}: {error.strerror}.", field="port"
        ) from error
    listener.listen(128)
    listener.set_inheritable(False)
    return listener


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _hold_web_lock(folder: DataFolder) -> IO[str]:
    """One dashboard serves a data folder, for as long as the returned file is open. Raises: Conflict."""
    lock = os.fdopen(os.open(folder.home / "web.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        path = folder.server_json
        server = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        place = f"{server['url']} (pid {server['pid']})" if server else "it is starting"
        raise Conflict(
            f"A dashboard already runs on {folder.home}: {place}.",
            advice="Use that one or stop it, or set LORADECK_HOME to another folder.",
        ) from None
    return lock


def _forget_server(folder: DataFolder) -> None:
    """Remove server.json, unless another server has written its own since."""
    path = folder.server_json
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("pid") == os.getpid():
        path.unlink()
