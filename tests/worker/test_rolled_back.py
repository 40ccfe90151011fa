"""A disk that is full as a job's end is committed costs that try alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobStatus
from tests.worker.conftest import ScriptedWorker
from worker.settle import settle


def test_end_that_cannot_be_committed_is_tried_again(
    scripted: ScriptedWorker, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    def settle_in_vain(session: Session, *given: Any) -> Job:
        event.listen(session, "before_commit", fail)
        return settle(session, *given)

    monkeypatch.setattr("worker.supervisor.settle", settle_in_vain)
    scripted.follow("complete")
    job = make_job()
    with pytest.raises(OperationalError):
        scripted.run_until(lambda: scripted.job(job).status in ENDED)
    monkeypatch.setattr("worker.supervisor.settle", settle)
    scripted.worker.rescue()  # as the loop does after such an error
    scripted.run_until(lambda: scripted.job(job).status in ENDED)
    assert scripted.job(job).status == JobStatus.COMPLETED
    assert scripted.job(job).attempts == 1
