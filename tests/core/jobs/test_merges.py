"""A merge is queued only where there is something to merge, the base it was trained on, and room for the result."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from app.core.adapters.submit import queue_local_adapter
from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.errors import Conflict, InvalidInput
from app.core.jobs.merges import merge_payload, submit_merge
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

MakeJob = Callable[..., Job]
_Usage = namedtuple("_Usage", "total used free")


def saved(session: Session, job: Job, kind: str = "adapter", step: int | None = None) -> Job:
    path = kind if step is None else f"checkpoints/step-{step}"
    session.add(Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=1, created_at=0.0))
    session.flush()
    return job


def test_it_needs_a_training_job_with_an_adapter(session: Session, folder: DataFolder, make_job: MakeJob) -> None:
    job = make_job("mine")
    with pytest.raises(Conflict, match=rf"Job {job.id} \(queued\) has no adapter") as caught:
        submit_merge(session, folder, job)
    assert caught.value.advice == "Wait until it is completed."
    merge = submit_merge(session, folder, saved(session, job), "fp32")
    with pytest.raises(Conflict, match=r"is not a training job .merge.; only a training job saves an adapter"):
        submit_merge(session, folder, merge)
    assert (merge.kind, merge.name, merge.source_job_id) == (JobKind.MERGE, "merge mine", job.id)
    wanted = {"job": job.id, "dtype": "fp32", "onto": "trained", "checkpoint": None}
    assert (merge.base_model_id, merge.spec) == (job.base_model_id, wanted)


def test_a_kept_checkpoint_of_an_unfinished_job_can_be_merged(
    session: Session, folder: DataFolder, make_job: MakeJob
) -> None:
    job = saved(session, saved(session, make_job("mine"), "checkpoint", 50), "checkpoint", 100)
    with pytest.raises(Conflict, match=r"has no adapter") as caught:
        submit_merge(session, folder, job)
    assert caught.value.advice == "It has checkpoints at steps 50, 100: name one of them."
    with pytest.raises(Conflict, match="has no checkpoint at step 70"):
        submit_merge(session, folder, job, checkpoint=70)
    merge = submit_merge(session, folder, job, checkpoint=50)
    payload = merge_payload(session, folder, job, merge.spec)
    assert (merge.name, payload["checkpoint"]) == ("merge mine at step 50", 50)
    assert payload["adapter_path"] == str(folder.job(job.key) / "checkpoints" / "step-50")


def test_every_faulty_field_is_named(session: Session, folder: DataFolder, make_job: MakeJob) -> None:
    job, quantised = make_job(), make_job(method="qlora")
    saved(session, job)
    with pytest.raises(InvalidInput) as caught:
        submit_merge(session, folder, job, "int8", "elsewhere")
    assert [fault.field for fault in caught.value.faults] == ["dtype", "onto"]
    with pytest.raises(InvalidInput, match="onto: the adapter was trained on the original weights"):
        submit_merge(session, folder, job, onto="original")
    assert submit_merge(session, folder, saved(session, quantised), onto="original").spec["onto"] == "original"


def test_a_model_that_was_trained_whole_has_no_adapter(session: Session, folder: DataFolder, make_job: MakeJob) -> None:
    job = make_job(method="full")
    with pytest.raises(Conflict, match="trains every weight: there is no adapter to merge"):
        submit_merge(session, folder, saved(session, job, "model"))


def test_a_base_that_is_gone_or_another_one_is_refused(
    database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob
) -> None:
    base = Path(registered[0].path or "")
    (base / "config.json").write_text("{}")
    job = make_job()
    (base / "config.json").write_text('{"changed": true}')
    with database.write() as session:
        saved(session, job)
        with pytest.raises(Conflict, match=r"Base model tiny is not the one that job .* trained on .*config\.json"):
            submit_merge(session, folder, job)
        shutil.rmtree(base)
        with pytest.raises(Conflict, match=r"The base model tiny of job \d+ is gone \(.*tiny\)"):
            submit_merge(session, folder, job)


def test_a_base_that_changed_since_an_adapter_was_imported_is_refused(
    database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], tmp_path: Path
) -> None:
    base = Path(registered[0].path or "")
    (base / "config.json").write_text("{}")
    with database.write() as session:
        job = queue_local_adapter(session, str(tmp_path), [tmp_path], "tiny")
        saved(session, job)
        (base / "config.json").write_text('{"changed": true}')
        with pytest.raises(Conflict, match=r"tiny is not the one that job \d+ was imported onto .*config\.json"):
            submit_merge(session, folder, job)


def test_too_little_room_is_told_before_it_starts(
    database: Database,
    folder: DataFolder,
    registered: tuple[BaseModel, Dataset],
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: _Usage(9 * 2**30, 7 * 2**30, 2 * 2**30))
    with database.write() as session:
        base: Any = session.get(BaseModel, registered[0].id)
        base.parameters = 2**30
        saved(session, job)
        with pytest.raises(Conflict, match=r"takes 2\.10 GiB in bf16; .* has 2\.00 GiB free"):
            submit_merge(session, folder, job)
        base.parameters = 2**29
        assert submit_merge(session, folder, job).id
        with pytest.raises(Conflict, match="Disk full"):
            submit_merge(session, folder, job, "fp32")


def test_rows_that_were_held_out_are_named(session: Session, folder: DataFolder, make_job: MakeJob) -> None:
    with_rows, without = make_job(eval_fraction=0.25), make_job(eval_fraction=0)
    merges = [submit_merge(session, folder, saved(session, job)) for job in (with_rows, without)]
    first, second = (
        merge_payload(session, folder, job, merge.spec)["held_out"]
        for job, merge in zip((with_rows, without), merges, strict=True)
    )
    assert (first["spec"]["eval_fraction"], Path(first["path"]).is_file(), second) == (0.25, True, None)
