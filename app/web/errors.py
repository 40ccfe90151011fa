"""The one place that turns errors into responses: JSON under /api, a page elsewhere."""

from __future__ import annotations

import errno
import logging
from typing import Any
from urllib.parse import quote, urlsplit

import pysqlite3.dbapi2 as sqlite
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from app.core.errors import (
    AppError,
    Conflict,
    DatabaseDamaged,
    Fault,
    Forbidden,
    InvalidInput,
    NoRoom,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from app.core.masking import mask, mask_values
from app.web.error_page import advice_of, heading_of
from app.web.security import SECURITY_HEADERS
from app.web.templating import render

logger = logging.getLogger(__name__)

_MAKE_ROOM = "Make room on the disk of the data folder, for instance by deleting what old jobs saved, then try again."
_STATUS: dict[type[AppError], int] = {
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    TooManyRequests: 429,
    DatabaseDamaged: 503,
    NoRoom: 507,
    Unauthorized: 401,
    Forbidden: 403,
}


class Busy(AppError):
    """The database is busy. Try again in a few seconds."""

    code = "busy"


class Unexpected(AppError):
    """Something went wrong on the server. Its log says what."""

    code = "internal"


class BadRequest(AppError):
    """The request cannot be answered."""

    code = "bad_request"


def install_error_handlers(app: FastAPI) -> None:
    """Map every error to a response that says what, where and what to do."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(OperationalError, _on_database_error)
    app.add_exception_handler(OverflowError, _on_overflow)
    app.add_exception_handler(OSError, _on_system_error)
    app.add_exception_handler(Exception, _on_unexpected)


def status_of(error: AppError) -> int:
    """The HTTP status of an error; a subclass has its parent's."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def respond(request: Request, error: AppError, status: int | None = None) -> Response:
    """The error as JSON under /api, else as a page."""
    status = status or status_of(error)
    headers = {"Retry-After": "2"} if isinstance(error, Busy) else {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_seconds)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": mask_values(error.to_json())}, status, headers)
    error.message, error.advice = mask(error.message), mask_values(error.advice)
    shown = {
        "error": error,
        "status": status,
        "heading": heading_of(status, error.code),
        "advice": advice_of(status, error.advice),
        "back": _came_from(request),
    }
    response = render(request, "error.html", shown, status)
    response.headers.update(headers)
    return response


def _came_from(request: Request) -> str | None:
    """The page of ours whose button was pressed, to go back to."""
    try:
        came = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # no browser of ours wrote it
        return None
    if request.method == "GET" or came.netloc != request.url.netloc or not came.path.startswith("/"):
        return None
    return quote(f"/{came.path.lstrip('/')}", safe="/%") + (f"?{came.query}" if came.query else "")


def _on_app_error(request: Request, error: Exception) -> Response:
    return respond(request, error if isinstance(error, AppError) else Unexpected())


def _on_validation_error(request: Request, error: Exception) -> Response:
    details = error.errors() if isinstance(error, RequestValidationError) else []
    return respond(request, InvalidInput([_request_fault(detail) for detail in details]))


def _request_fault(detail: Any) -> Fault:
    if detail["type"] == "json_invalid":  # its place is an offset, not a field
        return Fault("body", f"is not valid JSON: {detail['ctx']['error']} (at character {detail['loc'][-1]})")
    return Fault(".".join(str(part) for part in detail["loc"][1:]), detail["msg"])


def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return respond(request, NotFound("There is nothing at this address."))
    if status == 413:
        return respond(request, TooLarge("The request is larger than this dashboard takes."))
    response = respond(request, BadRequest(str(getattr(error, "detail", ""))), status)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _on_database_error(request: Request, error: Exception) -> Response:
    logger.warning("the database did not answer: %s", error)
    if getattr(getattr(error, "orig", None), "sqlite_errorcode", None) == sqlite.SQLITE_FULL:
        return respond(request, NoRoom(advice=_MAKE_ROOM))
    return respond(request, Busy(), 503)


def _on_overflow(request: Request, error: Exception) -> Response:
    """An id that is larger than any that the database can hold is the id of nothing."""
    if "SQLite INTEGER" not in str(error):
        return _on_unexpected(request, error)
    return respond(request, NotFound("There is nothing with an id that large."))


def _on_system_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _on_unexpected(request, error)
    logger.warning("the disk is full: %s", error)
    return respond(request, NoRoom(advice=_MAKE_ROOM))


def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %r failed", request.method, request.url.path, exc_info=error)
    response = respond(request, Unexpected(), 500)
    for name, value in SECURITY_HEADERS:  # this response does not pass what adds them to others
        response.headers[name.decode()] = value.decode()
    return response
