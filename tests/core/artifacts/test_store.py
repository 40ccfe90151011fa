"""Artifacts: what a job produced, and what was merged from it."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from typing import Any

import pytest
from sqlmodel import Session

from app.core.artifacts.store import META, drop_missing, find_artifact, get_artifact, list_artifacts, record
from app.core.errors import NotFound
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder

FILES = [{"path": "a", "bytes": 5, "sha256": "x"}, {"path": "b", "bytes": 7, "sha256": "y"}]


@pytest.fixture
def job(session: Session) -> Job:
    return enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=time.time()))


def _announce(
    session: Session, folder: DataFolder, job: Job, kind: str, path: str, step: int | None = None, **data: Any
) -> None:
    target = folder.job(job.key) / path
    target.mkdir(parents=True, exist_ok=True)
    (target / META).write_text(json.dumps({"files": FILES}))
    record(session, folder, job.key, step, {"kind": kind, "path": path, **data})
    session.flush()


def test_sizes_and_hashes_come_from_the_folder(session: Session, folder: DataFolder, job: Job) -> None:
    _announce(session, folder, job, "adapter", "adapter", 7)
    (artifact,) = list_artifacts(session, job)
    assert (artifact.kind, artifact.path, artifact.step) == ("adapter", "adapter", 7)
    content = (folder.job(job.key) / "adapter" / META).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    meta = {"path": META, "bytes": len(content), "sha256": digest, "crc32": zlib.crc32(content)}
    assert artifact.files == [*FILES, meta]
    assert artifact.bytes == 5 + 7 + len(content)
    assert (artifact.verified, artifact.certificate) == (None, None)


@pytest.mark.parametrize("passed", [True, False])
def test_a_certificate_says_whether_it_is_verified(
    session: Session, folder: DataFolder, job: Job, passed: bool
) -> None:
    certificate = {"passed": passed, "max_difference": 0.5}
    _announce(session, folder, job, "merged", "merged", certificate=certificate)
    artifact = get_artifact(session, job, "merged")
    assert (artifact.verified, artifact.certificate) == (passed, certificate)


def test_what_is_announced_again_replaces_its_row(session: Session, folder: DataFolder, job: Job) -> None:
    _announce(session, folder, job, "merged", "merged", certificate={"passed": False})
    _announce(session, folder, job, "merged", "merged", 9)
    (artifact,) = list_artifacts(session, job)
    assert (artifact.step, artifact.verified) == (9, None)


def test_a_folder_that_is_not_finished_is_not_recorded(session: Session, folder: DataFolder, job: Job) -> None:
    (folder.job(job.key) / "adapter").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
    assert list_artifacts(session, job) == []


def test_a_job_also_shows_what_was_merged_from_it(session: Session, folder: DataFolder, job: Job) -> None:
    merge = enqueue(session, Job(name="m", kind=JobKind.MERGE, source_job_id=job.id, created_at=0))
    answer = enqueue(session, Job(name="p", kind=JobKind.PLAYGROUND, source_job_id=job.id, created_at=0))
    other = enqueue(session, Job(name="o", kind=JobKind.TRAIN, created_at=0))
    for each, kind in ((job, "adapter"), (merge, "merged"), (answer, "answer"), (other, "adapter")):
        _announce(session, folder, each, kind, kind)
    assert [(a.kind, a.job_id) for a in list_artifacts(session, job)] == [("merged", merge.id), ("adapter", job.id)]
    assert [a.kind for a in list_artifacts(session, merge)] == ["merged"]


def test_the_newest_of_a_kind_or_one_step(session: Session, folder: DataFolder, job: Job) -> None:
    for step in (10, 20):
        _announce(session, folder, job, "checkpoint", f"checkpoints/step-{step}", step)
    _announce(session, folder, job, "adapter", "adapter", 20)
    assert get_artifact(session, job, "checkpoint").step == 20
    assert get_artifact(session, job, "checkpoint", 10).step == 10
    assert find_artifact(session, job, "checkpoint", 15) is None
    with pytest.raises(NotFound, match=rf"Job {job.id} has no checkpoint at step 15\."):
        get_artifact(session, job, "checkpoint", 15)
    with pytest.raises(NotFound, match=rf"Job {job.id} has no merged") as caught:
        get_artifact(session, job, "merged")
    assert caught.value.advice == "It has: adapter, checkpoint at step 10, checkpoint at step 20."


def test_a_job_without_artifacts_says_so(session: Session, job: Job) -> None:
    with pytest.raises(NotFound) as caught:
        get_artifact(session, job, "adapter")
    assert caught.value.advice == "It has: nothing yet."


def test_rows_whose_folder_is_gone_are_forgotten(session: Session, folder: DataFolder, job: Job) -> None:
    for step in (10, 20):
        _announce(session, folder, job, "checkpoint", f"checkpoints/step-{step}", step)
    (folder.job(job.key) / "checkpoints" / "step-10" / META).unlink()
    (folder.job(job.key) / "checkpoints" / "step-10").rmdir()
    drop_missing(session, folder, job.key)
    assert [artifact.step for artifact in list_artifacts(session, job)] == [20]
