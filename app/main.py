"""The web application: `create_app(settings)`."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import __version__
from app.accounts.router import router as accounts_router
from app.api.router import router as api_router
from app.artifacts.router import router as artifacts_router
from app.base_models.code import router as model_code_router
from app.base_models.router import router as models_router
from app.compare.router import router as compare_router
from app.core.accounts.throttle import LoginThrottle
from app.core.damage import open_checked
from app.core.datasets import staging
from app.core.first_run import register_demo
from app.core.paths import DataFolder, bundled, write_private
from app.core.secrets import remember_secrets
from app.core.settings import Settings
from app.datasets.doctor import router as doctor_router
from app.datasets.router import router as datasets_router
from app.datasets.xray import router as xray_router
from app.jobs.router import router as jobs_router
from app.playground.router import router as playground_router
from app.settings_page.router import router as settings_router
from app.system.router import router as system_router
from app.web.access import AccessMiddleware
from app.web.assets import Assets
from app.web.errors import install_error_handlers
from app.web.identities import Identities
from app.web.links import Links
from app.web.logged_out import end_streams_of_ended_logins
from app.web.security import SecurityMiddleware
from app.web.tailer import EventTailer
from app.web.templating import create_templates
from app.web.uploads import BODY_BYTES, most_upload_bytes

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises: AssetsMissing, DatabaseTooNew."""
    settings = settings or Settings()
    os.umask(0o077)
    folder = DataFolder(settings.home).create()
    remember_secrets(folder)
    staging.collect(folder.uploads)
    database = open_checked(settings.effective_database_url, folder)
    if database.damage is None:
        register_demo(database, folder)
    assets = Assets(bundled("static"))
    app = FastAPI(
        title="Loradeck",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        max_body_size=most_upload_bytes(settings),  # of any route; what the door refuses, it refuses in its own words
    )
    app.state.settings, app.state.folder, app.state.database = settings, folder, database
    app.state.token = load_token(folder)
    app.state.identities = identities = Identities(database, app.state.token, accounts=settings.auth == "accounts")
    app.state.login_throttle = LoginThrottle()
    app.state.tailer = EventTailer(database)
    app.state.templates = create_templates(bundled("templates"), assets, version=__version__)
    app.router.routes.append(Route("/static/{name:path}", assets.serve, name="static"))
    for router in (
        api_router,
        system_router,
        jobs_router,
        compare_router,
        datasets_router,
        xray_router,
        doctor_router,
        models_router,
        model_code_router,
        artifacts_router,
        playground_router,
        settings_router,
        accounts_router,
    ):
        app.include_router(router, max_body_size=BODY_BYTES)
    app.state.links = Links(app.router.routes)
    install_error_handlers(app)
    # Each of these goes ahead of those before it.
    app.add_middleware(AccessMiddleware, owner=app, database=database, identities=identities)
    app.add_middleware(
        SecurityMiddleware,
        bind_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        any_local=settings.auth == "accounts",
    )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    return app


def load_token(folder: DataFolder) -> str:
    """This installation's API token: made once, kept in a file that only its owner can read."""
    path = folder.home / "api_token"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8").strip()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    tailer: EventTailer = app.state.tailer
    if app.state.database.damage is None:  # else every page says so, and there is nothing to follow
        await tailer.start()
    restore = _end_streams_on_signal(tailer)
    watch = asyncio.create_task(end_streams_of_ended_logins(tailer, app.state.database))
    yield
    watch.cancel()
    restore()
    await tailer.stop()
    app.state.database.engine.dispose()


def _end_streams_on_signal(tailer: EventTailer) -> Callable[[], None]:
    """Open streams keep a server from shutting down, and teardown runs too late: end them when the signal comes.

    Returns a function that puts the handlers back. Outside the main thread there is nothing to chain.
    """
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tailer.request_stop)
        if callable(previous[number]):
            previous[number](number, frame)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handle)
    except ValueError:
        return lambda: None

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return restore
