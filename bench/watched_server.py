"""`loradeck serve …` that counts: `GET /bench/counts` tells rounds of the tailer, database queries and processor time.

`python -m bench.watched_server serve --no-worker --port P`.
"""

from __future__ import annotations

import resource
from typing import Any

from fastapi import FastAPI
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import app.main
from app.cli import main
from app.core.settings import Settings
from app.web.tailer import EventTailer

counts = {"rounds": 0, "queries": 0}
_create_app = app.main.create_app
_advance = EventTailer._advance


def create_counting_app(settings: Settings) -> FastAPI:
    """The application, with every SELECT counted from now on."""
    web = _create_app(settings)
    event.listen(web.state.database.engine, "before_cursor_execute", _count_query)
    web.router.routes.insert(0, Route("/bench/counts", _tell))
    return web


def _count_query(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    counts["queries"] += statement.lstrip().startswith("SELECT")


async def _counting_advance(tailer: EventTailer) -> bool:
    counts["rounds"] += 1
    return await _advance(tailer)


def _tell(_request: Request) -> JSONResponse:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return JSONResponse({**counts, "cpu_seconds": usage.ru_utime + usage.ru_stime})


if __name__ == "__main__":
    app.main.create_app = create_counting_app  # type: ignore[assignment]
    EventTailer._advance = _counting_advance  # type: ignore[method-assign]
    main()
