"""HTTP/1.1 as uvicorn speaks it, with two shortcuts for long streams."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class StreamConnection(H11Protocol):
    """Hands `abort` and `push` to handlers in the scope's state.

    `abort` drops the connection at once: uvicorn closes one only when all that was written has been read, which a
    stalled reader never does. `push` adds to a body in chunks without the handler's task, which a thousand streams
    would have to wake for each event.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort, "push": self.push}

    def push(self, data: bytes) -> bool:
        """Write one chunk of an HTTP/1.1 body that is being sent. Returns False, and writes nothing, where the reader
        is behind or gone."""
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True
