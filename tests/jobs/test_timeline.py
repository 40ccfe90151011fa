"""The job page's timeline: base, checkpoints and final side by side, with what can be had of each."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.testclient import TestClient
from sqlmodel import Session, select

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder
from app.jobs.timeline import describe_timeline

MakeJob = Callable[..., Job]


def _tell(session: Session, job: Job, step: int, model: str, text: str, prompt: str = "Why?") -> None:
    log.append(session, EventKind.SAMPLE, {"prompt": prompt, "text": text, "model": model}, job_id=job.key, step=step)


def _save(session: Session, job: Job, kind: str, step: int) -> None:
    path = f"checkpoints/step-{step}" if kind == "checkpoint" else kind
    session.add(Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=1, created_at=0.0))


def _fill(database: Database, job: Job) -> None:
    """Base, steps 4 and 8 (whose checkpoint alone is left) and the result of step 12."""
    with database.write() as session:
        for step, model, text in ((0, "base", "Hm."), (4, "tuned", "A."), (8, "tuned", ""), (12, "tuned", "Aye.")):
            _tell(session, job, step, model, text)
        _tell(session, job, 12, "tuned", "Two.", prompt="And?")
        for step, loss in ((0, 4.5), (8, 2.25)):
            put_metrics(session, job.key, step, 1.0, {"eval_loss": loss})
        _save(session, job, "checkpoint", 8)
        _save(session, job, "adapter", 12)


def test_moments_stand_in_order_with_answers_losses_and_what_is_saved(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    _fill(database, job)
    with database.read() as session:
        timeline = describe_timeline(session, job, session.exec(select(Artifact)).all())
    assert timeline is not None
    assert [(m.step, m.eval_loss, m.saved.kind if m.saved else None) for m in timeline.moments] == [
        (0, 4.5, None), (4, None, None), (8, 2.25, "checkpoint"), (12, None, "adapter"),
    ]  # fmt: skip
    assert timeline.rows == [("Why?", ["Hm.", "A.", "", "Aye."]), ("And?", [None, None, None, "Two."])]


def test_long_runs_show_the_newest_moments_and_those_that_can_be_had(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        _tell(session, job, 0, "base", "Hm.")
        for step in range(1, 101):
            _tell(session, job, step, "tuned", "Aye.")
        _save(session, job, "checkpoint", 7)
    with database.read() as session:
        timeline = describe_timeline(session, job, session.exec(select(Artifact)).all())
    assert timeline is not None
    assert [moment.step for moment in timeline.moments] == [0, 7, *range(71, 101)]
    assert timeline.left_out == 69


def test_page_offers_what_is_saved_of_each_moment(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    _fill(database, job)
    page = client.get(f"/jobs/{job.id}/samples").text
    for shown in ("Base model", "eval loss 4.5", "Step 4", "Final, step 12", "(an empty answer)", "Hm."):
        assert shown in page
    assert f"/playground?job={job.id}&amp;step=8" in page
    assert f'/playground?job={job.id}"' in page
    assert f"/jobs/{job.id}/artifacts/checkpoint?step=8" in page
    assert page.count("☆ Keep") == 1
    assert 'name="checkpoint" value="8"' in page
    assert 'name="checkpoint" value=""' in page, "of the final moment the adapter is merged"


def test_keep_is_a_button_a_route_and_told_over_the_api(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job()
    _fill(database, job)
    (folder.job(job.key) / "checkpoints" / "step-8").mkdir(parents=True)
    assert client.post(f"/jobs/{job.id}/checkpoints/8/keep", data={"kept": "true"}).status_code == 200
    assert "★ Kept" in client.get(f"/jobs/{job.id}/samples").text
    path = f"/api/v1/jobs/{job.id}/artifacts"
    assert [each["kept"] for each in client.get(path).json() if each["kind"] == "checkpoint"] == [True]
    assert client.post(f"{path}/checkpoint/8/keep", json={"kept": False}).json()["kept"] is False
    assert client.post(f"{path}/checkpoint/8/keep").json()["kept"] is True
    assert client.post(f"{path}/checkpoint/9/keep").status_code == 404
    assert client.post(f"{path}/checkpoint/8/keep", json={"keep": True}).status_code == 422


def test_job_that_writes_no_samples_says_why(client: TestClient, make_job: MakeJob) -> None:
    off = make_job(sample_max_new_tokens=0)
    assert "sample length 0" in client.get(f"/jobs/{off.id}/samples").text
    own = make_job(eval_fraction=0, sample_prompts=["Why?"])
    assert "appear here at each checkpoint" in client.get(f"/jobs/{own.id}/samples").text
