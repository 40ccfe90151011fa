"""Hub datasets are registered at once and made ready by a job; what is wrong with a reference is said by field."""

from __future__ import annotations

import pytest
from sqlmodel import Session, col, select

from app.core.datasets.hub import HubReference, add_from_hub, import_again, set_facts
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.errors import Conflict, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus

FACTS = {
    "format": "preference",
    "kind": "preference",
    "columns": {"chosen": "good"},
    "rows": 7,
    "bytes": 700,
    "sha256": "a" * 64,
    "rows_sha256": "b" * 64,
    "source": {"kind": "hub", "hub_id": "owner/Pairs", "revision": "c" * 40, "split": "train"},
}


def _jobs(session: Session) -> list[Job]:
    return list(session.exec(select(Job).order_by(col(Job.id))))


def test_a_hub_dataset_is_importing_and_its_job_goes_first(session: Session) -> None:
    dataset = add_from_hub(session, HubReference("owner/Pairs", split="train"), columns={"chosen": "good"})
    assert (dataset.name, dataset.status) == ("pairs", DatasetStatus.IMPORTING)
    assert dataset.source == {"kind": "hub", "hub_id": "owner/Pairs", "split": "train"}
    assert dataset.columns == {"chosen": "good"}
    (job,) = _jobs(session)
    assert (job.kind, job.status, job.dataset_id, job.base_model_id) == (
        JobKind.IMPORT, JobStatus.QUEUED, dataset.id, None,
    )  # fmt: skip
    assert (job.name, job.spec) == ("import pairs", dataset.source)
    assert job.priority > 0


def test_what_is_empty_is_not_named(session: Session) -> None:
    dataset = add_from_hub(session, HubReference(" owner/pairs ", "", " ", " v1.0 "), "mine")
    assert (dataset.name, dataset.source) == ("mine", {"kind": "hub", "hub_id": "owner/pairs", "revision": "v1.0"})


@pytest.mark.parametrize(
    "hub_id", ["pairs", "a/b/c", "", "https://example.com/a", "owner/", "../x", "owner/a b", "-a/b"]
)
def test_what_is_no_hub_id_is_refused(session: Session, hub_id: str) -> None:
    with pytest.raises(InvalidInput, match="is not a hub id") as caught:
        add_from_hub(session, HubReference(hub_id))
    assert [(fault.field, fault.advice) for fault in caught.value.faults] == [("hub_id", "A hub id reads owner/name.")]
    assert _jobs(session) == []


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        HubReference("pairs", config="c" * 201, split="a\0b", revision="v1").to_source()
    assert [fault.field for fault in caught.value.faults] == ["hub_id", "config", "split"]


def test_a_name_is_used_once(session: Session) -> None:
    add_from_hub(session, HubReference("owner/pairs"))
    with pytest.raises(Conflict, match="A dataset named 'pairs' is registered already") as caught:
        add_from_hub(session, HubReference("other/Pairs"))
    assert caught.value.field == "name"
    assert len(_jobs(session)) == 1


def test_a_name_whose_import_failed_is_imported_as_is_asked_now(session: Session) -> None:
    first = add_from_hub(session, HubReference("owner/pairs"), columns={"prompt": "q"})
    first.status, first.error = DatasetStatus.FAILED, "It has several splits."
    session.add(first)
    session.flush()
    again = add_from_hub(session, HubReference("owner/pairs", split="test"))
    assert (again.id, again.status, again.error) == (first.id, DatasetStatus.IMPORTING, None)
    assert (again.source["split"], again.columns) == ("test", {})
    assert [job.dataset_id for job in _jobs(session)] == [first.id, first.id]
    assert _jobs(session)[1].spec["split"] == "test"


def test_only_a_failed_import_is_repeated(session: Session) -> None:
    dataset = add_from_hub(session, HubReference("owner/pairs"))
    with pytest.raises(Conflict, match="pairs is importing; only a dataset whose import failed is imported again"):
        import_again(session, dataset)
    dataset.status, dataset.error = DatasetStatus.FAILED, "no network"
    assert (import_again(session, dataset).status, dataset.error) == (DatasetStatus.IMPORTING, None)
    assert len(_jobs(session)) == 2


def test_facts_make_it_ready() -> None:
    dataset = Dataset(name="x", status=DatasetStatus.FAILED, error="x", format="", rows=0, bytes=0, sha256="",
                      rows_sha256="", created_at=0)  # fmt: skip
    set_facts(dataset, FACTS)
    assert (dataset.status, dataset.error, dataset.kind) == (DatasetStatus.READY, None, RowKind.PREFERENCE)
    stored = {name: value for name, value in FACTS.items() if name != "kind"}
    assert {name: getattr(dataset, name) for name in stored} == stored
