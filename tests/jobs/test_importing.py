"""A YAML fills the new-job form."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs.spec import parse_spec, parse_yaml
from tests.jobs.steps import FORM, MakeJob, count_jobs

RECIPES = Path(__file__).parents[1] / "fixtures" / "recipes"
SPEC = {"base_model": "tiny", "dataset": "small", "method": "qlora", "r": 24, "target_modules": ["q_proj", "up_proj"],
        "learning_rate": 3e-5, "rank_pattern": {"q_proj": 8}, "max_steps": 7,
        "sample_prompts": ["One, two: three?\nFour \\n"]}  # fmt: skip


def _paste(client: TestClient, text: str, source: str = "auto", status: int = 200) -> str:
    response = client.post("/jobs/new/import", data={"yaml": text, "source": source})
    assert response.status_code == status, response.text[-2000:]
    return unescape(response.text)


def _typed(page: str) -> dict[str, str]:
    """What a browser would post for the form."""
    form = page[page.index('<form id="job-form"') :]
    typed = dict(re.findall(r'<input [^>]*?name="([\w.]+)" value="([^"]*)"', form))
    typed |= dict(re.findall(r'<textarea [^>]*?name="(\w+)"[^>]*>([^<]*)<', form))
    for name, options in re.findall(r'<select [^>]*?name="(\w+)".*?>(.*?)</select>', form, re.S):
        typed[name] = re.findall(r'<option value="([^"]*)" selected', options)[0]
    return typed


def test_an_exported_job_comes_back_to_the_same_spec(client: TestClient, make_job: MakeJob) -> None:
    job = make_job(**{name: value for name, value in SPEC.items() if name not in ("base_model", "dataset")})
    exported = client.get(f"/jobs/{job.id}/spec.yaml")
    assert exported.headers["content-disposition"] == f'attachment; filename="loradeck-job-{job.id}.yaml"'
    assert exported.text == client.get(f"/api/v1/jobs/{job.id}/spec").text
    page = _paste(client, exported.text)
    assert "Read as a file of Loradeck" in page
    again = client.post("/jobs", data=_typed(page), follow_redirects=False)
    assert again.status_code == 303
    queued = client.get(f"/api/v1/jobs/{again.headers['location'].rpartition('/')[2]}").json()
    assert parse_spec(queued["spec"]) == parse_spec(SPEC)


def test_a_file_that_is_uploaded_goes_before_what_is_pasted(client: TestClient) -> None:
    content = parse_spec(SPEC).to_yaml().encode()
    for prefix in (b"", b"\xef\xbb\xbf"):
        files = {"file": ("job.yaml", prefix + content, "application/yaml")}
        response = client.post("/jobs/new/import", data={"yaml": "r: 99", "source": "auto"}, files=files)
        assert response.status_code == 200
        assert 'name="r" value="24"' in response.text


def test_faults_stand_beside_their_fields_and_unknown_keys_are_named(client: TestClient, database: Database) -> None:
    page = _paste(client, "base_model: tiny\ndataset: nothing\nr: -3\nlearning_rat: 1\nsurprise: 2\n", status=422)
    for field, words in (("r", "greater than or equal to 1"), ("dataset", "unknown dataset 'nothing'")):
        errors = page[page.index(f'id="errors-{field}"') :]
        assert words in errors[: errors.index("</ul>")]
    top = page[page.index('id="errors-form"') :]
    assert "learning_rat: unknown field. Did you mean learning_rate?" in top
    assert "surprise: unknown field. Known fields:" in top
    assert 'name="r" value="-3"' in page
    assert count_jobs(database) == 0


def test_axolotls_file_is_accounted_for_key_by_key(client: TestClient) -> None:
    page = _paste(client, (RECIPES / "axolotl-qlora.yml").read_text(), status=422)
    assert "Read as a file of axolotl" in page
    assert 'name="max_length" value="4096"' in page
    assert "<code>wandb_project</code></th><td>tickets</td><td>nothing is sent to other services" in page
    assert "<code>my_own_key</code>" in page
    assert "unknown dataset 'tickets-2026'" in page
    mended = _paste(client, (RECIPES / "axolotl-qlora.yml").read_text().replace("./data/tickets-2026.jsonl", "small")
                    .replace("NousResearch/Meta-Llama-3.1-8B", "tiny"))  # fmt: skip
    assert 'class="field-errors"' not in mended


def test_a_value_without_an_equivalent_is_refused_in_report_and_form(client: TestClient) -> None:
    page = _paste(client, "model_name_or_path: tiny\nstage: ppo\ndataset: small\n", status=422)
    assert "1 refused" in page
    errors = page[page.index('id="errors-task"') :]
    assert "LLaMA-Factory's stage: ppo has no equivalent here" in errors[: errors.index("</ul>")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Choose a file, or paste its text."),
        ("- a", "A job YAML is a mapping"),
        ("r: [1", "not valid YAML"),
        ("a: &a [1]\nb: *a", "an alias of a list or a mapping"),
    ],
)
def test_what_is_no_job_comes_back_with_its_reason(client: TestClient, text: str, words: str) -> None:
    page = _paste(client, text, "axolotl", status=422)
    errors = page[page.index('id="errors-import"') :]
    assert words in errors[: errors.index("</ul>")]
    assert '<option value="axolotl" selected>' in page
    assert text in page


def test_a_file_that_is_no_text_or_too_large_is_refused(client: TestClient) -> None:
    binary = client.post("/jobs/new/import", files={"file": ("a.yaml", b"\xff\xfe\x00", "application/yaml")})
    assert (binary.status_code, "not UTF-8" in binary.text) == (422, True)
    long = client.post("/jobs/new/import", data={"yaml": "#" * 300_000})
    assert (long.status_code, "the most that is read" in long.text) == (422, True)
    large = client.post("/jobs/new/import", files={"file": ("a.yaml", b"#" * 3_000_000, "application/yaml")})
    assert large.status_code == 413


def test_markup_in_a_file_stays_text(client: TestClient) -> None:
    text = "adapter: lora\nmicro_batch_size: 1\n'<script>x</script>': '<img src=x>'\nwandb_name: '<b>'\n"
    response = client.post("/jobs/new/import", data={"yaml": text})
    assert "<script>x" not in response.text
    assert "<img src=x" not in response.text
    assert "&lt;script&gt;x" in response.text


def test_the_form_says_what_it_was_filled_in_from(client: TestClient, make_job: MakeJob) -> None:
    job = make_job("mine")
    assert (
        f'Filled in from job <a href="/jobs/{job.id}">#{job.id} mine</a>' in client.get(f"/jobs/new?from={job.id}").text
    )


def test_the_api_accounts_for_a_file_and_queues_nothing(client: TestClient, database: Database) -> None:
    text = (RECIPES / "llama-factory-sft.yaml").read_text()
    found = client.post("/api/v1/jobs/import", json={"yaml": text}).json()
    assert (found["program"], found["values"]["method"]) == ("LLaMA-Factory", "qlora")
    assert [fault["field"] for fault in found["faults"]] == ["dataset"]
    assert {"key": "report_to", "value": "none"}.items() <= next(
        line for line in found["left_out"] if line["key"] == "report_to"
    ).items()
    refused = client.post("/api/v1/jobs/import", json={"yaml": "a: 1", "source": "unsloth"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "source")
    assert count_jobs(database) == 0


def test_only_a_training_has_a_spec(client: TestClient, make_job: MakeJob) -> None:
    job = make_job()
    assert parse_yaml(client.get(f"/api/v1/jobs/{job.id}/spec").text).base_model == FORM["base_model"]
    assert client.get("/jobs/99/spec.yaml").status_code == 404
