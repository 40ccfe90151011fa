"""A real Chromium against a real server. Any script error or breach of the page's own policy fails the test."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from sqlmodel import Session

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import drop_metrics_after, put_metrics
from app.core.models.models import BaseModel
from app.core.settings import Settings
from app.main import create_app
from app.web.connections import StreamConnection

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
PATIENCE_MS = 20_000  # a machine that is busy with other work is slow, not wrong
expect.set_options(timeout=PATIENCE_MS)
HOST = {
    "ram_total_bytes": 16 * 2**30,
    "ram_used_bytes": 6 * 2**30,
    "child_rss_bytes": 2**30,
    "cpu_percent": 50.0,
    "disk_total_bytes": 100 * 2**30,
    "disk_free_bytes": 60 * 2**30,
}
DEVICE = {
    "index": 0,
    "name": "NVIDIA GeForce RTX 4070 Ti SUPER",
    "uuid": "GPU-1",
    "vram_total_bytes": 16 * 2**30,
    "vram_used_bytes": 9 * 2**30,
    "utilization_percent": 97,
    "temperature_celsius": 71,
    "power_watts": 268.3,
    "power_limit_watts": 285.0,
    "process_vram_bytes": 8 * 2**30,
    "processes": [
        {"pid": 4194303, "process_vram_bytes": 8 * 2**30, "name": "/usr/bin/python3.11", "is_child": True},
        {"pid": 1234, "process_vram_bytes": None, "name": None, "is_child": False},
    ],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, else the one that playwright brought. No wider scope: playwright holds this thread's loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


class LiveServer:
    """The web application on a free port, in a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        config = uvicorn.Config(
            self.app,
            http=StreamConnection,
            host="127.0.0.1",
            port=0,
            log_level="warning",
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def cut_streams(self) -> None:
        """End every open stream, as a proxy that times out does; browsers connect again."""
        for follower in list(self.app.state.tailer._followers):
            follower.lasting = False
            follower.wake.set()

    def stop(self) -> None:
        self._server.should_exit = True
        self.app.state.tailer.request_stop()
        self._thread.join(timeout=20)


@pytest.fixture
def server(settings: Settings, registered: tuple[BaseModel, Dataset]) -> Iterator[LiveServer]:
    server = LiveServer(settings)
    yield server
    server.stop()


@pytest.fixture
def context(browser: Browser, server: LiveServer) -> Iterator[BrowserContext]:
    # Without motion: a colour in the middle of its transition has no contrast that axe could judge.
    context = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, server: LiveServer) -> Iterator[Page]:
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 422" not in message.text:  # Chromium logs each 4xx; ours is meant
            faults.append(message.text)

    page = context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda r: None if r.url.startswith((server.url, "data:")) else faults.append(r.url))
    page.set_default_timeout(PATIENCE_MS)
    yield page
    assert faults == []


class Feed:
    """Writes what the worker would write for one job."""

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self.job_id = job.key

    def move(self, *statuses: JobStatus, **fields: object) -> Feed:
        for status in statuses:
            with self._database.write() as session:
                queue.advance(session, queue.get_job(session, self.job_id), status, **fields)
        return self

    def step(self, step: int, **values: float) -> None:
        """Metrics of one step, its log line, progress and a reading."""
        with self._database.write() as session:
            put_metrics(session, self.job_id, step, time.time(), values)
            log.append(session, EventKind.METRIC, values, job_id=self.job_id, step=step)
            self._log(session, f"step {step}")
            job = queue.get_job(session, self.job_id)
            job.step, job.max_steps, job.eta_seconds = step, 10, 60.0
            session.add(job)
            log.append(
                session, EventKind.PROGRESS, {"max_steps": 10, "eta_seconds": 60.0}, job_id=self.job_id, step=step
            )
            self._read_memory(session)

    def go_on_from(self, step: int) -> None:
        """The run was interrupted and begins again at a step."""
        with self._database.write() as session:
            drop_metrics_after(session, self.job_id, step)
            data = {"max_steps": 10, "eta_seconds": 60.0}
            log.append(session, EventKind.PROGRESS, data, job_id=self.job_id, step=step)

    def log(self, *lines: str) -> None:
        with self._database.write() as session:
            self._log(session, *lines)

    def sample(self, model: str, text: str, prompt: str = "Hello?") -> None:
        with self._database.write() as session:
            data = {"prompt": prompt, "text": text, "model": model}
            log.append(session, EventKind.SAMPLE, data, job_id=self.job_id, step=3)

    def read_devices(self) -> None:
        """A worker that is alive and reads one GPU."""
        reading = {"available": True, "reason": None, "devices": [DEVICE], "host": HOST}
        state = WorkerState(
            pid=1,
            pid_started_at=0.0,
            boot_id=boot_id(),
            version="0",
            started_at=0.0,
            heartbeat_at=uptime_seconds(),
            reading=reading,
        )
        with self._database.write() as session:
            session.merge(state)

    def _log(self, session: Session, *lines: str) -> None:
        log.append(session, EventKind.LOG, {"lines": list(lines)}, job_id=self.job_id)

    def _read_memory(self, session: Session) -> None:
        now, data = time.time(), {"available": False, "devices": [], "host": HOST}
        session.add(MemoryReading(job_id=self.job_id, time=now, data=data))
        log.append(session, EventKind.GPU, {**data, "reason": None}, job_id=self.job_id, at=now)


@pytest.fixture
def running(database: Database, make_job: Callable[..., Job]) -> Feed:
    """A job that trains, with three steps done."""
    feed = Feed(database, make_job("live one")).move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")
    for step in (1, 2, 3):
        feed.step(step, loss=3.0 / step, learning_rate=1e-4)
    return feed
