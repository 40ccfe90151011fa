"""Downloads, exports, uploads, deleting and imports as a person meets them, in both themes and at two widths."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.artifacts.store import META, list_artifacts, record
from app.core.database import Database
from app.core.exports.uploads import Target, submit_upload
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.paths import DataFolder
from app.core.secrets import HF_TOKEN, remove_secret, set_secret
from tests.browser.conftest import AXE, Feed, LiveServer
from tests.browser.test_pages import RULES

pytestmark = pytest.mark.browser

DONE = (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
LONG = "a-name-without-any-space-" * 4
MERGED = {
    "passed": True, "how": "streamed", "base": "as registered", "dtype": "bf16", "weights": 272, "values": 134_515_008,
    "values_differing": 0, "max_logit_difference": 0.01, "mean_logit_difference": 0.001, "relative_difference": 1e-4,
    "kl_divergence": 1e-6, "compared_tokens": 400, "greedy_tokens": 96, "greedy_tokens_same": 96,
    "greedy_tokens_equal": True, "adapter_effect": 0.3, "warning": "Rounding takes a part of what was learned.",
    "eval_loss": {"rows": 8, "merged": 1.25, "base_and_adapter": 1.25},
    "vocabulary_size": 49_152, "tied_embeddings": True, "template_sha256": "5a" * 32, "eos_token_id": [2],
    "base_dtype": "bfloat16",
}  # fmt: skip
GGUF = {"passed": True, "dtype": "q8_0", "answers_compared": True, "relative_difference": 0.02, "warning": None}
UPLOADED = {
    "repo": f"me/{LONG}", "url": "https://hub.test/me/mine", "commit": "c0ffee" * 6, "files": 3, "bytes": 10**9,
    "already_there": False,
}  # fmt: skip
CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
TOKENIZER = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def trained(database: Database, folder: DataFolder, make_job: Callable[..., Job]) -> Job:
    """A training that has an adapter, a verified merge, and a GGUF of it."""
    job = make_job(LONG)
    Feed(database, job).move(*DONE, summary={"train_loss": 1.0})
    with database.write() as session:
        merge = queue.enqueue(session, Job(name="m", kind=JobKind.MERGE, created_at=0.0, source_job_id=job.id))
        export = queue.enqueue(session, Job(name="e", kind=JobKind.EXPORT, created_at=0.0, source_job_id=job.id))
    for each in (merge, export):
        Feed(database, each).move(*DONE)
    _save(database, folder, job, "adapter", {"adapter_model.safetensors": "weights"})
    files = {"config.json": json.dumps(CONFIG), "tokenizer.json": json.dumps(TOKENIZER)}
    _save(database, folder, merge, "merged", files, MERGED)
    _save(database, folder, export, "gguf", {f"{LONG}-q8_0.gguf": "GGUF", "Modelfile": "FROM x"}, GGUF)
    return job


def _save(
    database: Database, folder: DataFolder, job: Job, kind: str, files: dict[str, str], certificate: Any = None
) -> None:
    place = folder.job(job.key) / kind
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_text(content)
    listed = [{"path": name, "bytes": len(content), "sha256": "5a" * 32} for name, content in files.items()]
    (place / META).write_text(json.dumps({"files": listed}))
    with database.write() as session:
        record(session, folder, job.key, None, {"kind": kind, "path": kind, "certificate": certificate})


def _upload(database: Database, folder: DataFolder, job: Job, *statuses: JobStatus, **fields: Any) -> Job:
    set_secret(folder, HF_TOKEN, "hf_abcdefghijklmnop")
    with database.write() as session:
        upload = submit_upload(session, folder, job, list_artifacts(session, job)[0], Target(f"me/{LONG[:80]}"))
    remove_secret(folder, HF_TOKEN)
    Feed(database, upload).move(*statuses, **fields)
    return upload


def _check(page: Page, path: str, width: int) -> None:
    answer = page.goto(path)
    assert answer is not None
    assert answer.ok, path
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("(rules) => axe.run(document, rules).then((found) => found.violations)", RULES)
    assert [(path, each["id"], each["nodes"][0]["html"]) for each in violations] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_all_of_it_is_accessible_and_fits(
    browser: Browser,
    server: LiveServer,
    database: Database,
    folder: DataFolder,
    trained: Job,
    theme: str,
    width: int,
) -> None:
    done = _upload(database, folder, trained, *DONE, summary=UPLOADED)
    error = {"kind": "hub_upload", "message": f"The token has no right to write to me/{LONG} (403).", "advice": "x"}
    _upload(database, folder, trained, *DONE[:2], JobStatus.FAILED, error=error)
    with database.write() as session:
        spec = {"base_model": "tiny", "method": "lora"}
        taken = queue.enqueue(session, Job(name=LONG, kind=JobKind.ADAPTER, spec=spec, created_at=0.0))
    Feed(database, taken).move(*DONE, summary={"fields": {"r": 4, "target_modules": ["q_proj", "v_proj"]}})
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    for path in (f"/jobs/{trained.id}", f"/jobs/{done.id}", f"/jobs/{taken.id}", "/adapters", "/settings"):
        _check(page, path, width)
    context.close()


def test_deleting_says_what_it_frees_and_asks_once(page: Page, database: Database, trained: Job) -> None:
    page.goto(f"/jobs/{trained.id}")
    page.locator("#delete-files > summary").click()
    confirm = page.locator("#delete-files li", has_text="gguf q8_0")
    expect(confirm.get_by_role("button")).to_be_hidden()
    confirm.locator("summary").click()
    confirm.get_by_role("button", name=re.compile(r"Delete: frees \d+")).click()
    page.locator("#delete-files > summary").click()
    expect(page.locator("#delete-files")).not_to_contain_text("gguf")
    with database.read() as session:
        assert {each.kind for each in list_artifacts(session, trained)} == {"adapter", "merged"}


def test_an_export_is_asked_for_and_followed(page: Page, trained: Job) -> None:
    page.goto(f"/jobs/{trained.id}")
    page.get_by_label("Export as GGUF").select_option("f16")
    page.get_by_role("button", name="Export", exact=True).click()
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("h1")).to_contain_text("f16 GGUF of")


def test_an_upload_that_cannot_be_is_said_in_place_and_then_queued(
    page: Page, trained: Job, folder: DataFolder
) -> None:
    page.goto(f"/jobs/{trained.id}")
    panel = page.locator("#push")
    panel.locator("summary").first.click()
    expect(panel).to_contain_text("No hub token is set here")
    expect(panel.locator("option", has_text="gguf q8_0")).to_have_count(1)
    panel.locator("select[name=artifact]").select_option(index=1)
    panel.get_by_label("to", exact=True).fill("no owner")
    panel.locator("select[name=visibility]").select_option("public")
    panel.get_by_role("button", name="Upload").click()
    expect(panel.locator(".field-errors")).to_contain_text("is not a repository")
    expect(panel.get_by_label("to", exact=True)).to_have_value("no owner")
    expect(panel.locator("select[name=visibility]")).to_have_value("public")
    panel.get_by_label("to", exact=True).fill("me/mine")
    panel.get_by_role("button", name="Upload").click()
    expect(panel.locator(".field-errors")).to_contain_text("loradeck secrets set hf_token")
    set_secret(folder, HF_TOKEN, "hf_abcdefghijklmnop")
    panel.get_by_role("button", name="Upload").click()
    page.wait_for_url(lambda url: url.rpartition("/")[2] != str(trained.id))
    expect(page.locator("#job-artifacts")).to_contain_text("me/mine, public")


def test_a_token_is_stored_and_shown_masked(page: Page, folder: DataFolder) -> None:
    page.goto("/settings")
    page.get_by_label("Token", exact=True).fill("two words")
    page.get_by_role("button", name="Store token").click()
    expect(page.locator("#hub-token .field-errors")).to_contain_text("holds spaces")
    page.get_by_label("Token", exact=True).fill("hf_abcdefghijklmnopqrstwxyz")
    page.get_by_role("button", name="Store token").click()
    expect(page.locator("#hub-token")).to_contain_text("hf_…wxyz")
    assert "abcdefghijkl" not in page.content()
    assert (folder.secrets / "hf_token").read_text() == "hf_abcdefghijklmnopqrstwxyz"
    page.get_by_role("button", name="Remove the token").click()
    expect(page.locator("#hub-token")).to_contain_text("Not set.")


def test_an_adapter_is_sent_from_the_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK")
    page.goto("/models")
    page.get_by_role("link", name="Import an adapter").click()
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#errors-file")).to_contain_text("one of the two")
    page.get_by_label("Zip").set_input_files(tmp_path / "mine.zip")
    page.get_by_label("Name").fill("from elsewhere")
    page.get_by_role("button", name="Import").click()
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("h1")).to_contain_text("from elsewhere")
