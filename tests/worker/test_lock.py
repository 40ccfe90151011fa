"""One worker for each data folder."""

from __future__ import annotations

import pytest

from app.core.errors import WorkerAlreadyRunning
from app.core.paths import DataFolder
from worker.lock import lock_data_folder


def test_second_worker_on_a_data_folder_is_refused(folder: DataFolder) -> None:
    with lock_data_folder(folder), pytest.raises(WorkerAlreadyRunning, match="Another worker already runs"):
        lock_data_folder(folder)
    lock_data_folder(folder).close()
