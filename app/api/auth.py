"""Bearer tokens for the JSON API."""

from __future__ import annotations

import secrets

from fastapi import Request

from app.core.errors import Unauthorized


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
