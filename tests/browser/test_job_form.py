"""The new-job form follows the chosen method, task, preset and dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.datasets.models import Dataset
from app.core.models.models import BaseModel
from tests.browser.conftest import AXE, LiveServer
from tests.core.planning.conftest import CONFIGS

pytestmark = pytest.mark.browser


def test_fields_and_defaults_follow_the_choices_and_keep_what_was_changed(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_label("Job name").fill("mine")
    page.get_by_label("Rank (r)").fill("64")
    page.get_by_label("Method").select_option("full")
    expect(page.get_by_label("Rank (r)")).to_have_count(0)
    expect(page.get_by_label("Learning rate")).to_have_value("2e-05")
    expect(page.get_by_label("Job name")).to_have_value("mine")
    expect(page.locator("label[for=field-method] .changed")).to_have_text("changed from lora")
    page.get_by_label("Method").select_option("lora")
    expect(page.get_by_label("Rank (r)")).to_have_value("64")
    expect(page.locator("label[for=field-r] .changed")).to_have_text("changed from 16")
    expect(page.get_by_label("Learning rate")).to_have_value("0.0002")


def test_a_dataset_that_does_not_fit_is_told_and_mended_by_one_click(page: Page) -> None:
    page.goto("/jobs/new?task=dpo")
    expect(page.locator("#dataset-notes")).to_contain_text("small holds messages rows")
    expect(page.get_by_label("DPO beta")).to_be_visible()
    page.get_by_role("button", name="Use task: sft").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#dataset-notes .note-warning")).to_have_count(0)
    expect(page.get_by_label("DPO beta")).to_have_count(0)
    expect(page.get_by_label("Task")).to_be_focused()


def test_folded_fields_count_their_changes_as_they_are_typed(page: Page) -> None:
    page.goto("/jobs/new")
    more = page.locator("details", has=page.locator("#field-seed"))
    more.locator("summary").click()
    page.get_by_label("Seed").fill("7")
    expect(more.locator("[data-changed]")).to_have_text("1")
    page.get_by_label("Seed").fill("42")
    expect(more.locator("[data-changed]")).to_have_text("0")


def test_the_fit_follows_what_is_typed_and_one_click_mends_it(
    page: Page, registered: tuple[BaseModel, Dataset]
) -> None:
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(registered[0].path or "") / "config.json")
    page.goto("/jobs/new")
    verdict, region = page.locator("#fit-verdict"), page.locator("#fit")
    expect(verdict).to_contain_text("No GPU is read")
    page.get_by_role("button", name="24 GiB").click()
    expect(verdict).to_contain_text("Fits")
    page.locator("#field-max_length").fill("4096")
    expect(verdict).to_contain_text("Does not fit")
    expect(page.locator("#field-max_length")).to_be_focused()
    fix = page.get_by_role("button", name="Use per_device_train_batch_size: 1, gradient_accumulation_steps: 4")
    fix.click()
    expect(page.locator("#field-per_device_train_batch_size")).to_have_value("1")
    expect(page.locator("#field-gradient_accumulation_steps")).to_have_value("4")
    expect(verdict).to_contain_text("Fits")
    page.get_by_role("button", name="16 GiB").click()
    expect(region).to_contain_text("It does not fit")
    page.get_by_label("Compare with a card").fill("80")
    expect(verdict).to_contain_text("Fits")
    expect(region).not_to_contain_text("It does not fit")
    page.get_by_label("Method").select_option("qlora")
    expect(page.get_by_label("8 bits")).to_be_visible()
    expect(page.get_by_label("Compare with a card")).to_have_value("80")
    expect(page.get_by_role("row", name="weights")).to_contain_text("5.3 GiB")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run('#job-form').then((found) => found.violations.map((each) => each.id))")
    assert found == []


def test_without_scripts_a_button_shows_the_fields_of_the_choice(browser: Browser, server: LiveServer) -> None:
    context = browser.new_context(base_url=server.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs/new")
    page.get_by_label("Method").select_option("qlora")
    page.get_by_role("button", name="Show the fields").click()
    expect(page.get_by_label("8 bits")).to_be_visible()
    expect(page.locator("#field-optim")).to_have_value("paged_adamw_8bit")
    page.get_by_label("Method").select_option("full")
    page.get_by_role("button", name="Add to queue").click()
    expect(page.locator("#errors-form")).to_contain_text("look at them")
    context.close()


def test_without_scripts_a_preset_keeps_what_was_typed(browser: Browser, server: LiveServer) -> None:
    context = browser.new_context(base_url=server.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs/new")
    page.get_by_label("Job name").fill("mine")
    page.locator("#field-max_length").fill("333")
    expect(page.locator(".scripted").first).to_be_hidden()
    page.get_by_role("button", name="Quick test").click()
    expect(page.get_by_label("Rank (r)")).to_have_value("8")
    expect(page.locator("#field-max_length")).to_have_value("333")
    expect(page.get_by_label("Job name")).to_have_value("mine")
    page.get_by_label("Rank (r)").fill("-1")
    page.get_by_label("Rank (r)").press("Enter")
    expect(page.locator("#errors-r")).to_contain_text("greater than")
    context.close()
