"""HTTP/1.1 as uvicorn speaks it, but that a handler can drop its own connection at once."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class DroppableConnection(H11Protocol):
    """Hands `abort` to handlers in the scope's state.

    uvicorn closes a connection only when all that was written has been read, which a stalled reader never does: it and
    what waits for it would stay until the process ends.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
