"""Exports, uploads, deleting, imports of adapters, kept prompts and conversations, as the command asks for them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue, get_job, request_cancel
from app.core.jobs.status import JobKind
from app.core.models.inspect import read_shapes
from app.core.paths import DataFolder
from tests.cli.conftest import Command
from tests.live_server import Served
from tests.worker.adapters.test_importer import safetensors

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
TOKENIZER = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}


@pytest.fixture
def merged(server: Served, database: Database, submitted: dict[str, Any]) -> int:
    """A training that has ended, with a merged model that passed its verification."""
    folder = DataFolder(server.home)
    with database.write() as session:
        merge = enqueue(session, Job(name="m", kind=JobKind.MERGE, created_at=0.0, source_job_id=submitted["id"]))
        place = folder.job(merge.key) / "merged"
        place.mkdir(parents=True)
        for name, content in (("config.json", CONFIG), ("tokenizer.json", TOKENIZER)):
            (place / name).write_text(json.dumps(content))
        (place / META).write_text(json.dumps({"files": []}))
        record(session, folder, merge.key, None, {"kind": "merged", "path": "merged", "certificate": {"passed": True}})
        request_cancel(session, merge)
        request_cancel(session, get_job(session, submitted["id"]))
    return int(submitted["id"])


def test_export_queues_a_job_or_says_why_not(loradeck: Command, merged: int, submitted: dict[str, Any]) -> None:
    done = loradeck("export", merged, "--quantization", "f16", "--json")
    assert done.code == 0, done.err
    assert (done.json["kind"], done.json["spec"]["quantization"]) == ("export", "f16")
    wrong = loradeck("export", merged, "--format", "onnx", "--quantization", "q2")
    assert wrong.code == 2
    assert "format:" in wrong.err
    assert "quantization:" in wrong.err
    assert loradeck("export", 999_999).code == 2
    assert loradeck("jobs", "cancel", done.json["id"]).code == 0


def test_export_waits_and_fails_with_its_job(loradeck: Command, merged: int, act: Any) -> None:
    after = loradeck("export", merged, "--json").json["id"] + 1
    error = {"kind": "export", "message": "It does not fit.", "advice": "Merge anew."}
    act(after, "starting", "running", "failed", error=error)
    failed = loradeck("export", merged, "--wait")
    assert failed.code == 1
    assert "It does not fit." in failed.out
    assert loradeck("jobs", "cancel", after - 1).code == 0


def test_push_asks_for_a_token_and_a_private_repository_and_names_a_wrong_one(
    loradeck: Command, merged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = loradeck("artifacts", "push", merged, "merged", "--repo", "me/mine")
    assert without.code == 1
    assert "loradeck secrets set hf_token" in without.err
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_abcdefghijklmnop\n"))
    assert loradeck("secrets", "set", "hf_token").code == 0
    done = loradeck("artifacts", "push", merged, "merged", "--repo", "me/mine", "--json")
    assert done.code == 0, done.err
    spec = done.json["spec"]
    assert (spec["repo"], spec["private"], spec["existing"]) == ("me/mine", True, False)
    public = loradeck("artifacts", "push", merged, "merged", "--repo", "me/mine", "--public", "--existing", "--json")
    assert (public.json["spec"]["private"], public.json["spec"]["existing"]) == (False, True)
    wrong = loradeck("artifacts", "push", merged, "merged", "--repo", "mine", "--json")
    assert (wrong.code, wrong.json["error"]["field"]) == (2, "repo")
    absent = loradeck("artifacts", "push", merged, "gguf", "--repo", "me/mine")
    assert absent.code == 2
    assert "has no gguf" in absent.err
    assert loradeck("artifacts", "push", merged, "merged").code == 2
    for job in (done, public):
        assert loradeck("jobs", "cancel", job.json["id"]).code == 0
    assert loradeck("secrets", "remove", "hf_token").code == 0


def test_delete_asks_once_and_tells_what_it_freed(
    loradeck: Command, merged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    refused = loradeck("artifacts", "delete", merged, "merged")
    assert refused.code == 1
    assert "Delete the merged of job" in refused.err
    assert len(loradeck("artifacts", "list", merged, "--json").json) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = loradeck("artifacts", "delete", merged, "merged")
    assert done.code == 0, done.err
    assert "bytes freed" in done.out
    assert loradeck("artifacts", "list", merged, "--json").json == []
    absent = loradeck("artifacts", "delete", merged, "merged", "--yes", "--json")
    assert (absent.code, absent.json["error"]["code"]) == (2, "not_found")
    assert loradeck("artifacts", "delete", merged, "--yes", "--json").json == {"freed_bytes": 0}


def test_delete_takes_the_step_that_is_named_and_never_all_for_an_id_without_its_kind(
    loradeck: Command, merged: int, server: Served, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(server.home)
    for step in (4, 8):
        path = f"checkpoints/step-{step}"
        (folder.job(merged) / path).mkdir(parents=True)
        (folder.job(merged) / path / META).write_text(json.dumps({"files": []}))
        with database.write() as session:
            record(session, folder, merged, step, {"kind": "checkpoint", "path": path})
    made = {each["step"]: each["id"] for each in loradeck("artifacts", "list", merged, "--json").json}
    unnamed = loradeck("artifacts", "delete", merged, "--id", made[4], "--yes", "--json")
    assert (unnamed.code, unnamed.json["error"]["field"]) == (2, "kind")
    absent = loradeck("artifacts", "delete", merged, "checkpoint", "--step", 5, "--yes")
    assert "has no checkpoint at step 5" in absent.err
    assert "checkpoint at step 4, checkpoint at step 8" in absent.err
    assert len(loradeck("artifacts", "list", merged, "--json").json) == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = loradeck("artifacts", "delete", merged, "checkpoint", "--step", 4)
    assert "Delete the checkpoint at step 4 of job" in done.err
    assert {each["step"] for each in loradeck("artifacts", "list", merged, "--json").json} == {None, 8}
    assert loradeck("artifacts", "delete", merged, "--yes").code == 0


def test_delete_never_takes_what_a_job_may_need(loradeck: Command, merged: int) -> None:
    export = loradeck("export", merged, "--json").json["id"]
    refused = loradeck("artifacts", "delete", merged, "--yes")
    assert refused.code == 1
    assert f"Job {export} " in refused.err
    assert loradeck("jobs", "cancel", export).code == 0


def _adapter(folder: Path, base: Path) -> Path:
    """What peft's save_pretrained leaves of rank 2 on the base's first matrix, beside a checkpoint of a trainer."""
    name, (out, into) = next((n, s) for n, s in read_shapes(base / "model.safetensors").items() if len(s) == 2)
    module = f"base_model.model.{name.removesuffix('.weight')}"
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "r": 2}
    (folder / "checkpoint-1").mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = safetensors({f"{module}.lora_A.weight": [2, into], f"{module}.lora_B.weight": [out, 2]})
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_an_adapter_is_taken_in_from_a_folder_or_a_zip(
    loradeck: Command, spec: Path, prepared: dict[str, Path], tmp_path: Path
) -> None:
    mine = _adapter(tmp_path / "mine", prepared["model"])
    taken = loradeck("adapters", "import", mine, "--base-model", "tiny", "--name", "mine", "--json")
    assert taken.code == 0, taken.out
    assert (taken.json["name"], taken.json["summary"]["tensors"]) == ("mine", 2)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for file in mine.glob("adapter_*"):
            archive.write(file, f"mine/{file.name}")
    again = loradeck("adapters", "import", tmp_path / "mine.zip", "--base-model", "tiny", "--json")
    assert again.json["status"] == "completed"
    (artifact,) = loradeck("artifacts", "list", again.json["id"], "--json").json
    assert artifact["kind"] == "adapter"


def test_what_is_no_adapter_is_said(loradeck: Command, spec: Path, tmp_path: Path) -> None:
    nothing = loradeck("adapters", "import", tmp_path / "nothing", "--base-model", "tiny", "--json")
    assert (nothing.code, nothing.json["error"]["field"]) == (2, "path")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    unknown = loradeck("adapters", "import", tmp_path / "a.zip", "--base-model", "nobody", "--json")
    assert (unknown.code, unknown.json["error"]["field"]) == (2, "base_model")
    failed = loradeck("adapters", "import", tmp_path / "a.zip", "--base-model", "tiny")
    assert failed.code == 1
    assert "The file is not a zip that can be read" in failed.out


def test_prompts_are_kept_and_let_go(loradeck: Command) -> None:
    kept = loradeck("samples", "add", "Say hello.", "--json").json
    assert "Say hello." in loradeck("samples", "list").out
    assert loradeck("samples", "remove", kept["id"]).code == 0
    assert loradeck("samples", "remove", kept["id"]).code == 2
    assert loradeck("samples", "add", " ").code == 2


def test_a_conversation_comes_from_a_file_or_standard_input(
    loradeck: Command, submitted: dict[str, Any], tmp_path: Path, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
    asked = [*talk, {"role": "user", "content": "And now?"}]
    job, file = submitted["id"], tmp_path / "talk.json"
    file.write_text(json.dumps(talk))
    wrong = loradeck("generate", job, "--messages", file, "--base", "--json")
    assert (wrong.code, wrong.json["error"]["field"]) == (2, "messages")
    for text in ("{", "{}"):
        file.write_text(text)
        assert loradeck("generate", job, "--messages", file, "--base").code == 2
    summary = {"text": "Now.", "tokens": 2, "stop_reason": "eos"}
    for source, content in ((str(file), asked), ("-", asked)):
        file.write_text(json.dumps(content))
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(content)))
        act(_next_id(loradeck, job), "starting", "running", "completed", summary=summary)
        done = loradeck("generate", job, "--messages", source, "--base")
        assert (done.code, done.out) == (0, "Now.\n")


def _next_id(loradeck: Command, known: int) -> int:
    """Of the job that is queued next."""
    while loradeck("jobs", "show", known + 1).code == 0:
        known += 1
    return known + 1
