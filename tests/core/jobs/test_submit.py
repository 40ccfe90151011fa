"""Nothing is queued unless the request fits what is registered."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.datasets.hub import HubReference, add_from_hub
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import add_file
from app.core.errors import Conflict, InvalidInput
from app.core.jobs.answers import submit_generation
from app.core.jobs.merges import submit_merge
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind, JobStatus
from app.core.jobs.submit import check_references, submit_training, submit_values
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_model
from app.core.paths import DataFolder
from tests.conftest import LINEAR_MODULES, write_dataset
from tests.core.models.gguf_file import write_gguf
from tests.core.models.safetensors import write_model

Registered = tuple[BaseModel, Dataset]


def _submit(database: Database, name: str | None = None, **values: Any) -> Job:
    spec = parse_spec({"base_model": "tiny", "dataset": "small", **values})
    with database.write() as session:
        return submit_training(session, spec, name)


def _refused(database: Database, **values: Any) -> dict[str, tuple[str, str | None]]:
    with pytest.raises(InvalidInput) as caught:
        _submit(database, **values)
    with database.read() as session:
        trainings = select(Job).where(Job.kind == JobKind.TRAIN)
        assert session.exec(trainings).all() == [], "a refused request was queued"
    return {fault.field: (fault.message, fault.advice) for fault in caught.value.faults}


def _with_adapter(session: Session, job: Job) -> Job:
    session.add(Artifact(job_id=job.key, kind="adapter", path="adapter", bytes=1, created_at=time.time()))
    session.flush()
    return job


def test_a_job_keeps_its_whole_spec(database: Database, registered: Registered) -> None:
    model, dataset = registered
    job = _submit(database, r=4)
    assert (job.status, job.kind, job.name) == (JobStatus.QUEUED, JobKind.TRAIN, "tiny on small")
    assert (job.base_model_id, job.dataset_id, job.position) == (model.id, dataset.id, 1.0)
    assert parse_spec(job.spec) == parse_spec({"base_model": "tiny", "dataset": "small", "r": 4})


def test_a_name_is_text_and_nothing_else(database: Database, registered: Registered) -> None:
    assert _submit(database, "../../etc/passwd").name == "../../etc/passwd"
    assert _submit(database, "  ").name == "tiny on small"
    assert _submit(database, "x" * 500).name == "x" * 200


def test_model_and_dataset_are_also_found_by_id(database: Database, registered: Registered) -> None:
    model, dataset = registered
    job = _submit(database, base_model=str(model.id), dataset=str(dataset.id))
    assert (job.base_model_id, job.dataset_id) == (model.id, dataset.id)


def test_ids_as_numbers_beside_another_fault_are_looked_up(database: Database, registered: Registered) -> None:
    model, dataset = registered
    values = {"base_model": model.id, "dataset": 999, "r": 0}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, values)
    assert {fault.field for fault in caught.value.faults} == {"r", "dataset"}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, {"base_model": 999, "dataset": dataset.id, "lora_alpha": 0})
    assert {fault.field for fault in caught.value.faults} == {"lora_alpha", "base_model"}


def test_unknown_model_and_dataset_are_named_together(database: Database, registered: Registered) -> None:
    faults = _refused(database, base_model="gone", dataset="lost")
    assert faults == {
        "base_model": ("unknown base model 'gone'", "Registered: tiny."),
        "dataset": ("unknown dataset 'lost'", "Registered: small."),
    }


def test_with_nothing_registered_the_advice_says_so(database: Database) -> None:
    faults = _refused(database)
    assert {advice for _message, advice in faults.values()} == {"Registered: none yet."}


def test_an_id_that_no_database_holds_is_unknown(database: Database, registered: Registered) -> None:
    assert set(_refused(database, base_model="9" * 30, dataset="9" * 5000)) == {"base_model", "dataset"}


def test_unknown_target_modules_show_the_models_own(database: Database, registered: Registered) -> None:
    message, _ = _refused(database, target_modules=["q_proj", "query", "dense"])["target_modules"]
    assert message == f"unknown query, dense; tiny has: {', '.join(LINEAR_MODULES)}"
    assert set(_refused(database, target_modules=[])) == {"target_modules"}
    assert _submit(database, target_modules=["q_proj", "v_proj"]).spec["target_modules"] == ["q_proj", "v_proj"]


def test_semantic_faults_come_all_at_once(
    database: Database, folder: DataFolder, registered: Registered, tmp_path: Path
) -> None:
    with database.write() as session:
        add_file(session, folder, write_dataset(tmp_path / "one.jsonl", rows=1), "one")
    assert set(_refused(database, dataset="one", target_modules=["query"])) == {"target_modules", "eval_fraction"}
    assert _submit(database, dataset="one", eval_fraction=0).status == JobStatus.QUEUED


def test_a_model_that_is_being_imported_can_be_queued_on(database: Database, registered: Registered) -> None:
    with database.write() as session:
        session.add(BaseModel(name="coming", created_at=0))
    message, _ = _refused(database, base_model="coming", target_modules=["anything"])["target_modules"]
    assert "not known before it is imported" in message, "modules that cannot be checked yet are not queued unchecked"
    assert _submit(database, base_model="coming").status == JobStatus.QUEUED


def test_named_modules_of_a_gguf_are_checked_while_it_is_imported(
    database: Database, registered: Registered, tmp_path: Path
) -> None:
    with database.write() as session:
        add_model(session, str(write_gguf(tmp_path / "coming.gguf")), [tmp_path])
    message, _ = _refused(database, base_model="coming", target_modules=["q_proj", "query"])["target_modules"]
    assert message == "unknown query; coming has: down_proj, q_proj, v_proj"
    job = _submit(database, base_model="coming", target_modules=["q_proj", "v_proj"])
    assert job.status == JobStatus.QUEUED


def test_a_length_beyond_the_models_is_refused(database: Database, registered: Registered, tmp_path: Path) -> None:
    with database.write() as session:
        add_model(session, str(write_model(tmp_path / "short")), [tmp_path])
    assert _refused(database, base_model="short", max_length=2049) == {
        "max_length": ("2,049 is more than short was made for: 2,048 tokens", "Give 2048 or less.")
    }
    assert _submit(database, base_model="short", max_length=2048).status == JobStatus.QUEUED
    assert _submit(database, max_length=1_000_000).status == JobStatus.QUEUED, "tiny's own length is not known"


def test_a_typed_length_is_checked_beside_other_faults(
    database: Database, registered: Registered, tmp_path: Path
) -> None:
    values = {"base_model": str(write_model(tmp_path / "short")), "dataset": "small", "r": "0", "max_length": "4096"}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, values, local_roots=[tmp_path])
    assert {fault.field for fault in caught.value.faults} == {"r", "max_length"}


def test_a_model_whose_import_failed_cannot(database: Database, registered: Registered) -> None:
    with database.write() as session:
        session.add(BaseModel(name="broken", status=ModelStatus.FAILED, error="disk full", created_at=0))
    message, _ = _refused(database, base_model="broken")["base_model"]
    assert message == "broken could not be imported: disk full"


def test_an_answer_needs_a_prompt_and_bounds(database: Database, make_job: Callable[..., Job]) -> None:
    job = make_job("mine")
    with database.write() as session:
        for prompt, tokens, field in (("", 9, "prompt"), (" \n", 9, "prompt"), ("x", 0, "max_new_tokens"),
                                      ("x", 4097, "max_new_tokens")):  # fmt: skip
            with pytest.raises(InvalidInput) as caught:
                submit_generation(session, job, prompt, base=True, max_new_tokens=tokens)
            assert caught.value.faults[0].field == field
        with pytest.raises(Conflict, match="has no adapter"):
            submit_generation(session, job, "x", base=False, max_new_tokens=9)
        answer = submit_generation(session, job, "x", base=True, max_new_tokens=9)
        assert submit_generation(session, _with_adapter(session, job), "x", base=False, max_new_tokens=9).id
    assert (answer.kind, answer.source_job_id, answer.base_model_id) == (JobKind.PLAYGROUND, job.id, job.base_model_id)
    usual = {"system": "", "temperature": 0.0, "top_p": 1.0, "seed": None}
    assert answer.spec == {"job": job.id, "prompt": "x", "base": True, "max_new_tokens": 9, **usual}


def test_someone_who_waits_for_an_answer_goes_before_trainings(
    database: Database, folder: DataFolder, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    with database.write() as session:
        answer = submit_generation(session, job, "x", base=True, max_new_tokens=9)
        merge = submit_merge(session, folder, _with_adapter(session, job))
    assert answer.priority > merge.priority > job.priority


def test_faults_of_values_and_of_references_come_together(database: Database, registered: Registered) -> None:
    values = {"base_model": "nope", "dataset": "small", "r": 0, "load_in_8bit": True, "colour": "red"}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, values)
    assert {fault.field for fault in caught.value.faults} == {"r", "load_in_8bit", "colour", "base_model"}
    values = {"base_model": "tiny", "dataset": "nope", "target_modules": ["w_proj"], "learning_rate": -1}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, values)
    assert {fault.field for fault in caught.value.faults} == {"dataset", "target_modules", "learning_rate"}


def test_model_folder_that_is_not_registered_is_registered_with_the_job(
    database: Database, registered: Registered, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "mine")
    with database.write() as session:
        job = submit_values(session, {"base_model": str(folder), "dataset": "small"}, local_roots=[tmp_path])
        model = session.get_one(BaseModel, job.base_model_id)
    assert (model.name, model.status, job.name) == ("mine", ModelStatus.READY, "mine on small")
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_values(session, {"base_model": str(folder.parent), "dataset": "small"}, local_roots=[folder])
    assert [fault.field for fault in caught.value.faults] == ["base_model"]


def test_model_is_not_registered_where_the_job_is_refused(
    database: Database, registered: Registered, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput), database.write() as session:
        submit_values(session, {"base_model": "owner/some-model", "dataset": "nope"})
    with database.read() as session:
        assert [model.name for model in session.exec(select(BaseModel)).all()] == ["tiny"]
        assert session.exec(select(Job)).all() == []


def _hub_dataset(database: Database) -> Dataset:
    with database.write() as session:
        return add_from_hub(session, HubReference("owner/coming"))


def test_what_a_dataset_holds_is_checked_once_it_is_known(database: Database, registered: Registered) -> None:
    dataset = _hub_dataset(database)
    job = _submit(database, dataset="coming", eval_fraction=0.1)
    assert job.dataset_id == dataset.id
    with database.write() as session:
        stored, model = session.get_one(Dataset, dataset.id), session.get_one(BaseModel, job.base_model_id)
        stored.status, stored.rows = DatasetStatus.READY, 1
        spec = parse_spec(job.spec)
        assert [fault.field for fault in check_references(spec, model, stored)] == ["eval_fraction"]
        stored.kind = RowKind.PREFERENCE
        assert [fault.field for fault in check_references(spec, model, stored)] == ["dataset"]


def test_a_dataset_whose_import_failed_is_refused_with_the_reason(database: Database, registered: Registered) -> None:
    dataset = _hub_dataset(database)
    with database.write() as session:
        stored = session.get_one(Dataset, dataset.id)
        stored.status, stored.error = DatasetStatus.FAILED, "It has two splits."
        session.add(stored)
    assert _refused(database, dataset="coming")["dataset"][0] == "coming could not be imported: It has two splits."


def test_answer_that_leaves_no_place_for_its_prompt_is_refused_at_its_field(
    session: Session, make_job: Callable[..., Job], registered: tuple[BaseModel, Dataset]
) -> None:
    job, model = make_job(), session.get_one(BaseModel, registered[0].id)
    model.max_length = 256
    with pytest.raises(InvalidInput) as refused:
        submit_generation(session, job, " ", base=True, max_new_tokens=256, top_p=2)
    assert [fault.field for fault in refused.value.faults] == ["prompt", "top_p"]
    with pytest.raises(InvalidInput, match="the model takes 256 tokens in all") as refused:
        submit_generation(session, job, "x", base=True, max_new_tokens=256)
    assert [fault.field for fault in refused.value.faults] == ["max_new_tokens"]
    assert submit_generation(session, job, "x", base=True, max_new_tokens=255).spec["max_new_tokens"] == 255


def test_model_of_plain_text_has_no_system_prompt(session: Session, make_job: Callable[..., Job]) -> None:
    job = make_job()
    job.spec = {**job.spec, "task": "text"}
    with pytest.raises(InvalidInput) as refused:
        submit_generation(session, job, "x", base=True, system="Be brief.")
    assert [fault.field for fault in refused.value.faults] == ["system"]
