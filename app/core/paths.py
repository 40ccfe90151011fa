"""Where things lie. Folders are named by id, never by a user's text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

OF_DASHBOARD = "of a dashboard"  # in worker.lock: the worker was started by `loradeck serve`

_PACKAGE = Path(__file__).resolve().parent.parent


def bundled(name: str) -> Path:
    """Folder `name` (templates, static, migrations): beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / "_bundled" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The layout of `LORADECK_HOME`."""

    home: Path

    @property
    def backups(self) -> Path:
        return self.home / "backups"

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

    @property
    def secrets(self) -> Path:
        """Never part of a backup; see `app.core.secrets`."""
        return self.home / "secrets"

    @property
    def server_json(self) -> Path:
        return self.home / "server.json"

    @property
    def setup_token(self) -> Path:
        """There until the first account is made."""
        return self.home / "setup_token"

    @property
    def worker_lock(self) -> Path:
        return self.home / "worker.lock"

    @property
    def web_lock(self) -> Path:
        return self.home / "web.lock"

    @property
    def restoring(self) -> Path:
        """There while a restore is under way: neither dashboard nor worker starts beside it."""
        return self.home / "restoring.json"

    def numbered(self) -> list[Path]:
        """Folders of jobs, datasets and models that are there."""
        parents = (self.home / name for name in ("jobs", "datasets", "models"))
        return sorted(path for parent in parents if parent.is_dir() for path in parent.iterdir() if path.name.isdigit())

    def job(self, job_id: int) -> Path:
        return self.home / "jobs" / str(job_id)

    def attempt(self, job_id: int, number: int) -> Path:
        return self.job(job_id) / "attempts" / str(number)

    def dataset(self, dataset_id: int) -> Path:
        return self.home / "datasets" / str(dataset_id)

    def model(self, model_id: int) -> Path:
        return self.home / "models" / str(model_id)

    def create(self) -> DataFolder:
        """Make the folders, readable by their owner only whatever the umask is."""
        for folder in (self.home, self.backups, self.uploads, *(self.home / n for n in ("jobs", "datasets", "models"))):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        return self


def fsync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, mode 0600."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
