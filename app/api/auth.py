"""Bearer tokens for the JSON API."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from app.core.errors import Unauthorized
from app.web.uploads import StoringRoute


class TokenRoute(StoringRoute):
    """Asks for the token before the body is read: dependencies are asked only after an upload is on the disk."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_token(request: Request) -> Response:
            require_token(request)
            return await handle(request)

        return handle_with_token


def require_token(request: Request) -> None:
    """Raises: Unauthorized unless the request carries this installation's token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(
        token.strip().encode(), request.app.state.token.encode()
    ):
        raise Unauthorized(
            "This needs the API token.",
            advice="Send `Authorization: Bearer …`; on the server's machine it is in server.json in the data folder.",
        )
