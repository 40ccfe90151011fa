"""`loradeck jobs sweep`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command


def test_a_sweep_is_planned_and_queued(loradeck: Command, spec: Path) -> None:
    options = (
        "--over",
        "learning_rate=1e-4,2e-4",
        "--over",
        "target_modules=[[q_proj], all-linear]",
        "--name",
        "night",
    )
    planned = loradeck("jobs", "sweep", spec, *options, "--dry-run")
    assert planned.code == 0, planned.err
    assert "learning_rate 1e-4, target_modules q_proj" in planned.out
    newest = max((job["id"] for job in loradeck("jobs", "list", "--json").json), default=0)
    found = loradeck("jobs", "sweep", spec, *options, "--json").json
    assert [job["spec"]["target_modules"] for job in found["jobs"]] == [["q_proj"], "all-linear"] * 2
    assert found["jobs"][0]["name"] == "night · learning_rate 1e-4, target_modules q_proj"
    listed = [job["id"] for job in loradeck("jobs", "list", "--json").json if job["id"] > newest]
    assert sorted(listed) == [job["id"] for job in found["jobs"]], "a dry run queues nothing"


def test_a_faulty_sweep_ends_with_2(loradeck: Command, spec: Path) -> None:
    for over, words in (("r", "not FIELD=VALUE,VALUE"), ("r=8,0", "r: "), ("rr=8", "unknown field 'rr'")):
        result = loradeck("jobs", "sweep", spec, "--over", over)
        assert (result.code, words in result.err) == (2, True), result.err
