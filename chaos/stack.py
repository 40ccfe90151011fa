"""The processes under test: started as a user starts them, killed without warning, started again."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from sqlmodel import col, select

from app.core.database import Database
from app.core.jobs.models import Attempt, Job, WorkerState
from app.core.jobs.status import ACTIVE, ENDED
from app.core.paths import DataFolder
from app.core.settings import Settings
from chaos.plan import Target
from worker.identity import ProcessIdentity

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_NICENESS = "5"  # what is killed yields to what kills it, so that windows of milliseconds are met
_PR_SET_CHILD_SUBREAPER = 36


class NotStarted(Exception):
    """A process of the stack did not come up."""


@dataclass(slots=True)
class Stack:
    """Web and worker of one data folder. `light`: the worker's jobs compute next to nothing."""

    home: Path
    light: bool
    database: Database = field(init=False)
    folder: DataFolder = field(init=False)
    _web: subprocess.Popen[bytes] | None = None
    _worker: subprocess.Popen[bytes] | None = None  # None where the dashboard keeps one
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans become ours, so that none is left behind
        self.folder = DataFolder(self.home).create()
        self.database = Database(Settings(home=self.home).effective_database_url)
        self.database.migrate(self.folder.backups)
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    def start(self) -> None:
        """Start what does not run. Raises: NotStarted."""
        if self._web is None or self._web.poll() is not None:
            more = ["--no-worker"] if self.light else []
            self._web = self._spawn("web", "-m", "app.cli", "serve", "--port", "0", *more)
        if self.light and (self._worker is None or self._worker.poll() is not None):
            self._worker = self._spawn("worker", "-m", "chaos.light_worker")

    def kill(self, target: Target, job: Job | None = None) -> int | None:
        """SIGKILL; returns the pid, or None where there was nothing to kill. `job`: whose child is meant."""
        process = self.find(target, job)
        if process is None:
            return None
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(STOP_SECONDS)
        return process.pid

    def find(self, target: Target, job: Job | None = None) -> psutil.Process | None:
        """The living process."""
        if target is Target.CHILD:
            return self.find_child(job) if job is not None else None
        return self._find_web() if target is Target.WEB else self._find_worker()

    def find_child(self, job: Job) -> psutil.Process | None:
        """The process that works on the job."""
        with self.database.read() as session:
            attempt = session.get(Attempt, (job.key, job.attempts))
        identity = ProcessIdentity.of_attempt(attempt) if attempt is not None else None
        if identity is None or not identity.lives():
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(identity.pid)
        return None

    def pids(self, target: Target) -> dict[int, int]:
        """The process that is meant, by the id of each job that it may be hit with: the job's child, or the worker."""
        with self.database.read() as session:
            open_jobs = session.exec(select(Job).where(col(Job.status).not_in(ENDED))).all()
            attempts = [session.get(Attempt, (job.key, job.attempts)) for job in open_jobs if job.status in ACTIVE]
        if target is Target.CHILD:
            return {each.job_id: each.pid for each in attempts if each is not None and each.pid is not None}
        worker = self._find_worker()
        return {} if worker is None else {job.key: worker.pid for job in open_jobs}

    def worker_beat_since(self, moment: float) -> bool:
        """Whether a worker lives that has said so since `moment` (by the monotonic clock, as heartbeats are)."""
        with self.database.read() as session:
            state = session.get(WorkerState, 1)
        return state is not None and state.heartbeat_at > moment and self._find_worker() is not None

    def wait_for_web(self) -> dict[str, str]:
        """Where the web process answers: {url, token}. Raises: NotStarted."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            server = self._read_server()
            if server is not None and self._web is not None and int(server["pid"]) == self._web.pid:
                with suppress(httpx.TransportError):
                    if httpx.get(f"{server['url']}/api/v1/health", trust_env=False, timeout=10).status_code == 200:
                        return server
            time.sleep(_POLL_SECONDS)
        raise NotStarted(f"The web process did not come up in {START_SECONDS:.0f} s; see {self._log('web')}.")

    def wait_for_worker(self) -> None:
        """Until one is there. Raises: NotStarted."""
        deadline = time.monotonic() + START_SECONDS
        while self._find_worker() is None:
            if time.monotonic() > deadline:
                raise NotStarted(f"No worker came up in {START_SECONDS:.0f} s; see {self.home}/chaos-*.log.")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> float:
        """SIGTERM to all, as a machine that is shut down does; returns the seconds that it took."""
        began = time.monotonic()
        mine = [process for process in (self._worker, self._web) if process is not None]
        for process in mine:
            process.terminate()
        for process in mine:
            process.wait(STOP_SECONDS)
        return time.monotonic() - began

    def left_over(self) -> list[str]:
        """Command lines of processes that still live though all was stopped; they are killed."""
        left = [process for process in psutil.Process().children(recursive=True) if process.is_running()]
        lines = []
        for process in left:
            with suppress(psutil.NoSuchProcess):
                lines.append(f"pid {process.pid}: {' '.join(process.cmdline())}")
                process.kill()
        psutil.wait_procs(left, STOP_SECONDS)
        self._stopped.set()
        return lines

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["nice", "-n", _NICENESS, sys.executable, *arguments]
        with self._log(name).open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LORADECK_")}
        cache = self.home.with_name(f"{self.home.name}-cache")
        more = {"LORADECK_HOME": str(self.home), "LORADECK_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        return kept | more | {"LORADECK_SPARE_CHILD": str(not self.light).lower()}

    def _log(self, name: str) -> Path:
        return self.home / f"chaos-{name}.log"

    def _read_server(self) -> dict[str, str] | None:
        path = self.folder.server_json
        server: dict[str, str] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return server

    def _find_web(self) -> psutil.Process | None:
        return psutil.Process(self._web.pid) if self._web is not None and self._web.poll() is None else None

    def _find_worker(self) -> psutil.Process | None:
        """By its own record; between two workers that is the dead one's."""
        lock = self.folder.worker_lock
        lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(lines[0])) if lines else None
            if (
                process is not None
                and any("worker" in part for part in process.cmdline())
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return process
        return None

    def _reap(self) -> None:
        """Collect what has ended, orphans too: a killed worker's child is ours now, and would stay a zombie."""
        while not self._stopped.wait(_POLL_SECONDS):
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
