"""A training that starts from an adapter: whatever does not agree with it is named at its field, with what does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.core.adapters.start import decided_fields, list_starts
from app.core.artifacts.deletion import delete_artifact
from app.core.artifacts.manifest import META
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import record
from app.core.database import Database
from app.core.errors import Conflict, InvalidInput
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind
from app.core.jobs.submit import submit_values
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder

CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"], "bias": "none",
    "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "use_rslora": False,
}  # fmt: skip
FITTING = {"r": 4, "lora_alpha": 12, "target_modules": ["v_proj", "q_proj"]}
Adapter = Callable[..., Job]
Submit = Callable[..., Job]


@pytest.fixture
def adapter(database: Database, folder: DataFolder, registered: tuple[BaseModel, Any]) -> Adapter:
    """An imported adapter with this configuration."""

    def adapter(**config: Any) -> Job:
        with database.write() as session:
            spec = {"base_model": "tiny", "method": "lora"}
            job = Job(name="a", kind=JobKind.ADAPTER, spec=spec, base_model_id=registered[0].id, created_at=time.time())
            queue.enqueue(session, job)
            place = folder.job(job.key) / "adapter"
            place.mkdir(parents=True)
            (place / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
            weights = {"path": "adapter_model.safetensors", "bytes": 1, "sha256": "5a" * 32}
            (place / META).write_text(json.dumps({"files": [weights]}))
            record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
            return queue.request_cancel(session, job)

    return adapter


@pytest.fixture
def submit(database: Database, folder: DataFolder, registered: tuple[BaseModel, Any]) -> Submit:
    def submit(**spec: Any) -> Job:
        with database.write() as session:
            return submit_values(session, {"base_model": "tiny", "dataset": "small", **spec}, folder=folder)

    return submit


def _faults(submit: Submit, **spec: Any) -> dict[str, Any]:
    with pytest.raises(InvalidInput) as refused:
        submit(**spec)
    assert all(fault.advice for fault in refused.value.faults)
    return {fault.field: fault for fault in refused.value.faults}


def test_what_agrees_is_queued_with_the_hash_of_its_start(adapter: Adapter, submit: Submit) -> None:
    source = adapter()
    job = submit(init_adapter=source.id, **FITTING)
    assert job.spec["init_adapter"] == str(source.id)
    assert job.inputs is not None
    assert job.inputs["init_adapter_sha256"] == "5a" * 32


def test_every_mismatch_is_named_with_the_value_that_fits(adapter: Adapter, submit: Submit) -> None:
    source = adapter(use_dora=True, bias="all", rank_pattern={"q_proj": 8}, modules_to_save=["lm_head"])
    faults = _faults(submit, init_adapter=source.id, r=16, lora_alpha=32)
    named = {"r", "lora_alpha", "target_modules", "use_dora", "bias", "rank_pattern", "modules_to_save"}
    assert set(faults) == named
    assert f"is 16, and the adapter of job {source.id} has 4" in faults["r"].message
    fix = {name: value for fault in faults.values() for name, value in (fault.fix or {}).items()}
    assert fix["target_modules"] == ["q_proj", "v_proj"]
    assert (fix["r"], fix["lora_alpha"], fix["use_dora"], fix["rank_pattern"]) == (4, 12.0, True, {"q_proj": 8})


def test_all_linear_is_what_the_base_model_has(
    adapter: Adapter, submit: Submit, registered: tuple[BaseModel, Any]
) -> None:
    source = adapter(target_modules=sorted(registered[0].linear_modules or ()))
    assert submit(init_adapter=source.id, r=4, lora_alpha=12).id
    faults = _faults(submit, init_adapter=source.id, **FITTING)
    assert faults["target_modules"].fix == {"target_modules": "all-linear"}


@pytest.mark.parametrize(
    ("named", "said"),
    [("99", "there is no job '99'"), ("mine", "there is no job 'mine'"), ("-1", "no job"), ("9" * 30, "no job")],
)
def test_what_names_no_adapter_is_refused(submit: Submit, named: str, said: str) -> None:
    assert said in _faults(submit, init_adapter=named, **FITTING)["init_adapter"].message


def test_a_job_without_an_adapter_is_refused(submit: Submit, make_job: Callable[..., Job]) -> None:
    waiting = make_job()
    assert "has no adapter" in _faults(submit, init_adapter=waiting.id, **FITTING)["init_adapter"].message


def test_another_base_model_is_refused(adapter: Adapter, submit: Submit, database: Database, tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    with database.write() as session:
        other = BaseModel(name="other", status=ModelStatus.READY, path=str(tmp_path / "other"), created_at=0.0)
        other.linear_modules = ["q_proj", "v_proj"]
        session.add(other)
    faults = _faults(submit, init_adapter=adapter().id, base_model="other", **FITTING)
    assert faults["base_model"].fix == {"base_model": "tiny"}


def test_what_a_spec_cannot_say_is_refused(adapter: Adapter, submit: Submit) -> None:
    source = adapter(layers_to_transform=[0], target_parameters=["experts.up"])
    message = _faults(submit, init_adapter=source.id, **FITTING)["init_adapter"].message
    assert "layers_to_transform, target_parameters" in message


@pytest.mark.parametrize(
    ("more", "field"), [({"method": "full"}, "init_adapter"), ({"init_lora_weights": "pissa"}, "init_lora_weights")]
)
def test_fields_that_cannot_go_together(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec({"base_model": "a", "dataset": "b", "init_adapter": 1, **more})
    assert [fault.field for fault in refused.value.faults] == [field]


def test_an_adapter_that_a_waiting_training_starts_from_is_not_deleted(
    adapter: Adapter, submit: Submit, database: Database, folder: DataFolder
) -> None:
    source = adapter()
    with database.read() as session:
        artifact = session.get_one(Artifact, 1)
    job = submit(init_adapter=source.id, **FITTING)
    with pytest.raises(Conflict, match=f"Job {job.id} "):
        delete_artifact(database, folder, source.key, artifact.key)
    with database.write() as session:
        queue.request_cancel(session, queue.get_job(session, job.key))
    delete_artifact(database, folder, source.key, artifact.key)


def test_what_the_adapter_decides_is_told_by_field_and_only_for_its_base(
    adapter: Adapter, submit: Submit, database: Database, folder: DataFolder
) -> None:
    source = adapter(use_dora=True, alpha_pattern={"q_proj": 8})
    with database.write() as session:
        base = session.get_one(BaseModel, source.base_model_id)
        other = BaseModel(name="other", source={}, status=ModelStatus.READY, created_at=0.0)
        session.add(other)
        session.flush()
        decided = decided_fields(session, folder, f"#{source.id}", base)
        assert decided_fields(session, folder, str(source.id), other) == {}
        assert decided_fields(session, folder, "no job", base) == {}
    told = {"r": 4, "lora_alpha": 12.0, "use_dora": True, "target_modules": ["q_proj", "v_proj"]}
    assert told.items() <= decided.items()
    assert (decided["alpha_pattern"], decided["modules_to_save"]) == ({"q_proj": 8.0}, [])
    assert submit(init_adapter=source.id, **decided).id


def test_adapters_to_start_from_are_those_of_the_model_and_the_method(adapter: Adapter, database: Database) -> None:
    first, second = adapter(), adapter()
    with database.write() as session:
        trained = session.get_one(Job, second.id)
        trained.kind, trained.spec = JobKind.TRAIN, {**trained.spec, "method": "qlora"}
        base = session.get_one(BaseModel, first.base_model_id)
        queue.enqueue(session, Job(name="none", kind=JobKind.ADAPTER, base_model_id=base.id, created_at=0.0))
        session.flush()
        assert [job.id for job in list_starts(session, base, "lora")] == [first.id]
        assert [job.id for job in list_starts(session, base, "qlora")] == [second.id, first.id]
