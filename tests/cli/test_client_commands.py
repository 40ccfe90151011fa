"""The client commands: one JSON document on stdout, exit codes 0, 1 and 2, and messages that name the field."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.queries import queued_jobs
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from tests.cli.conftest import Command
from tests.live_server import Served
from tests.receipts import write_receipt

PROMISED = {"id", "name", "kind", "status", "phase", "step", "max_steps", "eta_seconds", "error", "spec", "summary",
            "attempts"}  # fmt: skip
Submitted = dict[str, Any]
Move = Callable[..., Job]
Act = Callable[..., None]


def test_datasets(loradeck: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nQ,A ☃\nQ2,A2\n")
    added = loradeck("datasets", "add", path, "--name", "from the shell", "--json")
    assert added.code == 0
    assert added.json.keys() >= {"id", "name", "format", "rows", "sha256"}
    assert (added.json["name"], added.json["format"], added.json["rows"]) == ("from the shell", "prompt_completion", 2)
    assert added.json["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert added.json["id"] in [each["id"] for each in loradeck("datasets", "list", "--json").json]
    rows = loradeck("datasets", "preview", "from the shell", "--json").json
    assert [row["raw"]["completion"] for row in rows["rows"]] == ["A ☃", "A2"]
    (row,) = loradeck("datasets", "preview", added.json["id"], "--row", 2, "--json").json["rows"]
    assert (row["row"], row["raw"]) == (2, {"prompt": "Q2", "completion": "A2"})
    shown = loradeck("datasets", "preview", "from the shell", "--row", 2).out
    assert yaml.safe_load(shown) == {"row": 2, "raw": {"prompt": "Q2", "completion": "A2"}}
    assert "from the shell" in loradeck("datasets", "list").out
    again = loradeck("datasets", "add", path, "--name", "from the shell")
    assert (again.code, again.out) == (2, "")
    assert "error: name: A dataset named 'from the shell' is registered already." in again.err
    assert "Give another name." in again.err


def test_columns_of_a_dataset_are_mapped_by_hand(loradeck: Command, tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question,answer\nQ,A\n")
    refused = loradeck("datasets", "add", path)
    assert refused.code == 2
    assert "the first row has the fields 'question', 'answer'" in refused.err
    assert "dolly (instruction, [context], response, [system])" in refused.err
    mapping = ("--column", "instruction=question", "--column", "response=answer")
    added = loradeck("datasets", "add", path, *mapping, "--json")
    assert (added.code, added.json["format"]) == (0, "dolly")
    (row,) = loradeck("datasets", "preview", "faq", "--json").json["rows"]
    assert row["raw"] == {"question": "Q", "answer": "A"}
    assert [turn["content"] for turn in row["messages"]] == ["Q", "A"]
    wrong = loradeck("datasets", "add", path, "--column", "prompt=ask", "--name", "wrong", "--json")
    assert (wrong.code, wrong.json["error"]["field"]) == (2, "column")
    assert loradeck("datasets", "add", path, *mapping, "--name", "7").err.startswith("error: name: '7' is a number")


@pytest.mark.parametrize(
    ("filename", "content", "message"),
    [
        ("a.jsonl", b"", "file: The dataset is empty"),
        ("a.jsonl", b'{"instruction": "Q", "output": "A"}\n{oops', "file: row 2: is not valid JSON"),
        ("a.jsonl", b'{"instruction": "Q", "output": ""}', "file: row 1: output: has no answer"),
        ("a.jsonl", b"\0", "file: The file is not text"),
        ("a.txt", b"x", "file: 'a.txt' is not a data file"),
        ("a.jsonl", b"x" * 100_001, "is larger than the limit of 100,000 bytes"),
    ],
)
def test_unusable_datasets(loradeck: Command, tmp_path: Path, filename: str, content: bytes, message: str) -> None:
    (tmp_path / filename).write_bytes(content)
    refused = loradeck("datasets", "add", tmp_path / filename, "--json")
    assert (refused.code, set(refused.json)) == (2, {"error"})
    assert message in refused.err


def test_files_that_are_not_there(loradeck: Command, tmp_path: Path) -> None:
    for command, field in ((("datasets", "add"), "file"), (("jobs", "submit"), "spec")):
        refused = loradeck(*command, tmp_path / "gone", "--json")
        assert (refused.code, set(refused.json)) == (2, {"error"})
        assert f"error: {field}: {tmp_path / 'gone'} is not a file." in refused.err


def test_models(loradeck: Command, spec: Path, prepared: dict[str, Path], tmp_path: Path) -> None:
    (model,) = [each for each in loradeck("models", "list", "--json").json if each["name"] == "tiny"]
    assert model.keys() >= {"id", "name", "path", "architecture", "parameters", "status"}
    assert (model["path"], model["architecture"]) == (str(prepared["model"]), "LlamaForCausalLM")
    assert "tiny" in loradeck("models", "list").out
    refused = loradeck("models", "add", tmp_path, "--json")
    assert (refused.code, set(refused.json)) == (2, {"error"})
    assert "error: path: " in refused.err
    assert "LORADECK_LOCAL_ROOTS" in refused.err
    assert loradeck("models", "add", "not a model").code == 2
    again = loradeck("models", "add", prepared["model"], "--json")
    assert (again.code, again.json["error"]["field"]) == (2, "name")
    assert "name: A base model named 'tiny' is registered already." in again.err
    assert spec.exists()


def test_a_job_is_submitted_shown_and_listed(loradeck: Command, submitted: Submitted, spec: Path) -> None:
    assert submitted.keys() >= PROMISED
    assert (submitted["status"], submitted["spec"]["r"]) == ("queued", 4)
    assert loradeck("jobs", "show", submitted["id"], "--json").json == submitted
    assert submitted in loradeck("jobs", "list", "--json").json
    assert loradeck("jobs", "submit", spec, "--name", "mine", "--json").json["name"] == "mine"
    shown = loradeck("jobs", "show", submitted["id"])
    assert "status: queued" in shown.out
    assert "tiny on small" in loradeck("jobs", "list", "--status", "queued").out


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("r: 0\nlearning_rate: 0", ["r", "learning_rate"]),
        ("lr: 1", ["lr"]),
        ("target_modules: [query]", ["target_modules"]),
        ("base_model: gone\ndataset: gone", ["base_model", "dataset"]),
        ("task: nothing", ["task"]),
    ],
)
def test_an_impossible_spec_names_every_field(loradeck: Command, spec: Path, text: str, fields: list[str]) -> None:
    before = loradeck("jobs", "list", "--json").json
    spec.write_text(yaml.safe_dump({"base_model": "tiny", "dataset": "small", **yaml.safe_load(text)}))
    refused = loradeck("jobs", "submit", spec, "--json")
    assert (refused.code, set(refused.json)) == (2, {"error"})
    for field in fields:
        assert f"error: {field}: " in refused.err
    assert loradeck("jobs", "list", "--json").json == before


@pytest.mark.parametrize("content", [b"r: [", b"\xff\xfe", b"- a", b""])
def test_a_spec_that_is_no_yaml_mapping(loradeck: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spec.yaml").write_bytes(content)
    refused = loradeck("jobs", "submit", tmp_path / "spec.yaml")
    assert refused.code == 2
    assert refused.err.startswith(("error: yaml: ", "error: spec: "))


@pytest.mark.parametrize(
    "command",
    ["jobs clone 9999", "jobs rerun 9999", "jobs receipt 9999", "jobs move 9999 --to 1",
     "jobs show 9999", "jobs cancel 9999", "jobs wait 9999", "jobs metrics 9999", "jobs logs 9999",
     f"jobs show {10**30}", "artifacts list 9999", "merge 9999", "generate 9999 --prompt x", "datasets preview gone"],
)  # fmt: skip
def test_what_is_not_there(loradeck: Command, command: str) -> None:
    missing = loradeck(*command.split())
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.startswith("error: There is no ")


@pytest.mark.parametrize(
    "command", ["", "jobs", "nothing", "jobs show", "jobs show x", "jobs list --size 0",
                "jobs move 1", "jobs move 1 --to 0", "jobs list --status gone",
                "datasets preview small --row 0", "events --after -1", "generate 1", "serve --port 70000"]
)  # fmt: skip
def test_bad_usage(loradeck: Command, command: str) -> None:
    assert loradeck(*command.split()).code == 2


def test_cancel(loradeck: Command, submitted: Submitted) -> None:
    cancelled = loradeck("jobs", "cancel", submitted["id"], "--json")
    assert (cancelled.code, cancelled.json["status"]) == (0, "cancelled")
    again = loradeck("jobs", "cancel", submitted["id"], "--json")
    assert (again.code, set(again.json)) == (1, {"error"})
    assert again.json["error"]["possible"] == ["retry", "clone"]
    assert "has already ended (cancelled)" in again.err
    assert "Possible now: retry, clone." in again.err


def test_a_job_that_was_stopped_and_saved_says_so_to_people(
    loradeck: Command, submitted: Submitted, move: Move
) -> None:
    move(submitted["id"], "starting", "running", "cancelled", summary={"stopped_by_user": True})
    assert "status: stopped, saved\n" in loradeck("jobs", "show", submitted["id"]).out
    assert "stopped, saved" in loradeck("jobs", "list").out
    assert loradeck("jobs", "show", submitted["id"], "--json").json["status"] == "cancelled"


def test_clone(loradeck: Command, submitted: Submitted) -> None:
    clone = loradeck("jobs", "clone", submitted["id"], "--json").json
    assert (clone["status"], clone["spec"], clone["name"]) == ("queued", submitted["spec"], submitted["name"])
    assert clone["id"] != submitted["id"]
    assert loradeck("jobs", "clone", submitted["id"], "--name", "again", "--json").json["name"] == "again"


def test_rerun(loradeck: Command, submitted: Submitted, move: Move, database: Database, server: Served) -> None:
    refused = loradeck("jobs", "rerun", submitted["id"])
    assert (refused.code, refused.out) == (1, "")
    assert "left no receipt" in refused.err
    assert f"loradeck jobs clone {submitted['id']}" in refused.err
    job = move(submitted["id"], "starting", "running", "completed")
    with database.read() as session:
        model, dataset = session.get_one(BaseModel, job.base_model_id), session.get_one(Dataset, job.dataset_id)
        write_receipt(DataFolder(server.home), job, model, dataset)
    again = loradeck("jobs", "rerun", submitted["id"], "--name", "again", "--json").json
    assert (again["status"], again["name"], again["source_job_id"]) == ("queued", "again", submitted["id"])
    assert again["spec"] == submitted["spec"]
    assert loradeck("jobs", "receipt", submitted["id"]).json["spec"] == submitted["spec"]


def test_move(loradeck: Command, submitted: Submitted, database: Database) -> None:
    moved = loradeck("jobs", "move", submitted["id"], "--to", 1, "--json")
    assert (moved.code, moved.json["id"]) == (0, submitted["id"])
    with database.read() as session:
        assert queued_jobs(session)[0].id == submitted["id"]
    loradeck("jobs", "cancel", submitted["id"])
    refused = loradeck("jobs", "move", submitted["id"], "--to", 1, "--json")
    assert (refused.code, set(refused.json)) == (1, {"error"})


def test_cancel_with_save_asks_for_the_adapter(loradeck: Command, submitted: Submitted, move: Move) -> None:
    move(submitted["id"], "starting", "running")
    asked = loradeck("jobs", "cancel", submitted["id"], "--save", "--json")
    assert (asked.json["status"], asked.json["cancel_requested"]) == ("running", False)


@pytest.mark.parametrize(
    ("end", "code"), [(("starting", "completed"), 0), (("starting", "failed"), 1), (("cancelled",), 1)]
)
def test_wait_prints_the_job_in_any_case(
    loradeck: Command, submitted: Submitted, act: Act, end: tuple[str, ...], code: int
) -> None:
    act(submitted["id"], *end)
    waited = loradeck("jobs", "wait", submitted["id"], "--json")
    assert (waited.code, waited.json["status"]) == (code, end[-1])


def test_wait_ends_with_its_time(loradeck: Command, submitted: Submitted) -> None:
    began = time.monotonic()
    waited = loradeck("jobs", "wait", submitted["id"], "--timeout", 0.2, "--json")
    assert time.monotonic() - began < 5
    assert (waited.code, waited.json["status"]) == (1, "queued")


def test_metrics(loradeck: Command, submitted: Submitted, database: Database) -> None:
    with database.write() as session:
        for step in (2, 1):
            put_metrics(session, submitted["id"], step, 0.0, {"loss": step / 2, "grad_norm": None})
    metrics = loradeck("jobs", "metrics", submitted["id"], "--json")
    assert metrics.json == {"series": {"grad_norm": [[1, None], [2, None]], "loss": [[1, 0.5], [2, 1.0]]}}
    named = loradeck("jobs", "metrics", submitted["id"], "--name", "loss")
    assert named.out == "loss\t1\t0.5\nloss\t2\t1.0\n"


def test_logs(loradeck: Command, submitted: Submitted, server: Served) -> None:
    assert loradeck("jobs", "logs", submitted["id"]).out == ""
    path = DataFolder(server.home).job(submitted["id"]) / "train.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("one\nhalf a ☃".encode()[:-1])
    assert loradeck("jobs", "logs", submitted["id"]).out == "one\nhalf a \ufffd"


def test_following_a_log_ends_with_its_job_and_loses_no_character(
    loradeck: Command, submitted: Submitted, server: Served, move: Move
) -> None:
    path = DataFolder(server.home).job(submitted["id"]) / "train.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"step {n} ☃\n" for n in range(30)).encode() + b"\xff\xfe broken\n"
    path.touch()
    move(submitted["id"], "starting", "running")

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for start in range(0, len(content), 5):  # cuts characters in the middle
                file.write(content[start : start + 5])
                time.sleep(0.01)
        move(submitted["id"], "completed")

    writer = threading.Thread(target=write)
    writer.start()
    followed = loradeck("jobs", "logs", submitted["id"], "--follow")
    writer.join()
    assert (followed.code, followed.out) == (0, content.decode(errors="replace"))


def test_events_of_a_job_from_its_first_to_its_last(
    loradeck: Command, submitted: Submitted, act: Act, database: Database
) -> None:
    job_id = submitted["id"]
    with database.write() as session:
        log.append(session, EventKind.LOG, {"lines": ["a\n\nevent: finished\u2028"]}, job_id=job_id)
        log.append(session, EventKind.LOG, {"lines": ["of another"]}, job_id=job_id + 1)
    act(job_id, "cancelled")
    streamed = loradeck("events", "--job", job_id, "--json")
    events = [json.loads(line) for line in streamed.out.split("\n")[:-1]]
    assert streamed.code == 0
    assert all(event.keys() == {"id", "job_id", "kind", "step", "time", "data"} for event in events)
    assert [event["kind"] for event in events] == ["status", "log", "status", "finished"]
    assert {event["job_id"] for event in events} == {job_id}
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    assert events[1]["data"] == {"lines": ["a\n\nevent: finished\u2028"]}
    rest = loradeck("events", "--job", job_id, "--after", events[1]["id"])
    assert [json.loads(line)["kind"] for line in rest.out.splitlines()] == ["status", "finished"]


@pytest.fixture
def with_adapter(database: Database, submitted: Submitted, server: Served) -> Submitted:
    """A job with an adapter of one file."""
    folder = DataFolder(server.home)
    target = folder.job(submitted["id"]) / "adapter"
    target.mkdir(parents=True)
    (target / "adapter_config.json").write_text("{}")
    files = [{"path": "adapter_config.json", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}]
    (target / META).write_text(json.dumps({"files": files}))
    with database.write() as session:
        record(session, folder, submitted["id"], None, {"kind": "adapter", "path": "adapter"})
    return submitted


def test_artifacts_are_listed_and_downloaded_whole(loradeck: Command, with_adapter: Submitted, tmp_path: Path) -> None:
    (artifact,) = loradeck("artifacts", "list", with_adapter["id"], "--json").json
    assert artifact.keys() >= {"kind", "bytes", "files", "verified"}
    assert (artifact["kind"], artifact["bytes"]) == ("adapter", sum(file["bytes"] for file in artifact["files"]))
    (names, values) = (line.split() for line in loradeck("artifacts", "list", with_adapter["id"]).out.splitlines())
    assert dict(zip(names, values, strict=True)) == {
        "kind": "adapter", "step": "-", "bytes": str(artifact["bytes"]), "verified": "hashes", "kept": "no",
    }  # fmt: skip
    target = tmp_path / "adapter.zip"
    saved = loradeck("artifacts", "download", with_adapter["id"], "adapter", "-o", target, "--json")
    known = {name: artifact[name] for name in ("kind", "bytes", "files", "verified")}
    assert saved.json == {**known, "path": str(target), "zip_bytes": target.stat().st_size}
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        sizes = {file.filename.partition("/")[2]: file.file_size for file in archive.infolist()}
        del sizes["SHA256SUMS"]
        assert sizes == {file["path"]: file["bytes"] for file in artifact["files"]}
    assert [path.name for path in tmp_path.glob("adapter*")] == ["adapter.zip"]


def test_a_download_that_fails_leaves_no_file(loradeck: Command, with_adapter: Submitted, tmp_path: Path) -> None:
    target = tmp_path / "out" / "x.zip"
    target.parent.mkdir()
    missing = loradeck("artifacts", "download", with_adapter["id"], "merged", "-o", target)
    assert (missing.code, missing.out) == (2, "")
    assert "It has: adapter." in missing.err
    assert list(target.parent.iterdir()) == []
    for output in (tmp_path, tmp_path / "gone" / "x.zip"):
        refused = loradeck("artifacts", "download", with_adapter["id"], "adapter", "-o", output)
        assert refused.code == 2
        assert "error: output: " in refused.err


def test_merge(loradeck: Command, with_adapter: Submitted, act: Act) -> None:
    bad = loradeck("merge", with_adapter["id"], "--dtype", "int3", "--json")
    assert (bad.code, set(bad.json)) == (2, {"error"})
    assert "error: dtype: " in bad.err
    merge = loradeck("merge", with_adapter["id"], "--json").json
    assert (merge["kind"], merge["status"], merge["spec"]["dtype"]) == ("merge", "queued", "bf16")
    act(merge["id"] + 1, "starting", "failed")
    waited = loradeck("merge", with_adapter["id"], "--wait", "--json")
    assert (waited.code, waited.json["status"]) == (1, "failed")


def test_merge_without_an_adapter_fails(loradeck: Command, submitted: Submitted) -> None:
    refused = loradeck("merge", submitted["id"], "--json")
    assert (refused.code, set(refused.json)) == (1, {"error"})
    assert "Wait until it is completed." in refused.err


def test_generate_prints_the_answer(loradeck: Command, submitted: Submitted, act: Act) -> None:
    summary = {"text": "Aye ☃", "tokens": 3, "stop_reason": "end_of_turn", "more": 1}
    act(submitted["id"] + 1, "starting", "completed", summary=summary)
    answer = loradeck("generate", submitted["id"], "--prompt", "hello", "--base", "--json")
    assert (answer.code, answer.json) == (0, {"text": "Aye ☃", "tokens": 3, "stop_reason": "end_of_turn"})
    act(submitted["id"] + 2, "starting", "completed", summary=summary)
    chosen = ("--temperature", 0.5, "--top-p", 0.9, "--seed", 7, "--system", "Be brief.")
    assert loradeck("generate", submitted["id"], "--prompt", "hello", "--base", *chosen).code == 0
    spec = loradeck("jobs", "show", submitted["id"] + 2, "--json").json["spec"]
    assert (spec["temperature"], spec["top_p"], spec["seed"], spec["system"]) == (0.5, 0.9, 7, "Be brief.")


def test_generate_that_fails_prints_its_job(loradeck: Command, submitted: Submitted, act: Act) -> None:
    act(submitted["id"] + 1, "starting", "failed")
    answer = loradeck("generate", submitted["id"], "--prompt", "hello", "--base", "--json")
    assert (answer.code, answer.json["status"]) == (1, "failed")
    empty = loradeck("generate", submitted["id"], "--prompt", " ", "--base")
    assert empty.code == 2
    assert "error: prompt: " in empty.err


def test_gpu_without_a_worker_is_not_available(loradeck: Command) -> None:
    reading = loradeck("gpu", "--json")
    assert reading.code == 0
    assert (reading.json["available"], reading.json["devices"], reading.json["host"]) == (False, [], None)
    assert "The worker does not run" in loradeck("gpu").out


def test_without_a_server_the_advice_says_how_to_start_one(
    loradeck: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path))
    absent = loradeck("jobs", "list", "--json")
    assert (absent.code, set(absent.json)) == (1, {"error"})
    assert "loradeck serve" in absent.err
    stale = {"url": "http://127.0.0.1:9", "token": "x", "pid": 1}
    (tmp_path / "server.json").write_text(json.dumps(stale))
    gone = loradeck("jobs", "list", "--json")
    assert (gone.code, set(gone.json)) == (1, {"error"})
    assert "does not answer" in gone.err
    assert "loradeck serve" in gone.err


def test_a_dashboard_elsewhere_is_asked_by_url_and_token(
    loradeck: Command, server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path))
    monkeypatch.setenv("LORADECK_URL", f"{server.url}/")
    monkeypatch.setenv("LORADECK_TOKEN", server.token)
    assert loradeck("models", "list", "--json").code == 0
    monkeypatch.setenv("LORADECK_TOKEN", "wrong")
    refused = loradeck("models", "list", "--json")
    assert (refused.code, set(refused.json)) == (1, {"error"})
    assert "This token is not valid." in refused.err


@pytest.mark.parametrize(
    ("url", "token", "fields"),
    [
        ("", "x", ["URL"]),
        ("box.lan:8000", "x", ["URL"]),
        ("http//box.lan", "x", ["URL"]),
        ("http://", "x", ["URL"]),
        ("http://box.lan:port", "x", ["URL"]),
        ("ftp://box.lan", "x", ["URL"]),
        ("http://box.lan/?x=1", "x", ["URL"]),
        ("http://127.0.0.1:9", "", ["TOKEN"]),
        ("http://127.0.0.1:9", None, ["TOKEN"]),
        ("http://127.0.0.1:9", "to\nken", ["TOKEN"]),
        ("http://127.0.0.1:9", "☃", ["TOKEN"]),
        ("nowhere", "", ["URL", "TOKEN"]),
    ],
)
def test_an_address_or_token_that_cannot_be_is_named(
    loradeck: Command, monkeypatch: pytest.MonkeyPatch, url: str, token: str | None, fields: list[str]
) -> None:
    monkeypatch.setenv("LORADECK_URL", url)
    if token is not None:
        monkeypatch.setenv("LORADECK_TOKEN", token)
    refused = loradeck("jobs", "list", "--json")
    assert (refused.code, set(refused.json)) == (2, {"error"})
    named = [line.split(": ")[1] for line in refused.err.splitlines() if line.startswith("error: ")]
    assert named == [f"LORADECK_{field}" for field in fields]


@pytest.mark.parametrize(("name", "value"), [("PORT", "many"), ("ALLOWED_HOSTS", "box.lan"), ("MAX_UPLOAD_BYTES", "0")])
def test_a_setting_that_is_not_valid_is_named(
    loradeck: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LORADECK_{name}", value)
    for command in ("jobs list", "doctor", "serve"):
        refused = loradeck(*command.split())
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"error: LORADECK_{name}: ")


def test_a_failure_is_one_json_document_too(loradeck: Command) -> None:
    refused = loradeck("jobs", "show", 99999, "--json")
    assert refused.code == 2
    assert json.loads(refused.out)["error"] == {"code": "not_found", "message": "There is no job 99999."}
    assert loradeck("jobs", "show", 99999).out == ""


def test_events_of_what_can_say_nothing_more_end(loradeck: Command, submitted: Submitted, act: Act) -> None:
    assert loradeck("events", "--job", 99999).code == 2
    act(submitted["id"], "cancelled")
    everything = loradeck("events", "--job", submitted["id"]).out.splitlines()
    behind = loradeck("events", "--job", submitted["id"], "--after", json.loads(everything[-1])["id"])
    assert (behind.code, behind.out) == (0, "")


@pytest.mark.parametrize("option", ["--limit", "--size"])
def test_a_list_that_is_cut_says_so_beside_its_output(
    loradeck: Command, submitted: dict[str, Any], spec: Path, option: str
) -> None:
    assert loradeck("jobs", "submit", spec).code == 0  # so that there are two
    cut = loradeck("jobs", "list", option, 1, "--json")
    whole = loradeck("jobs", "list", option, 500, "--json")
    assert len(cut.json) == 1
    assert f"1 of {len(whole.json)} jobs shown (page 1 of {len(whole.json)}); see --limit and --page." in cut.err
    assert whole.err == ""


def test_a_shown_job_reads_as_yaml(loradeck: Command, submitted: dict[str, Any]) -> None:
    shown = yaml.safe_load(loradeck("jobs", "show", submitted["id"]).out)
    assert (shown["id"], shown["name"]) == (submitted["id"], submitted["name"])
    assert shown["spec"] == submitted["spec"]


def test_a_failed_job_shows_its_whole_message_on_one_line(
    loradeck: Command, submitted: dict[str, Any], move: Move
) -> None:
    message = "a long message about what went wrong " * 8
    error = {"kind": "child_died", "message": message.strip(), "advice": None, "log_tail": ["one", "two"]}
    move(submitted["id"], "starting", "failed", error=error)
    shown = loradeck("jobs", "show", submitted["id"]).out
    assert f"message: {message.strip()}\n" in shown
    assert yaml.safe_load(shown)["error"] == error
