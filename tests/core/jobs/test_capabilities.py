"""What the worker has said that it cannot run is refused at its field; what it has not spoken of is not."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.errors import InvalidInput
from app.core.jobs.capabilities import capability_faults, effective_optim, needs_bitsandbytes
from app.core.jobs.models import WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.submit import submit_training, submit_values
from app.core.models.models import BaseModel

NEEDED = {"base_model": "tiny", "dataset": "small"}
REASON = "bitsandbytes is not installed"
NOTHING = {"cuda": None, "cannot": dict.fromkeys(("4bit", "8bit", "adamw_8bit"), REASON)}
UNPAGED = {"cuda": "12.8", "cannot": {"paged": "out of managed memory"}}


@pytest.mark.parametrize(
    ("spec", "capabilities", "fields"),
    [
        ({"method": "qlora"}, NOTHING, ["method", "optim"]),
        ({"method": "qlora", "load_in_8bit": True, "optim": "adamw_torch"}, NOTHING, ["load_in_8bit"]),
        ({"optim": "adamw_8bit"}, NOTHING, ["optim"]),
        ({"optim": "paged_adamw_8bit"}, NOTHING, ["optim"]),  # it would fall back on adamw_8bit
        ({"optim": "paged_adamw_32bit"}, NOTHING, []),  # it falls back on adamw_torch
        ({}, NOTHING, []),
        ({"optim": "paged_adamw_32bit"}, UNPAGED, ["optim"]),
        ({"method": "qlora", "optim": "adamw_8bit"}, UNPAGED, []),
        ({"method": "qlora"}, {"cuda": None, "cannot": {}}, []),
        ({"method": "qlora"}, {"problem": "the process died"}, []),
        ({"method": "qlora"}, None, []),
    ],
)
def test_each_fault_stands_at_its_field(
    spec: dict[str, Any], capabilities: dict[str, Any] | None, fields: list[str]
) -> None:
    faults = capability_faults(parse_spec(NEEDED | spec), capabilities)
    assert [fault.field for fault in faults] == fields
    reasons = list((capabilities or {}).get("cannot", {}).values())
    assert all(fault.message.endswith(f"on the worker's machine: {reasons[0]}") for fault in faults)


def test_paged_optimizers_fall_back_where_nothing_can_be_paged() -> None:
    assert effective_optim("paged_adamw_8bit", on_cuda=False) == "adamw_8bit"
    assert effective_optim("paged_adamw_32bit", on_cuda=False) == "adamw_torch"
    assert effective_optim("paged_adamw_8bit", on_cuda=True) == "paged_adamw_8bit"
    assert effective_optim("adamw_torch_fused", on_cuda=False) == "adamw_torch_fused"


def test_bitsandbytes_is_needed_for_what_runs_through_it() -> None:
    needs = [
        needs_bitsandbytes(parse_spec(NEEDED | spec), on_cuda=False)
        for spec in ({}, {"method": "qlora"}, {"optim": "adamw_8bit"}, {"optim": "paged_adamw_32bit"})
    ]
    assert needs == [False, True, True, False]
    assert needs_bitsandbytes(parse_spec(NEEDED | {"optim": "paged_adamw_32bit"}), on_cuda=True)


def test_a_job_that_the_worker_cannot_run_is_not_queued(
    database: Database, registered: tuple[BaseModel, Dataset]
) -> None:
    with database.write() as session:
        assert submit_training(session, parse_spec(NEEDED | {"method": "qlora"})).id == 1
        state = WorkerState(pid=1, pid_started_at=0, boot_id="", version="", started_at=0, heartbeat_at=0)
        state.capabilities = NOTHING
        session.add(state)
    with database.write() as session, pytest.raises(InvalidInput) as caught:
        submit_values(session, NEEDED | {"method": "qlora", "r": -1})
    assert [fault.field for fault in caught.value.faults] == ["r", "method"]
    with database.write() as session, pytest.raises(InvalidInput, match=f"machine: {REASON}"):
        submit_training(session, parse_spec(NEEDED | {"optim": "adamw_8bit"}))
    with database.write() as session:
        assert submit_training(session, parse_spec(NEEDED)).id == 2
