"""The main job as a person does it: in a real browser, on the demo model, with a real worker."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Dashboard

pytestmark = [pytest.mark.browser, pytest.mark.demo, pytest.mark.model]

MINUTE = 60_000
LOAD_BOTH = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, merged, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(merged)
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)["input_ids"]

def look(model):
    with torch.no_grad():
        logits = model(ids).logits[0, -1].float()
        answer = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1]:]
    return logits, tokenizer.decode(answer, skip_special_tokens=True)

def load(path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)

base_logits, _ = look(load(base))
tuned_logits, tuned = look(PeftModel.from_pretrained(load(base), adapter))
rough_logits, _ = look(PeftModel.from_pretrained(load(base, torch.bfloat16), adapter))
merged_logits, merged_answer = look(load(merged))
apart = lambda logits: (tuned_logits - logits).square().mean().sqrt().item()
print(json.dumps({"adapter_effect": apart(base_logits), "bf16_arithmetic": apart(rough_logits),
                  "merged": apart(merged_logits), "tuned_answer": tuned, "merged_answer": merged_answer}))
"""


def start_demo_job(page: Page, max_steps: int) -> int:
    """Fill the form as a person would; returns the job's id."""
    page.goto("/jobs/new")
    page.get_by_label("Base model").select_option("smollm2-135m-instruct")
    page.get_by_label("Dataset").select_option("demo")
    page.get_by_label("Max length").fill("128")
    page.get_by_label("Learning rate").fill("4e-4")
    page.get_by_label("Max steps").fill(str(max_steps))
    page.get_by_role("button", name="Add to queue").click()
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    return int(page.url.rpartition("/")[2])


def find_download(page: Page, text: str) -> Locator:
    """A download of the job's page."""
    return page.locator("#job-artifacts a", has_text=text)


def download(page: Page, link: str, target: Path) -> zipfile.ZipFile:
    """Click a download link; returns the zip, checked."""
    with page.expect_download(timeout=2 * MINUTE) as started:
        find_download(page, link).click()
    started.value.save_as(target)
    opened = zipfile.ZipFile(target)
    assert opened.testzip() is None
    return opened


def test_demo_job_from_the_form_to_the_merged_model(page: Page, dashboard: Dashboard, tmp_path: Path) -> None:
    job_id = start_demo_job(page, max_steps=12)
    loss = page.locator("[data-chart=loss]")
    page.evaluate("window.stayed = true")
    expect(loss).to_have_attribute("data-points", re.compile(r"^([2-9]|1\d)$"), timeout=5 * MINUTE)
    expect(page.locator("[data-chart=memory]")).to_have_attribute("data-points", re.compile(r"^[1-9]\d*$"))
    assert page.evaluate("window.stayed") is True, "the points came without a reload"
    page.reload()
    expect(loss).to_have_attribute("data-points", re.compile(r"^([2-9]|1\d)$"))

    second = start_demo_job(page, max_steps=500)
    expect(page.locator("#job-overview")).to_contain_text("queued")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-overview")).to_contain_text("cancelled")
    assert dashboard.command("jobs", "show", str(second))["status"] == "cancelled"

    page.goto(f"/jobs/{job_id}")
    expect(find_download(page, "Download adapter")).to_be_visible(timeout=5 * MINUTE)
    expect(page.locator("#job-overview .status").first).to_contain_text("completed", timeout=2 * MINUTE)
    expect(page.locator("#job-samples .answer")).to_have_count(4)
    expect(page.locator("#job-samples")).not_to_contain_text("…")
    page.get_by_role("button", name="Merge into the base model").click()
    expect(find_download(page, "Download merged model")).to_be_visible(timeout=5 * MINUTE)
    adapter = download(page, "Download adapter", tmp_path / "adapter.zip")
    merged = download(page, "Download merged model", tmp_path / "merged.zip")
    check_downloads(dashboard, adapter, merged, tmp_path)


def check_downloads(dashboard: Dashboard, adapter: zipfile.ZipFile, merged: zipfile.ZipFile, folder: Path) -> None:
    """A process that knows nothing of this project loads both, and they answer alike."""
    roots = [next(iter({name.split("/")[0] for name in each.namelist()})) for each in (adapter, merged)]
    for each in (adapter, merged):
        each.extractall(folder)
    names = {name.split("/", 1)[1] for name in merged.namelist()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "meta.json"} <= names
    assert any(name.startswith("chat_template") for name in names)
    (base,) = (model["path"] for model in dashboard.command("models", "list"))
    arguments = [base, str(folder / roots[0]), str(folder / roots[1]), "How do I boil an egg?"]
    run = subprocess.run(
        [sys.executable, "-c", LOAD_BOTH, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["merged"] <= 3 * seen["bf16_arithmetic"], seen
    assert seen["merged"] <= seen["adapter_effect"] / 10, seen
    assert seen["merged_answer"]
    print(seen)


def test_running_job_is_cancelled_from_its_page(page: Page, dashboard: Dashboard) -> None:
    job_id = start_demo_job(page, max_steps=500)
    expect(page.locator("[data-chart=loss]")).to_have_attribute(
        "data-points", re.compile(r"^[1-9]\d*$"), timeout=5 * MINUTE
    )
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-overview .status")).to_contain_text("cancelled", timeout=MINUTE)
    job = dashboard.command("jobs", "show", str(job_id))
    assert job["status"] == "cancelled"
    kinds = {artifact["kind"] for artifact in dashboard.command("artifacts", "list", str(job_id))}
    assert "adapter" not in kinds


def test_upload_with_a_broken_row_says_which(page: Page, dashboard: Dashboard, tmp_path: Path) -> None:
    path = tmp_path / "support.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}\n')
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("main")).to_contain_text("row 2: completion: has no answer", timeout=MINUTE)
    ready = [dataset["name"] for dataset in dashboard.command("datasets", "list") if dataset["status"] == "ready"]
    assert ready == ["demo"]


def test_zip_of_the_api_is_as_long_as_it_says(dashboard: Dashboard) -> None:
    job = next(
        job for job in dashboard.command("jobs", "list") if job["status"] == "completed" and job["kind"] == "train"
    )
    with dashboard.api() as api:
        answer = api.get(f"/jobs/{job['id']}/artifacts/adapter")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None
