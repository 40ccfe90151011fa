"""A dashboard that is killed while a file comes in leaves nothing half-done to the next one."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

from app.core.paths import DataFolder
from tests.live_server import Served, serve_process

_ROWS = b'{"text": "a row"}\n' * 2_000_000


def test_half_an_upload_of_a_killed_dashboard_is_collected_by_the_next(tmp_path: Path) -> None:
    """It is killed as it copies the file into the data folder."""
    folder = DataFolder(tmp_path / "served")
    with serve_process(folder.home) as server:
        assert server.process is not None
        sender = threading.Thread(target=_send, args=(server,))
        sender.start()
        deadline = time.monotonic() + 60
        while not any(folder.uploads.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        server.process.kill()
        server.process.wait(timeout=20)
        sender.join()
    (left,) = folder.uploads.iterdir()
    assert sum(file.stat().st_size for file in left.iterdir()) < len(_ROWS), "half of it"
    folder.server_json.unlink()  # else the next one's is not waited for
    with serve_process(folder.home):
        assert list(folder.uploads.iterdir()) == []


def _send(server: Served) -> None:
    with suppress(httpx.TransportError):
        httpx.post(
            f"{server.url}/api/v1/datasets",
            files={"file": ("rows.jsonl", _ROWS)},
            headers=server.headers,
            trust_env=False,
            timeout=60,
        )
