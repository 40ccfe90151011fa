"""A checkpoint that somebody keeps outlives all that come after it, whoever comes second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import Session

from app.core.artifacts.keeping import keep_checkpoint
from app.core.artifacts.models import Artifact
from app.core.errors import NotFound
from app.core.jobs.models import Job
from app.core.paths import DataFolder


@pytest.fixture
def job(session: Session, make_job: Callable[..., Job], folder: DataFolder) -> Job:
    """With checkpoints of steps 2 and 4, of which that of step 2 is about to be forgotten: its folder is gone."""
    job = make_job()
    for step in (2, 4):
        path = f"checkpoints/step-{step}"
        session.add(Artifact(job_id=job.key, kind="checkpoint", path=path, step=step, bytes=1, created_at=0.0))
    session.flush()
    (folder.job(job.key) / "checkpoints" / "step-4").mkdir(parents=True)
    return job


def _marks(folder: DataFolder, job: Job) -> list[str]:
    return sorted(path.name for path in (folder.job(job.key) / "checkpoints").iterdir() if path.is_file())


def test_mark_comes_and_goes_with_the_row(session: Session, folder: DataFolder, job: Job) -> None:
    assert keep_checkpoint(session, folder, job, 4).kept
    assert _marks(folder, job) == ["step-4.kept"]
    assert not keep_checkpoint(session, folder, job, 4, kept=False).kept
    assert _marks(folder, job) == []


def test_checkpoint_that_has_just_gone_is_not_said_to_be_kept(session: Session, folder: DataFolder, job: Job) -> None:
    with pytest.raises(NotFound, match="has just been dropped"):
        keep_checkpoint(session, folder, job, 2)
    assert _marks(folder, job) == []
    with pytest.raises(NotFound, match="has no checkpoint"):
        keep_checkpoint(session, folder, job, 3)


def test_mark_lies_where_trainings_look_for_it(tmp_path: Path) -> None:
    from app.core.artifacts.manifest import kept_mark
    from worker.artifacts.steps import step_folders

    (tmp_path / "step-4").mkdir()
    kept_mark(tmp_path / "step-4").touch()
    assert step_folders(tmp_path) == [(4, tmp_path / "step-4")]
