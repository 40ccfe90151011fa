"""Uploads go from the connection straight to the data folder's disk, without a temporary copy elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, cast

from fastapi import Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import Message, Receive, Scope, Send

from app.core.datasets.incoming import IncomingFile
from app.core.paths import DataFolder
from app.core.settings import Settings

_PIECE_BYTES = 1 << 20  # handed to a thread at a time; a connection brings some tens of kilobytes
_MOST_FILES = 1
BODY_BYTES = 4 * 1024**2  # the most that a request without a file may hold: it is read into memory
_FORM_BYTES = 1024**2  # what a form may hold beside its file


def most_upload_bytes(settings: Settings) -> int:
    """The most that a request with a file may hold, in bytes."""
    return settings.max_upload_bytes + _FORM_BYTES


class StoringRoute(APIRoute):
    """Its handlers' `UploadFile.file` is an `IncomingFile`, which is removed after the request unless it was taken."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_storing(request: Request) -> Response:
            """Under the limit of uploads, in place of the router's, which holds until here."""
            responses: list[Response] = []

            async def answer(scope: Scope, receive: Receive, _send: Send) -> None:
                responses.append(await handle(_StoringRequest(scope, receive)))

            limit = most_upload_bytes(request.app.state.settings)
            await RequestBodyLimitMiddleware(answer, limit)(request.scope, request.receive, _send_nothing)
            return responses[0]

        return handle_storing


async def _send_nothing(_message: Message) -> None:
    """What is answered is returned."""


class _StoringRequest(Request):
    async def _get_form(self, **limits: Any) -> FormData:
        if self._form is None and _is_multipart(self):
            parser = _StoringParser(self.headers, self.stream(), **{**limits, "max_files": _MOST_FILES})
            parser.folder = self.app.state.folder
            try:
                self._form = await parser.parse()
            except MultiPartException as error:
                raise HTTPException(400, error.message) from error
        return await super()._get_form(**limits)


def _is_multipart(request: Request) -> bool:
    return parse_options_header(request.headers.get("content-type"))[0] == b"multipart/form-data"


class _StoringParser(MultiPartParser):
    """Starlette's parser, whose files are stored."""

    folder: DataFolder

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        opened = self._current_part.file
        if opened is not None:
            self._files_to_close_on_error.pop().close()
            stored = _StoredFile(IncomingFile(self.folder.uploads), opened.filename, opened.headers)
            self._files_to_close_on_error.append(cast(Any, stored.file))
            self._current_part.file = stored


class _StoredFile(UploadFile):
    """Gathers what comes, so that a thread is asked for once in a megabyte."""

    def __init__(self, file: IncomingFile, filename: str | None, headers: Headers) -> None:
        super().__init__(cast(BinaryIO, file), filename=filename, headers=headers)
        self._gathered = bytearray()

    async def write(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) >= _PIECE_BYTES:
            await self._write_on()

    async def seek(self, offset: int) -> None:
        """The parser has no more of it."""
        await self._write_on()
        self.file.seek(offset)

    async def _write_on(self) -> None:
        piece, self._gathered = bytes(self._gathered), bytearray()
        await run_in_threadpool(self.file.write, piece)
