"""What a job made is deleted whole, tells what the disk gets back, and not from under a job that reads it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.artifacts.deletion import delete_artifact, delete_files
from app.core.artifacts.manifest import kept_mark
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import META, list_artifacts, record
from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue, request_cancel
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder

Make = Callable[..., Job]


@pytest.fixture
def make(database: Database, folder: DataFolder) -> Make:
    """An ended job with an artifact of some bytes."""

    def make(
        kind: JobKind = JobKind.TRAIN, artifact: str = "adapter", size: int = 1000, source: Job | None = None
    ) -> Job:
        with database.write() as session:
            job = Job(name="j", kind=kind, created_at=time.time(), source_job_id=source.id if source else None)
            enqueue(session, job)
            place = folder.job(job.key) / artifact
            place.mkdir(parents=True)
            (place / "a.bin").write_bytes(bytes(size))
            (place / META).write_text(json.dumps({"files": [{"path": "a.bin", "bytes": size, "sha256": "x"}]}))
            record(session, folder, job.key, None, {"kind": artifact, "path": artifact})
            return request_cancel(session, job)

    return make


def artifacts_of(database: Database, job: Job) -> list[Artifact]:
    with database.read() as session:
        return list(list_artifacts(session, job))


def test_an_artifact_goes_from_the_pages_and_from_the_disk(database: Database, folder: DataFolder, make: Make) -> None:
    job, other = make(), make()
    (artifact,) = artifacts_of(database, job)
    assert delete_artifact(database, folder, job.key, artifact.key) == artifact.bytes
    assert artifacts_of(database, job) == []
    assert list(folder.job(job.key).iterdir()) == []
    assert (folder.job(other.key) / "adapter").is_dir()
    with pytest.raises(NotFound, match="has no artifact"):
        delete_artifact(database, folder, job.key, artifact.key)


def test_the_mark_of_a_kept_checkpoint_goes_with_it(database: Database, folder: DataFolder, make: Make) -> None:
    job = make(artifact="checkpoint")
    (artifact,) = artifacts_of(database, job)
    kept_mark(folder.job(job.key) / "checkpoint").touch()
    delete_artifact(database, folder, job.key, artifact.key)
    assert list(folder.job(job.key).iterdir()) == []


def test_all_files_of_a_job_take_what_was_made_from_it_with_them(
    database: Database, folder: DataFolder, make: Make
) -> None:
    job = make()
    merge = make(JobKind.MERGE, "merged", 5000, source=job)
    (folder.job(job.key) / "state" / "step-1").mkdir(parents=True)
    (folder.job(job.key) / "state" / "step-1" / "optimizer.pt").write_bytes(bytes(300))
    (folder.job(job.key) / "train.log").write_text("stays")
    listed = sum(each.bytes for each in artifacts_of(database, job))
    assert delete_files(database, folder, job.key) == listed + 300
    assert [path.name for path in folder.job(job.key).iterdir()] == ["train.log"]
    assert list(folder.job(merge.key).iterdir()) == []


def test_what_another_folder_has_too_is_not_counted(
    database: Database, folder: DataFolder, make: Make, tmp_path: Path
) -> None:
    job = make(size=10_000)
    os.link(folder.job(job.key) / "adapter" / "a.bin", tmp_path / "same")
    assert delete_files(database, folder, job.key) < 1000
    assert (tmp_path / "same").stat().st_size == 10_000


def test_nothing_goes_while_a_job_may_need_it(database: Database, folder: DataFolder, make: Make) -> None:
    job = make()
    (artifact,) = artifacts_of(database, job)
    with database.write() as session:
        merge = enqueue(session, Job(name="m", kind=JobKind.MERGE, created_at=0.0, source_job_id=job.id))
    for delete in (
        lambda: delete_artifact(database, folder, job.key, artifact.key),
        lambda: delete_files(database, folder, job.key),
    ):
        with pytest.raises(Conflict, match=f"Job {merge.id} .* is queued and may need this"):
            delete()
    assert (folder.job(job.key) / "adapter" / "a.bin").is_file()
    assert len(artifacts_of(database, job)) == 1


def test_a_folder_that_cannot_be_moved_leaves_everything_as_it_was(
    database: Database, folder: DataFolder, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make()
    make(JobKind.MERGE, "merged", source=job)
    rename, moved = Path.rename, []

    def second_fails(path: Path, target: Path) -> Path:
        moved.append(path)
        if len(moved) == 2:
            raise PermissionError("read-only")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(PermissionError):
        delete_files(database, folder, job.key)
    assert len(artifacts_of(database, job)) == 2
    for artifact in artifacts_of(database, job):
        assert (folder.job(artifact.job_id) / artifact.path / "a.bin").is_file()
