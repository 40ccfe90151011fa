"""How bytes leave: what the system is told of each connection."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.responses import PlainTextResponse

from app.web.connections import StreamConnection


def test_an_answer_does_not_wait_for_the_readers_acknowledgement() -> None:
    listener = socket.socket()  # as the command makes its own: without the protocol's number
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(PlainTextResponse("here"), http=StreamConnection, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), timeout=20) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert reader.recv(12) == b"HTTP/1.1 200"
            (connection,) = server.server_state.connections
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
