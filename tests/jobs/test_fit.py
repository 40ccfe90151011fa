"""Whether the job in the form would fit, as the region beside the fields says it."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs.models import WorkerState
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from app.jobs.fit import describe_fit
from tests.core.planning.conftest import CONFIGS

FORM = {"base_model": "tiny", "dataset": "small", "method": "lora", "task": "sft"}
GIB = 1 << 30


@pytest.fixture(autouse=True)
def eight_billion(registered: tuple[BaseModel, Dataset]) -> None:
    """The registered model's config is Llama 3 8B's."""
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(registered[0].path or "") / "config.json")


def show(client: TestClient, **typed: str) -> str:
    response = client.post("/jobs/new/fit", data={**FORM, **typed})
    assert response.status_code == 200
    return unescape(response.text)


def fixes(region: str) -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r"data-fill='(.*?)'", region)]


def test_the_bar_holds_every_component_up_to_the_end_of_the_card(
    database: Database, folder: DataFolder, client: TestClient
) -> None:
    with database.read() as session:
        fit = describe_fit(session, folder.home, {**FORM, "vram_gb": "80"})
    assert fit.plan is not None
    assert fit.plan.components is not None
    assert [each.name for each in fit.segments] == list(fit.plan.components)
    for left, right in zip(fit.segments, fit.segments[1:], strict=False):
        assert left.start + left.width == pytest.approx(right.start, abs=0.02)
    assert fit.segments[-1].start + fit.segments[-1].width == pytest.approx(
        1000 * (fit.plan.peak_bytes or 0) / (80 * GIB), abs=0.02
    )
    assert fit.limit == 1000
    region = show(client, vram_gb="80")
    for name in fit.plan.components:
        assert f'<rect class="fit-part fit-{name}"' in region
        assert re.search(rf"</span>{name}</th><td class=\"number\">[\d.]+ \w*B</td>", region)


@pytest.mark.parametrize(("card", "verdict"), [("80", "✓ Fits"), ("20", "◐ Tight"), ("12", "✕ Does not fit")])
def test_the_verdict_follows_the_card_that_is_typed(client: TestClient, card: str, verdict: str) -> None:
    region = show(client, vram_gb=card)
    shown = re.sub(r"<[^>]*>|\s+", " ", region[: region.index("</p>")])
    assert verdict in " ".join(shown.split())
    assert f"of {card}.0 GiB (the card that was named)" in region


def test_a_card_that_is_too_small_ends_inside_the_bar(database: Database, folder: DataFolder) -> None:
    with database.read() as session:
        fit = describe_fit(session, folder.home, {**FORM, "vram_gb": "10"})
    assert fit.plan is not None
    assert fit.plan.peak_bytes is not None
    assert fit.limit == pytest.approx(1000 * 10 * GIB / fit.plan.peak_bytes, abs=0.02)
    assert fit.segments[-1].start + fit.segments[-1].width == pytest.approx(1000, abs=0.02)


def test_without_a_card_the_live_gpu_counts_and_without_one_nothing(client: TestClient, database: Database) -> None:
    assert "No GPU is read on this box" in show(client)
    device = {"name": "Card X", "vram_total_bytes": 48 * GIB, "vram_used_bytes": GIB, "process_vram_bytes": 0}
    reading = {"available": True, "reason": None, "devices": [device], "host": None}
    facts: dict[str, Any] = {"pid": 1, "pid_started_at": 0.0, "boot_id": boot_id(), "version": "0", "started_at": 0.0}
    with database.write() as session:
        session.add(WorkerState(**facts, heartbeat_at=uptime_seconds() + 3600, reading=reading))
    assert "of 47.0 GiB (Card X, less what other processes hold now)" in show(client)
    assert "(the card that was named)" in show(client, vram_gb="24")


def test_a_warning_brings_all_its_values_in_one_button(client: TestClient) -> None:
    region = show(client, vram_gb="20", lora_alpha="20")
    assert {"per_device_train_batch_size": "2", "gradient_accumulation_steps": "2"} in fixes(region)
    assert {"lora_alpha": "32"} in fixes(region)
    assert "Alpha is neither r nor 2r" in region


def test_what_stands_beside_its_field_is_not_said_twice(client: TestClient) -> None:
    assert "Attention alone" not in show(client, target_modules="q_proj, v_proj")
    beside = client.get("/jobs/new/targets", params={"base_model": "tiny", "target_modules": "q_proj, v_proj"}).text
    assert "Attention alone" in beside


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ({"r": "-1"}, "r: Input should be greater than or equal to 1"),
        ({"vram_gb": "big"}, "'big' is not the size of a card in GiB."),
        ({"vram_gb": "0"}, "'0' is not the size of a card in GiB."),
        ({"vram_gb": "nan"}, "'nan' is not the size of a card in GiB."),
        ({"base_model": "nobody"}, "base_model: 'nobody' is not registered here"),
        ({"target_modules": "w_proj"}, "target_modules: unknown w_proj"),
    ],
)
def test_what_cannot_be_planned_says_why(client: TestClient, typed: dict[str, str], problem: str) -> None:
    region = show(client, **typed)
    assert "No plan yet" in region
    assert problem in region
    assert "fit-bar" not in region


def test_a_model_that_is_still_imported_has_no_plan_yet(client: TestClient, database: Database) -> None:
    with database.write() as session:
        session.add(BaseModel(name="coming", created_at=0.0))
    assert "coming is still being imported" in show(client, base_model="coming")


def test_a_dataset_need_not_be_chosen(client: TestClient) -> None:
    assert "not known without a dataset" in show(client, dataset="", vram_gb="80")


def test_the_form_comes_with_its_plan_and_keeps_the_card(client: TestClient) -> None:
    page = unescape(client.get("/jobs/new", params={**FORM, "vram_gb": "80"}).text)
    assert "of 80.0 GiB (the card that was named)" in page
    assert 'name="vram_gb" value="80"' in page
    refused = client.post("/jobs", data={**FORM, "r": "0", "vram_gb": "24"})
    assert refused.status_code == 422
    assert 'name="vram_gb" value="24"' in refused.text


def test_a_job_that_does_not_fit_is_queued_all_the_same(client: TestClient) -> None:
    response = client.post("/jobs", data={**FORM, "vram_gb": "1"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/jobs/1")
