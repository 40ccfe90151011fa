"""A run that nothing disturbed breaks no invariant, and each breaks where something is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import text

import chaos.light
from app.core.artifacts.store import record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import advance, claim_next
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobStatus
from app.core.jobs.submit import submit_training
from app.core.paths import DataFolder
from app.core.settings import Settings
from chaos.evidence import Evidence
from chaos.invariants import check_all
from chaos.workload import prepare
from worker.artifacts.folders import publish_artifact
from worker.context import Assignment, JobContext
from worker.ingest import Ingest
from worker.settle import settle
from worker.spool import SpoolWriter

STEPS = 6


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which two jobs with the same spec have completed."""
    folder = DataFolder(tmp_path_factory.mktemp("played") / "home").create()
    database = Database(Settings(home=folder.home).effective_database_url)
    database.migrate(folder.backups)
    prepare(database, folder, light=True)
    spec = {"base_model": "tiny", "dataset": "rows", "max_steps": STEPS, "save_steps": 2, "save_total_limit": 1}
    with mock.patch("chaos.light._PAUSE_SECONDS", 0.0):
        for name in ("short 1", "short 2"):
            with database.write() as session:
                submit_training(session, parse_spec(spec), name)
            _play_next(database, folder)
    database.engine.dispose()
    return folder.home


@pytest.fixture
def evidence(played: Path, tmp_path: Path) -> Iterator[Evidence]:
    """Of the two jobs, one the twin of the other, in a copy that a test may spoil."""
    home = shutil.copytree(played, tmp_path / "home")
    database = Database(Settings(home=home).effective_database_url)
    found = Evidence(DataFolder(home), database, {1: "short", 2: "short"}, {"short": 1}, {})
    found.streamed = [event.key for event in found.events]
    yield found
    database.engine.dispose()


def _play_next(database: Database, folder: DataFolder) -> None:
    """The next job's whole life, in this process."""
    with database.write() as session:
        claimed = claim_next(session)
        assert claimed is not None
        job, attempt = claimed
        job = advance(session, job, JobStatus.RUNNING)
    own, spool = folder.job(job.key), folder.attempt(job.key, 1) / "spool.jsonl"
    spool.parent.mkdir(parents=True)
    payload = {"spec": job.spec}
    assignment = Assignment(job.key, "train", 1, str(own), str(spool), str(own / "train.log"), payload)
    context = JobContext(assignment, SpoolWriter(spool))
    context.spool.finished("completed", summary=chaos.light.run_training(context))
    Ingest(database, folder, attempt).run(at_end=True)
    with database.write() as session:
        session.execute(text("UPDATE attempt SET ended_at = started_at WHERE job_id = :id"), {"id": job.key})
        stored = session.get_one(type(attempt), (job.key, 1))
        settle(session, folder, session.get_one(Job, job.key), stored)


def _broken(evidence: Evidence) -> set[str]:
    return {verdict.name for verdict in check_all(evidence) if verdict.broken}


def _change(evidence: Evidence, statement: str) -> None:
    with sqlite.connect(evidence.database.path) as connection:  # which enforces no foreign keys
        connection.execute(statement)
    connection.close()


def test_undisturbed_jobs_break_nothing_and_everything_was_looked_at(evidence: Evidence) -> None:
    verdicts = check_all(evidence)
    assert {verdict.name: verdict.broken for verdict in verdicts if verdict.broken} == {}
    assert all(verdict.looked_at for verdict in verdicts if verdict.name != "what was hit went on within 60 s")


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("every job completed", "UPDATE job SET status = 'running' WHERE id = 2"),
        ("attempts and fences are in order", "UPDATE job SET attempts = 2 WHERE id = 2"),
        ("attempts and fences are in order", "UPDATE attempt SET fence = 7 WHERE job_id = 2"),
        ("one process at a time", "UPDATE attempt SET ended_at = started_at + 3600 WHERE job_id = 1"),
        ("every spool is taken in to its end", "UPDATE attempt SET spool_seq = spool_seq - 1 WHERE job_id = 2"),
        ("metrics equal the undisturbed twin's", "UPDATE metric SET value = 0.5 WHERE job_id = 2 AND step = 3"),
        ("steps are contiguous", "DELETE FROM metric WHERE job_id = 2 AND step = 3"),
        ("every published folder verifies and is on record", "DELETE FROM artifact WHERE job_id = 2"),
        ("states follow each other as allowed", "DELETE FROM event WHERE job_id = 2 AND kind = 'finished'"),
        ("states follow each other as allowed", "DELETE FROM event WHERE data LIKE '%starting%' AND job_id = 2"),
        ("the database is whole", "UPDATE attempt SET job_id = 99 WHERE job_id = 2"),
    ],
)
def test_wrong_row_breaks_its_invariant(evidence: Evidence, name: str, statement: str) -> None:
    assert name not in _broken(evidence)
    _change(evidence, statement)
    fresh = Evidence(evidence.folder, evidence.database, evidence.jobs, evidence.twins, evidence.merges)
    assert name in _broken(fresh)


def test_lost_job_is_told(evidence: Evidence) -> None:
    evidence.jobs[99] = "short"
    assert _broken(evidence) == {"what was acknowledged is there"}


def test_job_that_nobody_submitted_is_told(evidence: Evidence) -> None:
    del evidence.jobs[2]
    assert "what was acknowledged is there" in _broken(evidence)
    evidence.unsure.add("short 2")
    assert "what was acknowledged is there" not in _broken(evidence)


def test_other_weights_than_the_twins_are_told(evidence: Evidence) -> None:
    target = evidence.folder.job(2) / "adapter"
    with publish_artifact(target, {}, 0) as folder:
        (folder / "part-0").write_text("other weights")
    with evidence.database.write() as session:
        record(session, evidence.folder, 2, STEPS, {"kind": "adapter", "path": "adapter"})
    assert _broken(evidence) == {"results are bit-equal to the undisturbed twin's"}


def test_damaged_checkpoint_is_told(evidence: Evidence) -> None:
    part = evidence.folder.job(2) / "checkpoints" / "step-4" / "part-1"
    part.write_text("x" + part.read_text()[1:])
    assert _broken(evidence) == {"every published folder verifies and is on record"}


def test_half_a_folder_and_half_an_upload_are_told(evidence: Evidence) -> None:
    (evidence.folder.job(2) / "checkpoints" / ".step-5.partial").mkdir()
    (evidence.folder.uploads / "half").mkdir()
    evidence.left_over = ["pid 1: python -m worker.child"]
    (verdict,) = (each for each in check_all(evidence) if each.broken)
    assert verdict.name == "nothing is left half-done"
    assert len(verdict.broken) == 3


@pytest.mark.parametrize("cut", [lambda ids: ids[:3] + ids[4:], lambda ids: [*ids, ids[-1]], lambda ids: ids[::-1]])
def test_event_that_is_missing_or_comes_twice_is_told(
    evidence: Evidence, cut: Callable[[list[int]], list[int]]
) -> None:
    evidence.streamed = cut(list(evidence.streamed))
    assert _broken(evidence) == {"the stream missed nothing"}


def test_job_that_went_on_too_late_is_told(evidence: Evidence) -> None:
    evidence.late = ["job 2 did not go on within 60 s"]
    assert _broken(evidence) == {"what was hit went on within 60 s"}
