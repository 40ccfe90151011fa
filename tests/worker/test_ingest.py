"""Spool and log come into the database whole, once, and as clean text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import select

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.events.models import Event
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue import claim_next, get_job
from app.core.metrics.store import read_series
from app.core.paths import DataFolder
from worker.attempts import StaleAttempt
from worker.ingest import Ingest, clean_lines
from worker.spool import SpoolWriter

Claimed = tuple[Job, Attempt, SpoolWriter, Ingest]


@pytest.fixture
def claimed(database: Database, folder: DataFolder, make_job: Callable[..., Job]) -> Claimed:
    """A claimed job, its spool, and the ingest that reads it."""
    make_job()
    with database.write() as session:
        found = claim_next(session)
    assert found is not None
    job, attempt = found
    folder.attempt(job.key, attempt.number).mkdir(parents=True)
    ingest = Ingest(database, folder, attempt)
    return job, attempt, SpoolWriter(ingest.spool), ingest


def test_every_kind_of_record_finds_its_place(database: Database, claimed: Claimed) -> None:
    job, _, spool, ingest = claimed
    spool.phase("train")
    spool.metrics(1, {"loss": 2.0, "learning_rate": 1e-4})
    spool.progress(1, 10, eta_seconds=5.0)
    spool.write("sample", {"prompt": "p", "text": "t", "model": "base"}, step=1)
    spool.finished("completed", summary={"train_loss": 2.0})
    ingest.run()
    with database.read() as session:
        stored, attempt = get_job(session, job.key), session.get_one(Attempt, (job.key, 1))
        assert (stored.phase, stored.step, stored.max_steps, stored.eta_seconds) == ("train", 1, 10, 5.0)
        assert read_series(session, job.key) == {"learning_rate": [(1, 1e-4)], "loss": [(1, 2.0)]}
        assert attempt.outcome == {"outcome": "completed", "summary": {"train_loss": 2.0}, "error": None}
        assert attempt.spool_seq == 5
        assert attempt.spool_offset == ingest.spool.stat().st_size
        of_job = select(Event).where(Event.job_id == job.id).order_by(Event.id)
        kinds = [event.kind for event in session.exec(of_job)]
    assert kinds == ["status", "status", "phase", "metric", "progress", "sample"]


def test_nothing_is_taken_in_twice(database: Database, folder: DataFolder, claimed: Claimed) -> None:
    job, attempt, spool, ingest = claimed
    spool.metrics(1, {"loss": 2.0})
    ingest.run()
    ingest.run(at_end=True)
    Ingest(database, folder, attempt).run()  # as after a restart of the worker: it goes on at the stored cursor
    with database.read() as session:
        metrics = session.exec(select(Event).where(Event.job_id == job.id, Event.kind == "metric")).all()
    assert len(metrics) == 1


def test_a_child_that_tells_more_than_is_taken_in_keeps_nobody_waiting(
    database: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _, spool, ingest = claimed
    monkeypatch.setattr("worker.ingest._AT_ONCE_SECONDS", 0.0)
    seen = []

    def told_meanwhile(seq: int) -> None:
        with database.read() as session:
            seen.append(session.get_one(Attempt, (job.key, 1)).spool_seq)
        for step in range(seq, seq + 500):
            spool.metrics(step, {"loss": 1.0})

    for number in range(3):
        told_meanwhile(1 + 500 * number)
        assert ingest.run()
    assert seen == [0, 200, 400], "each time a part of it"
    assert ingest.run(at_end=True)
    assert not ingest.run()
    with database.read() as session:
        assert [step for step, _ in read_series(session, job.key)["loss"]] == list(range(1, 1501))


def test_later_attempt_shuts_out_an_earlier_one(database: Database, claimed: Claimed) -> None:
    job, _, spool, ingest = claimed
    spool.metrics(1, {"loss": 2.0})
    with database.write() as session:
        stored = get_job(session, job.key)
        stored.fence += 1
        session.add(stored)
    with pytest.raises(StaleAttempt):
        ingest.run()
    with database.read() as session:
        assert read_series(session, job.key) == {}


def test_artifact_is_recorded_with_its_files(database: Database, folder: DataFolder, claimed: Claimed) -> None:
    job, _, spool, ingest = claimed
    write_artifact(folder.job(job.key) / "adapter")
    spool.artifact("adapter", "adapter", step=7)
    spool.artifact("checkpoint", "checkpoints/step-3", step=3)  # rotated away: there is nothing to record
    ingest.run()
    with database.read() as session:
        artifacts = session.exec(select(Artifact)).all()
    assert [(a.kind, a.path, a.step, a.verified) for a in artifacts] == [("adapter", "adapter", 7, None)]
    assert artifacts[0].files[0] == {"path": "weights", "bytes": 4, "sha256": "x"}


def test_a_run_that_goes_on_forgets_what_was_told_of_later_steps(
    database: Database, folder: DataFolder, claimed: Claimed
) -> None:
    job, _, spool, ingest = claimed
    for step in (0, 2, 4):
        spool.metrics(step, {"eval_loss": 1.0 + step})
    write_artifact(folder.job(job.key) / "checkpoints" / "step-4")
    spool.artifact("checkpoint", "checkpoints/step-4", step=4)
    ingest.run()
    shutil.rmtree(folder.job(job.key) / "checkpoints" / "step-4")  # as the attempt does before it says where it begins
    with database.write() as session:
        session.get_one(Job, job.key).start_from = 2
    spool.start(2)
    ingest.run()
    with database.read() as session:
        assert get_job(session, job.key).start_from is None, "a next attempt goes on from where this one will have come"
        assert read_series(session, job.key) == {"eval_loss": [(0, 1.0), (2, 3.0)]}
        assert session.exec(select(Artifact)).all() == []
        assert get_job(session, job.key).step == 2
    spool.start(0)
    ingest.run()
    with database.read() as session:
        assert read_series(session, job.key) == {}


def test_a_checkpoint_answers_who_asked_for_one(database: Database, folder: DataFolder, claimed: Claimed) -> None:
    job, _, spool, ingest = claimed
    with database.write() as session:
        session.get_one(Job, job.key).save_now_requested = True
    for kind, path, answered in (("adapter", "adapter", False), ("checkpoint", "checkpoints/step-3", True)):
        write_artifact(folder.job(job.key) / path)
        spool.artifact(kind, path, step=3)
        ingest.run()
        with database.read() as session:
            assert get_job(session, job.key).save_now_requested is not answered


def test_the_phase_of_samples_answers_who_asked_for_them(database: Database, claimed: Claimed) -> None:
    job, _, spool, ingest = claimed
    with database.write() as session:
        session.get_one(Job, job.key).sample_now_requested = True
    for phase, answered in (("save", False), ("sample", True)):
        spool.phase(phase)
        ingest.run()
        with database.read() as session:
            assert get_job(session, job.key).sample_now_requested is not answered


def test_log_lines_wait_until_they_are_whole(database: Database, claimed: Claimed) -> None:
    job, _, _, ingest = claimed
    ingest.log.write_text("first\nsec")
    ingest.run()
    assert log_lines(database, job) == [["first"]]
    ingest.log.write_text("first\nsecond\nrest without an end")
    ingest.run()
    assert log_lines(database, job) == [["first"], ["second"]]
    ingest.run(at_end=True)
    assert log_lines(database, job) == [["first"], ["second"], ["rest without an end"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_flood_of_a_progress_bar_is_told_as_its_last_state(database: Database, claimed: Claimed, end: str) -> None:
    job, _, _, ingest = claimed
    states = "\r".join(f"{number / 1000:6.1f} % of the rows" for number in range(60_000))
    ingest.log.write_text(f"before\n{states}{end}")
    ingest.run(at_end=True)
    assert log_lines(database, job) == [["before"], ["  60.0 % of the rows"]]


def test_a_flood_that_goes_on_is_taken_in_and_told_once_it_ends(database: Database, claimed: Claimed) -> None:
    job, _, _, ingest = claimed
    flood = "".join(f"\rstate {number}" for number in range(50_000))
    ingest.log.write_text(flood)
    ingest.run()
    assert log_lines(database, job) == []
    ingest.log.write_text(f"{flood}\rdone\nnext\n")
    ingest.run()
    assert log_lines(database, job) == [["done", "next"]]


def test_long_log_comes_in_whole(database: Database, claimed: Claimed) -> None:
    job, _, _, ingest = claimed
    lines = [f"line {number} " + "x" * 100 for number in range(3000)]
    ingest.log.write_text("\n".join(lines) + "\n")
    ingest.run(at_end=True)
    assert "".join(line for event in log_lines(database, job) for line in event) == "".join(lines)


def test_terminal_noise_is_cleaned() -> None:
    raw = b"\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\n\x1b]0;title\x07plain\x08\n\n"
    assert clean_lines(raw) == ["red", "100%", "plain"]


def test_lines_that_are_not_text_are_shown_all_the_same() -> None:
    assert clean_lines(b"caf\xe9 \xff\n") == ["caf\ufffd \ufffd"]


def write_artifact(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"1234")
    files = [{"path": "weights", "bytes": 4, "sha256": "x"}]
    (path / "meta.json").write_text(json.dumps({"files": files}))


def log_lines(database: Database, job: Job) -> list[list[str]]:
    with database.read() as session:
        events = session.exec(select(Event).where(Event.job_id == job.id, Event.kind == "log").order_by(Event.id))
        return [event.data["lines"] for event in events]
