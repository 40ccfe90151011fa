"""One preview job for all who ask the same, and what may be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import add_file
from app.core.datasets.xray import XRAY_FILE, suspicious
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.jobs import previews, queue
from app.core.jobs.models import Job
from app.core.jobs.previews import ask, find_answer, make_question, read_answer
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.conftest import write_dataset
from worker.limits import TookTooLong

Ask = Callable[..., Job]


@pytest.fixture
def long(database: Database, folder: DataFolder, tmp_path: Path) -> Dataset:
    """A dataset of several windows."""
    with database.write() as session:
        return add_file(session, folder, write_dataset(tmp_path / "long.jsonl", rows=200), "long")


@pytest.fixture
def ask_for(database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], long: Dataset) -> Ask:
    def ask_for(row: int = 1, find: bool = False, **given: Any) -> Job:
        with database.write() as session:
            model = session.merge(registered[0])
            return ask(session, folder, make_question(long, model, given, row, find=find))

    return ask_for


@pytest.fixture
def complete(database: Database, folder: DataFolder) -> Callable[..., Job]:
    """Do as the worker does: the rows `first` to `last`, without tokens."""

    def complete(job: Job, first: int, last: int, **summary: Any) -> Job:
        target = folder.job(job.key)
        target.mkdir(parents=True)
        (target / XRAY_FILE).write_text(json.dumps({"first": first, "last": last, "rows": []}))
        with database.write() as session:
            for status in (JobStatus.STARTING, JobStatus.RUNNING):
                job = queue.advance(session, job, status)
            return queue.advance(session, job, JobStatus.COMPLETED, summary={"first": first, "last": last, **summary})

    return complete


def test_the_same_question_is_asked_of_the_worker_once(ask_for: Ask, complete: Callable[..., Job]) -> None:
    job = ask_for(row=57)
    assert (job.kind, job.spec["first"], job.spec["total"]) == ("preview", 51, 200)
    assert ask_for(row=99).id == job.id  # on its way
    complete(job, 51, 100)
    assert {ask_for(row=row).id for row in (51, 80, 100)} == {job.id}
    assert ask_for(row=101).spec["first"] == 101
    others = ({"max_length": 64}, {"overlong_rows": "drop"}, {"packing": True}, {"eval_fraction": 0.2}, {"seed": 1})
    assert len({ask_for(row=57, **other).id for other in others} | {job.id}) == 6


def test_a_window_that_ended_early_is_gone_on_from_the_row_asked_for(
    ask_for: Ask, complete: Callable[..., Job]
) -> None:
    job = complete(ask_for(row=1), 1, 7)
    assert ask_for(row=7).id == job.id
    later = ask_for(row=20)
    assert later.spec["first"] == 20
    assert ask_for(row=20).id == later.id


def test_a_search_begins_where_it_was_asked_to_and_its_rows_are_used(
    ask_for: Ask, complete: Callable[..., Job]
) -> None:
    search = ask_for(row=8, find=True)
    assert (search.spec["first"], search.spec["find"]) == (8, True)
    assert ask_for(row=8, find=True).id == search.id != ask_for(row=9, find=True).id
    complete(search, 60, 109, found=60, searched_to=60)
    assert ask_for(row=8, find=True).id == search.id
    assert ask_for(row=70).id == search.id


def test_what_failed_or_is_gone_is_asked_for_again(
    ask_for: Ask, complete: Callable[..., Job], database: Database, folder: DataFolder
) -> None:
    failed = ask_for()
    with database.write() as session:
        queue.advance(session, failed, JobStatus.FAILED, error={"message": "No.", "advice": "Try.", "kind": "x"})
    second = ask_for()
    assert second.id != failed.id
    complete(second, 1, 50)
    (folder.job(second.key) / XRAY_FILE).unlink()
    assert ask_for().id != second.id


def test_another_tokenizer_in_the_models_folder_is_another_question(
    ask_for: Ask, complete: Callable[..., Job], registered: tuple[BaseModel, Dataset]
) -> None:
    job = complete(ask_for(), 1, 50)
    template = Path(registered[0].path or "") / "chat_template.jinja"
    template.write_text("{{ messages }}")
    changed = complete(ask_for(), 1, 50)
    assert changed.id != job.id
    os.utime(template, ns=(1, 1))
    assert ask_for().id not in (job.id, changed.id)


def test_files_of_old_previews_go_and_those_of_other_jobs_stay(
    ask_for: Ask,
    complete: Callable[..., Job],
    make_job: Callable[..., Job],
    folder: DataFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(previews, "KEPT_PREVIEWS", 1)
    training = folder.job(make_job().key)
    training.mkdir()
    old, new = (complete(ask_for(row=row), row, row + 49) for row in (1, 51))
    ask_for(row=101)
    assert [folder.job(job.key).exists() for job in (old, new)] == [False, True]
    assert training.exists()


def test_nothing_is_queued_to_look(
    database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], long: Dataset
) -> None:
    with database.read() as session:
        assert find_answer(session, folder, make_question(long, registered[0], {})) is None


def test_an_answer_is_read_or_its_failure_told(
    ask_for: Ask, complete: Callable[..., Job], database: Database, folder: DataFolder
) -> None:
    job = ask_for()
    with pytest.raises(Conflict, match="is queued"):
        read_answer(folder, job)
    assert read_answer(folder, complete(job, 1, 50))["last"] == 50
    (folder.job(job.key) / XRAY_FILE).unlink()
    with database.read() as session, pytest.raises(NotFound, match="not kept any more"):
        read_answer(folder, queue.get_job(session, job.key))
    job.status, job.error = JobStatus.FAILED, {"kind": "chat_template", "message": "It loops.", "advice": "Mend it."}
    with pytest.raises(InvalidInput, match="model: It loops") as caught:
        read_answer(folder, job)
    assert caught.value.advice == "Mend it."
    job.error = {"kind": TookTooLong.code, "message": "Its process was ended.", "advice": "The log is below."}
    with pytest.raises(InvalidInput, match="model: One step of the model's chat template took longer") as caught:
        read_answer(folder, job)
    assert "chat_template" in (caught.value.advice or "")


@pytest.mark.parametrize(
    ("given", "row", "error", "words"),
    [
        ({}, 5, NotFound, "small has no row 5"),
        ({"task": "dpo"}, 1, InvalidInput, "dataset: small holds messages rows"),
        ({"max_length": 4}, 1, InvalidInput, "max_length"),
        ({"max_length": 300}, 1, InvalidInput, "max_length: 300 is more than tiny was made for"),
        ({"overlong_rows": "split", "max_length": "x"}, 1, InvalidInput, "max_length.*overlong_rows"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_every_fault(
    given: dict[str, Any], row: int, error: type[Exception], words: str, registered: tuple[BaseModel, Dataset]
) -> None:
    model, dataset = registered
    model.max_length = 256
    with pytest.raises(error, match=words):
        make_question(dataset, model, given, row)


def test_what_is_not_given_follows_dataset_and_model(registered: tuple[BaseModel, Dataset]) -> None:
    model, dataset = registered
    model.max_length = 256
    assert make_question(dataset, model, {}).training == {
        "base_model": "tiny", "dataset": "small", "task": "sft", "max_length": 256, "overlong_rows": "truncate",
        "packing": False, "eval_fraction": 0.05, "eval_max_rows": 512, "seed": 42,
    }  # fmt: skip
    dataset.rows = 1
    assert make_question(dataset, model, {"max_length": 100}).training["eval_fraction"] == 0


def test_what_is_not_imported_cannot_be_shown(registered: tuple[BaseModel, Dataset]) -> None:
    model, dataset = registered
    dataset.status = DatasetStatus.IMPORTING
    with pytest.raises(Conflict, match=r"small is not ready \(importing\)"):
        make_question(dataset, model, {})
    dataset.status, model.status = DatasetStatus.READY, ModelStatus.FAILED
    with pytest.raises(Conflict, match=r"tiny is not ready \(failed\)"):
        make_question(dataset, model, {})


def test_a_file_of_no_use_says_why_and_how_to_check_it(registered: tuple[BaseModel, Dataset]) -> None:
    model, dataset = registered
    dataset.status, dataset.error, dataset.source = DatasetStatus.FAILED, "row 3: output: is empty", {"kind": "file"}
    with pytest.raises(Conflict, match="row 3: output: is empty") as caught:
        make_question(dataset, model, {})
    assert "loradeck datasets check FILE" in (caught.value.advice or "")


def test_ordinary_flags_make_no_row_suspicious() -> None:
    assert not suspicious(["bos", "end_of_turn_trained", "held_out", "several_sequences"])
    assert suspicious(["bos", "cut"])
