"""A new job in a browser, row by row of the checklist of the interface (22 to 36 and 71); test_job_form has more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.jobs.spec import TrainingSpec, parse_yaml
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel
from tests.browser.conftest import Feed
from tests.core.planning.conftest import CONFIGS
from tests.jobs.steps import advance

pytestmark = pytest.mark.browser

RECIPES = Path(__file__).parents[1] / "fixtures" / "recipes"
MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def eight_billion(registered: tuple[BaseModel, Dataset]) -> None:
    """The registered model's config is Llama 3 8B's."""
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(registered[0].path or "") / "config.json")


def test_row_22_presets_fill_the_form_in(page: Page) -> None:
    page.goto("/jobs/new")
    for name, rank, method in (("Quick test", 8, "lora"), ("Maximum quality", 64, "lora"), ("Low VRAM", 64, "qlora")):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-current", "true")
        expect(page.get_by_label("Rank (r)")).to_have_value(str(rank))
        expect(page.get_by_label("Method")).to_have_value(method)
    page.get_by_label("Rank (r)").fill("99")
    page.get_by_role("button", name="Balanced").click()
    expect(page.get_by_label("Rank (r)")).to_have_value("16")


def test_row_23_advanced_fields_are_folded_and_changes_from_the_preset_counted(page: Page) -> None:
    page.goto("/jobs/new?apply=balanced")
    expect(page.get_by_label("Seed")).to_be_hidden()
    expect(page.locator(".presets")).to_contain_text("Changed from Balanced: 0.")
    page.get_by_label("Rank (r)").fill("24")
    page.get_by_text("Advanced: LR schedule").click()
    page.get_by_label("Seed").fill("7")
    expect(page.locator(".presets")).to_contain_text("Changed from Balanced: 2.")
    expect(page.locator("details", has=page.get_by_label("Seed")).locator("[data-changed]")).to_have_text("1")


def test_row_25_a_job_that_does_not_fit_can_be_queued_all_the_same(page: Page) -> None:
    page.goto("/jobs/new?vram_gb=8")
    expect(page.locator("#fit-verdict")).to_contain_text("Does not fit")
    expect(page.locator("#fit")).to_contain_text("It can be queued all the same")
    page.get_by_role("button", name="Add to queue").click()
    page.wait_for_url("**/jobs/1")


def test_row_26_every_field_is_described_by_the_specs_own_words(page: Page) -> None:
    page.goto("/jobs/new?method=qlora")
    names = page.locator("#job-form [data-baseline]").locator("input, select, textarea").evaluate_all(
        "(fields) => fields.map((each) => each.name)"
    )  # fmt: skip
    assert len(names) > 35
    for name in names:
        told = (TrainingSpec.model_fields[name].description or "").replace("`", "")
        assert (
            page.locator(f"[name={name}]").get_attribute("aria-describedby", timeout=500).split()[0] == f"help-{name}"
        )  # type: ignore[union-attr]
        assert page.locator(f"#help-{name}").text_content() == told


def test_row_27_a_fault_in_a_folded_field_opens_it_and_keeps_all_that_was_typed(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_label("Job name").fill("mine")
    page.get_by_text("Advanced: LR schedule").click()
    page.get_by_label("Warm-up").fill("3")
    page.get_by_text("Advanced: LR schedule").click()
    page.get_by_text("Queue several jobs").click()
    page.get_by_label("Fields and their values").fill("")
    page.get_by_role("button", name="Add to queue").click()
    expect(page.locator("#errors-warmup_ratio")).to_be_visible()
    expect(page.get_by_label("Warm-up")).to_be_focused()
    expect(page.get_by_label("Job name")).to_have_value("mine")


def test_row_28_a_clone_starts_from_the_jobs_own_values(page: Page, make_job: MakeJob) -> None:
    job = make_job("mine", r=4, target_modules=["q_proj"], seed=7)
    page.goto(f"/jobs/{job.id}")
    page.get_by_role("button", name="Clone").first.click()
    page.wait_for_url("**/jobs/new?from=1")
    expect(page.get_by_role("main")).to_contain_text("Filled in from job #1 mine")
    expect(page.get_by_label("Rank (r)")).to_have_value("4")
    expect(page.get_by_label("Target modules")).to_have_value("q_proj")
    expect(page.get_by_label("Job name")).to_have_value("mine")


def test_row_29_a_form_is_exported_and_imported_to_the_same_job(page: Page, tmp_path: Path) -> None:
    page.goto("/jobs/new?apply=consumer-gpu")
    page.get_by_label("Rank (r)").fill("24")
    page.get_by_label("Max length").fill("300")
    expect(page.locator("#command-text")).to_contain_text("r: 24")
    expect(page.locator("#command-text")).to_contain_text("max_length: 300")
    with page.expect_download() as caught:
        page.get_by_role("button", name="Export YAML").click()
    path = tmp_path / caught.value.suggested_filename
    caught.value.save_as(path)
    assert path.name == "loradeck-job.yaml"
    exported = parse_yaml(path.read_text())
    assert (exported.method, exported.r, exported.max_length) == ("qlora", 24, 300)
    page.goto("/jobs/new")
    page.get_by_text("Import YAML").click()
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.locator("#recipe")).to_contain_text("Read as a file of Loradeck")
    expect(page.get_by_label("Method")).to_have_value("qlora")
    page.get_by_role("button", name="Add to queue").click()
    page.wait_for_url("**/jobs/1")
    page.goto("/jobs/new?from=1")
    text = page.locator("#command-text").text_content() or ""
    assert parse_yaml("\n".join(text.splitlines()[1:-1])) == exported


def test_row_30_a_file_of_axolotl_is_accounted_for_and_its_faults_stand_beside_their_fields(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_text("Import YAML").click()
    page.get_by_label("or its text").fill((RECIPES / "axolotl-qlora.yml").read_text())
    page.get_by_role("button", name="Fill in the form").click()
    report = page.locator("#recipe")
    expect(report).to_contain_text("Read as a file of axolotl")
    expect(report.get_by_role("row", name="my_own_key")).to_contain_text("nothing here corresponds to it")
    expect(page.locator("#errors-dataset")).to_contain_text("unknown dataset 'tickets-2026'")
    expect(page.get_by_label("Max length")).to_have_value("4096")
    page.locator("#field-dataset").select_option("small")
    page.locator("#field-base_model").select_option("tiny")
    page.get_by_label("Max length").fill("512")
    page.get_by_role("button", name="Add to queue").click()
    page.wait_for_url("**/jobs/1")


def test_rows_32_33_and_35_steps_warnings_by_method_and_their_fixes(page: Page) -> None:
    page.goto("/jobs/new?eval_fraction=0")
    fit = page.locator("#fit")
    expect(fit.locator("div", has=page.get_by_text("steps", exact=True)).last).to_contain_text("1 (1 epoch)")
    expect(fit).to_contain_text("No rows are held out")
    page.get_by_label("Learning rate").fill("0.001")
    expect(fit).to_contain_text("0.001 is above what is usual for training of an adapter")
    page.get_by_role("button", name="Use learning_rate: 0.0002").click()
    expect(page.get_by_label("Learning rate")).to_have_value("0.0002")
    expect(fit).not_to_contain_text("is above what is usual")
    page.get_by_label("Method").focus()
    page.get_by_label("Method").select_option("full")
    expect(page.get_by_label("Learning rate")).to_have_value("2e-05")
    page.get_by_label("Learning rate").fill("0.0002")
    expect(fit).to_contain_text("0.0002 is above what is usual for training of every weight")


def test_row_32_the_time_is_told_once_a_job_like_it_has_finished(
    page: Page, database: Database, make_job: MakeJob
) -> None:
    done = make_job(eval_fraction=0)
    advance(database, done, JobStatus.STARTING, JobStatus.RUNNING)
    summary = {"tokens_per_second": 2.0, "tokens": 400, "steps": 1}
    advance(database, done, JobStatus.COMPLETED, summary=summary)
    page.goto("/jobs/new?eval_fraction=0")
    expect(page.locator("#fit")).to_contain_text("about 3m 20s, from 1 finished job on this box")


def test_row_36_a_sweep_is_previewed_queued_and_ranked(page: Page) -> None:
    page.goto("/jobs/new?vram_gb=24")
    page.get_by_label("Job name").fill("night")
    page.get_by_text("Queue several jobs").click()
    page.get_by_label("Fields and their values").fill("learning_rate: 1e-4, 2e-4\nr: 8, sixteen")
    expect(page.locator("#sweep")).to_contain_text("r: Input should be a valid integer")
    page.get_by_label("Fields and their values").fill("learning_rate: 1e-4, 2e-4\nr: 8, 16")
    expect(page.locator("#sweep")).to_contain_text("4 jobs")
    expect(page.locator("#sweep tbody tr")).to_have_count(4)
    expect(page.locator("#sweep tbody tr").first).to_contain_text("fits")
    page.get_by_label("Max length").fill("8192")
    expect(page.locator("#sweep tbody tr").first).to_contain_text("does not fit")
    page.get_by_label("Max length").fill("256")
    page.get_by_role("button", name="Add 4 jobs to the queue").click()
    page.wait_for_url("**/sweeps/1")
    expect(page.get_by_role("main")).to_contain_text("night · learning_rate 2e-4, r 16")
    expect(page.get_by_role("button", name="Compare")).to_have_attribute("href", "/compare?ids=1,2,3,4")
    page.get_by_role("button", name="Cancel the 4 that wait").click()
    expect(page.locator("tbody .status-cancelled")).to_have_count(4)


def test_row_71_the_place_in_the_queue_and_the_expected_start_stand_beside_the_button(
    page: Page, running: Feed, make_job: MakeJob
) -> None:
    running.read_devices()
    page.goto("/jobs/new")
    expect(page.locator("#queue-place")).to_contain_text("1st in the queue · starts at about")
    expect(page.locator("#queue-place time")).to_have_count(1)
    make_job()
    running.read_devices()
    page.get_by_label("Job name").press_sequentially("x")
    expect(page.locator("#queue-place")).to_contain_text(re.compile("2nd in the queue · starts at .* or later"))


def test_a_job_is_queued_by_keyboard_alone(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_label("Job name").focus()
    page.keyboard.type("by keys")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Quick test")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Rank (r)")).to_have_value("8")
    page.get_by_label("Rank (r)").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("12")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#launch button[type=submit]')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("by keys")
