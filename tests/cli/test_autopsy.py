"""`loradeck jobs show|autopsy|change` of a job that ran out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from app.core.jobs.models import Job
from tests.autopsies import GIB, make_error
from tests.cli.conftest import Command

Move = Callable[..., Job]


def test_show_names_the_first_changes_and_change_queues_one(
    loradeck: Command, submitted: dict[str, Any], move: Move
) -> None:
    job = submitted["id"]
    move(job, "starting", "running", "failed", error=make_error())
    shown = yaml.safe_load(loradeck("jobs", "show", job).out)
    assert shown["error"] == {name: value for name, value in make_error().items() if name != "autopsy"}
    assert [change["key"] for change in shown["changes"]] == ["checkpointing", "batch-2", "batch-1"]
    assert shown["to_apply"] == f"loradeck jobs change {job} KEY"
    assert shown["changes"][0]["peak"] == "unknown", "the model of these tests has no config.json"
    assert loradeck("jobs", "show", job, "--json").json["error"] == make_error()

    changed = loradeck("jobs", "change", job, "batch-2", "--json")
    assert changed.json["spec"] == {
        **submitted["spec"],
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    refused = loradeck("jobs", "change", job, "more-memory")
    assert (refused.code, "more-memory" in refused.err) == (1, True)


def test_autopsy_prints_what_happened_and_every_change(
    loradeck: Command, submitted: dict[str, Any], move: Move
) -> None:
    job = submitted["id"]
    move(job, "starting", "running", "failed", error=make_error())
    autopsy = loradeck("jobs", "autopsy", job, "--json").json
    assert (autopsy["capacity_bytes"], autopsy["batch"]["longest"][0]) == (13 * GIB, [17, 512])
    printed = yaml.safe_load(loradeck("jobs", "autopsy", job).out)
    assert printed["batch"] == autopsy["batch"]
    assert [change["key"] for change in printed["changes"]] == [change["key"] for change in autopsy["changes"]]


def test_a_job_that_did_not_run_out_of_memory_has_none(loradeck: Command, submitted: dict[str, Any]) -> None:
    answer = loradeck("jobs", "autopsy", submitted["id"])
    assert answer.code == 2
    assert "did not run out of memory" in answer.err
