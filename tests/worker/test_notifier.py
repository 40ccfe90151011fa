"""What happens to jobs is told once, to a real receiver, also over restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import pytest
from sqlmodel import select

from app.core import masking
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.queue import Cause
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import put_metrics
from app.core.notices import outbox
from app.core.notices.models import Notice, NoticeKind, NoticeStatus, Shape
from app.core.notices.webhook import set_webhook
from app.core.paths import DataFolder
from tests.receiver import Receiver, receive
from worker.notifier import Notifier, NotifierThread

NAMED = ("127.0.0.1",)
ALL = [kind.value for kind in NoticeKind]
MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())


@pytest.fixture
def receiver(database: Database, folder: DataFolder) -> Iterator[Receiver]:
    """A receiver that is set, for everything."""
    with receive() as receiver:
        set_up(database, folder, receiver)
        yield receiver


def set_up(
    database: Database, folder: DataFolder, receiver: Receiver, shape: Shape = Shape.JSON, kinds: list[str] = ALL
) -> None:
    with database.write() as session:
        set_webhook(
            session, folder, NAMED, url=receiver.url, shape=shape, kinds=kinds, link_base="http://box.lan:8000/"
        )


def notifier(database: Database, folder: DataFolder) -> Notifier:
    """As a worker that has just started."""
    made = Notifier(database, folder, NAMED)
    made.start()
    return made


def send_all(notifier: Notifier) -> None:
    while notifier.step():
        pass


def move(database: Database, job: Job, *statuses: JobStatus, **fields: object) -> None:
    for status in statuses:
        with database.write() as session:
            queue.advance(
                session, queue.get_job(session, job.key), status, **(fields if status == statuses[-1] else {})
            )


def notices(database: Database) -> list[Notice]:
    with database.read() as session:
        return list(session.exec(select(Notice).order_by(Notice.id)))  # type: ignore[arg-type]


def test_a_finished_job_is_told_once_with_its_figures(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    job = make_job("night")
    move(database, job, JobStatus.STARTING, JobStatus.RUNNING)
    move(database, job, JobStatus.COMPLETED, summary={"eval_loss": 1.0612, "train_loss": 0.98, "steps": 402})
    send_all(notifier(database, folder))
    send_all(notifier(database, folder))  # after a restart
    (body,) = receiver.bodies
    assert (body["kind"], body["title"]) == ("finished", f"Training #{job.id} night is done")
    assert body["message"].startswith("eval loss 1.061, loss 0.98, 402 steps")
    assert (body["url"], body["status"], body["eval_loss"]) == (
        f"http://box.lan:8000/jobs/{job.id}",
        "completed",
        1.0612,
    )
    assert [each.status for each in notices(database)] == [NoticeStatus.SENT]


def test_a_failure_is_told_with_its_reason_and_a_cancelled_job_is_not(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    failing, cancelled = make_job("bad"), make_job("away")
    move(database, failing, JobStatus.STARTING, JobStatus.RUNNING)
    error = {"kind": "not_finite", "message": "The loss is NaN at step 7.", "advice": "Lower the learning rate."}
    move(database, failing, JobStatus.FAILED, error=error)
    move(database, cancelled, JobStatus.CANCELLED)
    send_all(notifier(database, folder))
    (body,) = receiver.bodies
    assert (body["kind"], body["error"]) == ("failed", "not_finite")
    assert body["message"] == "The loss is NaN at step 7. Lower the learning rate."


def test_a_step_that_hangs_and_a_full_disk_are_told_once_each(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    job = make_job("slow")
    move(database, job, JobStatus.STARTING, JobStatus.RUNNING)
    sends = notifier(database, folder)
    for held in ({"kind": "stalled", "message": "Step 8 has not ended.", "since": 5.0}, None):
        for _ in range(2):  # announced again, as when its priority changes
            with database.write() as session:
                known = queue.get_job(session, job.key)
                known.held_up = held
                queue.announce(session, known)
            send_all(sends)
    with database.write() as session:
        error = {"kind": "disk_full", "message": "No room is left.", "advice": "Make room, then resume it."}
        queue.interrupt(session, queue.get_job(session, job.key), Cause.DISK_FULL, error)
    send_all(sends)
    assert [(body["kind"], body["message"].split(".")[0]) for body in receiver.bodies] == [
        ("guard", "Step 8 has not ended"),
        ("disk_full", "The disk was too full to save what it goes on from; it goes on from what it has saved"),
    ]


def test_an_eval_loss_that_rises_three_times_is_told_once(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    job = make_job("long")
    move(database, job, JobStatus.STARTING, JobStatus.RUNNING)
    sends, told = notifier(database, folder), []
    for step, loss in enumerate((2.0, 1.5, 1.6, 1.7, 1.8, 1.9)):
        with database.write() as session:
            put_metrics(session, job.key, step, time.time(), {"eval_loss": loss})
            log.append(session, EventKind.METRIC, {"eval_loss": loss}, job_id=job.key, step=step)
        send_all(sends)
        told.append(len(receiver.bodies))
    assert told == [0, 0, 0, 0, 1, 1]
    assert receiver.bodies[0]["guard"] == "overfit"
    assert "from 1.5 at step 1 to 1.8 at step 4" in receiver.bodies[0]["message"]


def test_only_the_kinds_that_are_wanted_are_told_and_nothing_from_before(
    database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    before, after = make_job("before"), make_job("after")
    move(database, before, JobStatus.FAILED, error={"kind": "x", "message": "m"})
    with receive() as receiver:
        set_up(database, folder, receiver, kinds=["failed"])
        move(database, after, JobStatus.STARTING, JobStatus.RUNNING)
        move(database, after, JobStatus.COMPLETED)
        send_all(notifier(database, folder))
        assert receiver.bodies == []


def test_a_receiver_that_is_down_is_tried_again_later_and_given_up_in_the_end(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSES_SECONDS", (0, 3600))
    receiver.answers = [503, 503, 200]
    job = make_job()
    move(database, job, JobStatus.FAILED, error={"kind": "x", "message": "m"})
    send_all(notifier(database, folder))
    (waiting,) = notices(database)
    assert (len(receiver.bodies), waiting.tries, waiting.status) == (2, 2, NoticeStatus.WAITING)
    assert waiting.next_try_at > time.time() + 3000
    assert waiting.error == "127.0.0.1 answered 503: said"
    receiver.answers = [503]
    with database.write() as session:
        session.get_one(Notice, waiting.key).next_try_at = 0.0
    send_all(notifier(database, folder))
    (lost,) = notices(database)
    assert (lost.status, lost.tries, len(receiver.bodies)) == (NoticeStatus.GIVEN_UP, 3, 3)


def test_a_worker_that_ended_while_it_sent_does_not_send_again(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(database, make_job(), JobStatus.FAILED, error={"kind": "x", "message": "m"})

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("worker.notifier.deliver", die)
    with pytest.raises(KeyboardInterrupt):
        notifier(database, folder).step()
    monkeypatch.undo()
    assert notices(database)[0].status == NoticeStatus.SENDING
    send_all(notifier(database, folder))
    (lost,) = notices(database)
    assert (lost.status, receiver.bodies) == (NoticeStatus.GIVEN_UP, [])
    assert "may have arrived" in (lost.error or "")


def test_what_happens_while_no_worker_runs_is_told_by_the_next_one(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    send_all(notifier(database, folder))
    move(database, make_job(), JobStatus.FAILED, error={"kind": "x", "message": "m"})
    send_all(notifier(database, folder))
    assert len(receiver.bodies) == 1


def test_the_address_is_in_no_log_line(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answers = [404]
    move(database, make_job(), JobStatus.FAILED, error={"kind": "x", "message": "m"})
    send_all(notifier(database, folder))
    assert "given_up" in caplog.text
    assert "s3cret" not in caplog.text
    assert receiver.url not in (folder.home / "loradeck.db").read_bytes().decode("latin-1")


def test_each_receiver_gets_its_own_shape(database: Database, folder: DataFolder, make_job: MakeJob) -> None:
    name = "<!channel> @everyone & ☃"
    with receive() as receiver:
        for shape in (Shape.NTFY, Shape.DISCORD, Shape.SLACK):
            set_up(database, folder, receiver, shape)
            move(database, make_job(name), JobStatus.FAILED, error={"kind": "x", "message": "m <b>"})
            send_all(notifier(database, folder))
    ntfy, discord, slack = receiver.bodies
    assert receiver.paths == ["/hook/", "/hook/s3cret-t0ken", "/hook/s3cret-t0ken"]
    assert ntfy == {
        "topic": "s3cret-t0ken",
        "title": f"Training #1 {name} failed",
        "message": "m <b>",
        "tags": ["x"],
        "priority": 4,
        "click": "http://box.lan:8000/jobs/1",
    }
    assert discord["content"] == f"❌ Training #2 {name} failed\nm <b>\nhttp://box.lan:8000/jobs/2"
    assert discord["allowed_mentions"] == {"parse": []}
    told = "❌ Training #3 &lt;!channel&gt; @everyone &amp; ☃ failed\nm &lt;b&gt;\n<http://box.lan:8000/jobs/3>"
    assert slack == {"text": told}


def test_merges_are_told_and_previews_are_not(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob
) -> None:
    with database.write() as session:
        for kind in (JobKind.MERGE, JobKind.PREVIEW, JobKind.PLAYGROUND):
            job = queue.enqueue(session, Job(name="x", kind=kind, created_at=0.0))
            for status in (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED):
                job = queue.advance(session, job, status)
    send_all(notifier(database, folder))
    assert [body["title"] for body in receiver.bodies] == ["Merge #1 x is done"]


def test_the_thread_sends_and_ends_when_it_is_told_to(
    database: Database, folder: DataFolder, receiver: Receiver, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.notifier.INTERVAL_SECONDS", 0.02)
    thread = NotifierThread(Notifier(database, folder, NAMED))
    thread.start()
    move(database, make_job(), JobStatus.FAILED, error={"kind": "x", "message": "m"})
    deadline = time.monotonic() + 20
    while not receiver.bodies and time.monotonic() < deadline:
        time.sleep(0.02)
    thread.stop()
    assert len(receiver.bodies) == 1
    assert not thread.is_alive()
