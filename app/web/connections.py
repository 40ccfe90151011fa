"""HTTP/1.1 as uvicorn speaks it, without delay, and with two shortcuts for long streams."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol


class StreamConnection(H11Protocol):
    """Hands `abort` and `push` to handlers in the scope's state.

    `abort` drops the connection at once: uvicorn closes one only when all that was written has been read, which a
    stalled reader never does. `push` adds to a body in chunks without the handler's task, which a thousand streams
    would have to wake for each event.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Else the body waits up to 40 ms for the reader's word that the headers came: asyncio sees to that only for
        # sockets that were made with a protocol's number, which uvicorn's are not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "abort": transport.abort, "push": self.push}

    def push(self, data: bytes) -> bool:
        """Write one chunk of an HTTP/1.1 body that is being sent. Returns False, and writes nothing, where the reader
        is behind or gone."""
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True
