"""Merging on a job's page, and what the certificate says there."""

from __future__ import annotations

import re
from html import unescape

from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.status import JobKind, JobStatus
from tests.jobs.steps import MakeJob, advance


def test_merge_is_offered_with_the_adapter_then_followed(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job("base job"), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    assert client.post(f"/jobs/{job.id}/merge").status_code == 409
    for step in ("9" * 5000, "²", "-1", "1e3"):
        assert client.post(f"/jobs/{job.id}/merge", data={"checkpoint": step}).status_code == 422, step[:9]
    with database.write() as session:
        session.add(Artifact(job_id=job.key, kind="adapter", path="adapter", bytes=1024, created_at=0.0))
    page = client.get(f"/jobs/{job.id}").text
    assert "Download adapter (1.0 KiB)" in page
    assert f'action="/jobs/{job.id}/merge"' in page
    page = client.post(f"/jobs/{job.id}/merge").text
    with database.read() as session:
        merge = queue.get_job(session, job.key + 1)
    assert merge.kind == JobKind.MERGE
    assert f"&amp;job={merge.id}" in page  # the page now follows the merge
    assert f'action="/jobs/{job.id}/merge"' not in page


def test_merged_model_is_offered_only_where_it_passed_its_verification(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    merged = Artifact(job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=False)
    with database.write() as session:
        session.add(merged)
    assert "Download merged model" not in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        session.get_one(Artifact, merged.id).verified = True
    assert "Download merged model" in client.get(f"/jobs/{job.id}").text


def test_a_checkpoint_can_be_merged_from_the_page(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job("tuned", method="qlora"), JobStatus.STARTING, JobStatus.RUNNING)
    with database.write() as session:
        kept = Artifact(job_id=job.key, kind="checkpoint", path="c", step=50, bytes=1, created_at=0.0)
        session.add(kept)
    page = client.get(f"/jobs/{job.id}").text
    assert "checkpoint at step 50" in page
    assert "the adapter</option>" not in page  # there is none yet
    assert '<option value="original">' in page
    client.post(f"/jobs/{job.id}/merge", data={"dtype": "fp32", "onto": "original", "checkpoint": "50"})
    with database.read() as session:
        merge = queue.get_job(session, job.key + 1)
    wanted = {"job": job.id, "dtype": "fp32", "onto": "original", "checkpoint": 50}
    assert (merge.kind, merge.spec) == (JobKind.MERGE, wanted)
    refused = client.post(f"/jobs/{job.id}/merge", data={"checkpoint": "fifty"})
    assert (refused.status_code, "fifty" in refused.text) == (422, True)


def test_the_certificate_stands_on_the_page(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job(method="qlora")
    certificate = {
        "passed": True, "how": "streamed", "base": "original", "dtype": "bfloat16", "weights": 272,
        "values": 134515008, "values_differing": 0, "max_logit_difference": 0.125, "mean_logit_difference": 0.01,
        "relative_difference": 0.012, "kl_divergence": 5.7e-5, "compared_tokens": 90, "greedy_tokens": 24,
        "greedy_tokens_same": 23, "greedy_tokens_equal": False, "adapter_effect": 0.3, "vocabulary_size": 49152,
        "tied_embeddings": True, "eos_token_id": [2], "template_sha256": None, "warning": None,
        "eval_loss": {"merged": 1.5481, "base_and_adapter": 1.5479, "dequantised": 1.597, "original": 1.5479,
                      "tokens": 40, "rows": 3},
    }  # fmt: skip
    merged = Artifact(
        job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=True, certificate=certificate
    )
    with database.write() as session:
        session.add(merged)
    page = unescape(re.sub(r"\s+", " ", client.get(f"/jobs/{job.id}").text))
    for told in (
        "the original 16-bit base, not the quantised one",
        "134,515,008 values; each the same to the last bit",
        "at most 0.125 apart",
        "5.7e-05 nats",
        "23 of 24 the same",
        "the adapter on the dequantised base 1.5970, on the original one 1.5479",
        "share one weight",
    ):
        assert told in page


def test_what_rounding_may_have_cost_is_said_beside_the_download(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job("coarse")
    certificate = {"passed": True, "warning": "Merge in fp32 to keep all of it."}
    merged = Artifact(
        job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=True, certificate=certificate
    )
    with database.write() as session:
        session.add(merged)
    assert "Merge in fp32" in client.get(f"/jobs/{job.id}").text
