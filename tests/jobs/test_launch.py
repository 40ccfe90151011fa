"""What stands beside the button of the new-job form: place in the queue, YAML, command."""

from __future__ import annotations

import base64
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.jobs.models import WorkerState
from app.core.jobs.queue_state import pause_queue
from app.core.jobs.spec import parse_spec, parse_yaml
from app.core.jobs.status import JobStatus
from app.jobs.launch import Place, make_command
from tests.jobs.steps import FORM, MakeJob, advance

SPEC = {"base_model": "tiny", "dataset": "small", "sample_prompts": ["It's\nYAML\n'quoted' $HOME `id`", "YAML"]}


def _region(client: TestClient, **typed: str) -> str:
    response = client.post("/jobs/new/launch", data={**FORM, **typed})
    assert response.status_code == 200
    return unescape(response.text)


def test_the_exported_file_is_the_spec_that_stands_in_the_form(client: TestClient) -> None:
    link = re.search(r'href="data:application/yaml;base64,([^"]+)" download="loradeck-job.yaml"', _region(client))
    assert link is not None
    spec = parse_yaml(base64.b64decode(link[1]).decode())
    assert spec == parse_spec({"base_model": "tiny", "dataset": "small", "r": 8})
    response = client.post("/api/v1/jobs", json={"yaml": base64.b64decode(link[1]).decode()})
    assert response.json()["spec"] == spec.model_dump(mode="json")


def test_a_shell_hands_the_command_exactly_this_yaml_and_name(tmp_path: Path) -> None:
    command = make_command(parse_spec(SPEC), "it's `mine` $HOME")
    fake = tmp_path / "loradeck"
    fake.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done > arguments\ncat > stdin\n')
    fake.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", command.text], cwd=tmp_path, env=path, check=True, timeout=20)
    assert (tmp_path / "arguments").read_text().splitlines() == ["jobs", "submit", "-", "--name", "it's `mine` $HOME"]
    assert parse_yaml((tmp_path / "stdin").read_text()) == parse_spec(SPEC)


def test_there_is_no_command_while_something_is_wrong(client: TestClient) -> None:
    region = _region(client, r="0")
    assert "Add to queue" in region
    assert "data:application" not in region
    assert "command-text" not in region


def test_without_scripts_a_button_exports_or_says_what_is_wrong(client: TestClient) -> None:
    response = client.post("/jobs/new/yaml", data=FORM)
    assert response.headers["content-disposition"] == 'attachment; filename="loradeck-job.yaml"'
    assert parse_yaml(response.text).r == 8
    refused = client.post("/jobs/new/yaml", data={**FORM, "r": "0"})
    assert refused.status_code == 422
    assert 'id="errors-r"' in refused.text


def test_the_place_in_the_queue_and_the_expected_start(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    assert "1st in the queue; nothing starts until the worker runs" in _region(client)
    with database.write() as session:
        alive: dict[str, Any] = {"boot_id": boot_id(), "heartbeat_at": uptime_seconds() + 600}
        session.add(WorkerState(pid=1, pid_started_at=0.0, version="0", started_at=0.0, **alive))
    assert "starts at once" in _region(client)
    running = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, eta_seconds=600.0)
    assert "1st in the queue · starts at about <time" in _region(client)
    make_job()
    region = _region(client)
    assert "2nd in the queue · starts at <time" in region
    assert "or later: how long a job before it takes is not known yet" in region
    advance(database, running, JobStatus.COMPLETED)
    with database.write() as session:
        pause_queue(session)
    assert "2nd in the queue, which is paused" in _region(client)


@pytest.mark.parametrize(
    ("position", "ordinal"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")],
)
def test_places_are_spelled(position: int, ordinal: str) -> None:
    assert Place(position, None, at_once=False).ordinal == ordinal
