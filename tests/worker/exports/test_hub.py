"""Uploads to a hub on this machine: what arrives is what was saved, and each failure says what the hub holds then."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from app.core.artifacts.store import read_files
from app.core.errors import JobCancelled
from tests.worker.contexts import make_context, read_records
from tests.worker.upload_hub import READER, WRITER, Refusal, Repo, UploadHub
from tests.worker.upload_hub import upload_hub as upload_hub
from worker.artifacts.folders import publish_artifact
from worker.context import JobContext, StopRequest
from worker.exports.hub import run_upload
from worker.exports.hub_errors import HubUploadError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # within the hub's client

CARD = "---\nlibrary_name: peft\nbase_model: my model\ntags: [lora]\n---\n\n# Mine\n"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A published folder: two large files, small ones, one in a folder of its own."""
    with publish_artifact(tmp_path / "adapter", {"kind": "adapter"}, 0) as folder:
        (folder / "adapter_model.safetensors").write_bytes(os.urandom(300_000))
        (folder / "tokenizer.json").write_bytes(os.urandom(5_000))
        (folder / "adapter_config.json").write_text("{}")
        (folder / "README.md").write_text(CARD)
        (folder / "notes").mkdir()
        (folder / "notes" / "empty.txt").write_text("")
    return tmp_path / "adapter"


@pytest.fixture
def upload(tmp_path: Path, adapter: Path) -> Any:
    """The context of an upload job; keywords override its payload."""

    def upload(**more: Any) -> JobContext:
        payload = {
            "format": "hub", "kind": "adapter", "repo": "me/mine", "private": True, "existing": False, "name": "mine",
            "folder": str(adapter), "files": read_files(adapter), "base_name": "my model", "base_hub_id": None, **more,
        }  # fmt: skip
        return make_context(tmp_path / "job", "export", payload)

    return upload


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


@pytest.mark.parametrize("part_bytes", [None, 100_000])
def test_every_file_arrives_as_it_was_saved(
    upload_hub: UploadHub, upload: Any, adapter: Path, part_bytes: int | None
) -> None:
    upload_hub.part_bytes = part_bytes
    context = upload()
    summary = run_upload(context)
    repo = upload_hub.repos["me/mine"]
    assert repo.private
    saved = {str(file.relative_to(adapter)): file.read_bytes() for file in adapter.rglob("*") if file.is_file()}
    theirs = _hashes(repo.files)
    assert theirs.keys() == {*saved, ".gitattributes"}
    assert {path: digest for path, digest in _hashes(saved).items() if path != "README.md"}.items() <= theirs.items()
    assert repo.large == {"adapter_model.safetensors", "tokenizer.json"}
    assert (summary["repo"], summary["commit"], summary["url"]) == ("me/mine", repo.head, f"{upload_hub.url}/me/mine")
    assert (summary["files"], summary["private"], summary["already_there"]) == (len(saved), True, False)
    phases = [record.data["phase"] for record in read_records(context) if record.kind == "phase"]
    assert phases == ["verify", "upload", "commit"]
    assert sum(path.endswith(("verify", "complete")) for _, path in upload_hub.requests) == (4 if part_bytes else 2)


@pytest.mark.parametrize(("hub_id", "named"), [(None, False), ("org/base", True)])
def test_the_card_names_a_base_that_the_hub_knows_or_none(
    upload_hub: UploadHub, upload: Any, hub_id: str | None, named: bool
) -> None:
    card = CARD.replace("my model", hub_id) if hub_id else CARD
    files = [each for each in upload().payload["files"] if each["path"] != "README.md"]
    folder = Path(upload().payload["folder"])
    (folder / "README.md").write_text(card)
    run_upload(upload(files=files, base_hub_id=hub_id, private=False))
    sent = upload_hub.repos["me/mine"].files["README.md"].decode()
    assert ("base_model: org/base" in sent) is named
    assert "my model" not in sent
    assert sent.endswith("tags: [lora]\n---\n\n# Mine\n")
    assert not upload_hub.repos["me/mine"].private


def test_a_card_of_peft_names_no_folder_of_this_machine(upload_hub: UploadHub, upload: Any, adapter: Path) -> None:
    head = "base_model: /home/me/tiny\nlibrary_name: peft\ntags:\n- base_model:adapter:/home/me/tiny\n- lora\n"
    card = f"---\n{head}---\nx\n"
    files = [each for each in upload().payload["files"] if each["path"] != "README.md"]
    (adapter / "README.md").write_text(card)
    run_upload(upload(files=files))
    sent = upload_hub.repos["me/mine"].files["README.md"].decode()
    assert sent == "---\nlibrary_name: peft\ntags:\n- lora\n---\nx\n"


def test_a_gguf_without_a_card_gets_one(upload_hub: UploadHub, upload: Any, adapter: Path) -> None:
    (adapter / "README.md").unlink()
    files = [each for each in upload().payload["files"] if each["path"] != "README.md"]
    run_upload(upload(kind="gguf", files=files, base_hub_id="org/base"))
    assert "base_model: org/base\ntags: [gguf]" in upload_hub.repos["me/mine"].files["README.md"].decode()
    run_upload(upload(repo="me/adapter", files=files))
    assert "library_name: peft\ntags: [lora]" in upload_hub.repos["me/adapter"].files["README.md"].decode()


def _refused(context: JobContext) -> str:
    with pytest.raises(HubUploadError) as refused:
        run_upload(context)
    assert refused.value.advice
    return refused.value.message


def test_without_a_token_nothing_is_asked(upload_hub: UploadHub, upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "no hub token" in _refused(upload())
    assert upload_hub.requests == []


@pytest.mark.parametrize(
    ("token", "repo", "said"),
    [
        ("hf_" + "x" * 30, "me/mine", "does not accept the token (401)"),
        (READER, "me/mine", "no right to write to me/mine (403)"),
        (WRITER, "stranger/mine", "no right to write to stranger/mine (403)"),
    ],
)
def test_a_token_that_may_not_write_is_said(
    upload_hub: UploadHub, upload: Any, monkeypatch: pytest.MonkeyPatch, token: str, repo: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    message = _refused(upload(repo=repo))
    assert said in message
    assert "Nothing was changed on the hub." in message
    assert token not in message
    assert upload_hub.repos == {}


def test_a_repository_that_holds_files_is_left_alone_unless_asked_for(upload_hub: UploadHub, upload: Any) -> None:
    theirs = {"adapter_config.json": b"old", "other.txt": b"stays"}
    upload_hub.repos["me/mine"] = Repo(private=True, commits=[theirs])
    assert "exists and holds 2 files. Nothing was sent." in _refused(upload())
    assert upload_hub.repos["me/mine"].commits == [theirs]
    run_upload(upload(existing=True))
    files = upload_hub.repos["me/mine"].files
    assert (files["adapter_config.json"], files["other.txt"]) == (b"{}", b"stays")


def test_a_private_upload_never_lands_in_a_public_repository(upload_hub: UploadHub, upload: Any) -> None:
    upload_hub.repos["me/mine"] = Repo(private=False)
    assert "is public, and a private upload was asked for. Nothing was sent." in _refused(upload(existing=True))
    assert len(upload_hub.repos["me/mine"].commits) == 1


def test_somebody_elses_private_repository_is_said_as_that(upload_hub: UploadHub, upload: Any) -> None:
    upload_hub.repos["stranger/mine"] = Repo(private=True)
    assert "somebody else's" in _refused(upload(repo="stranger/mine"))
    upload_hub.repos["stranger/open"] = Repo(private=False)
    message = _refused(upload(repo="stranger/open", private=False, existing=True))
    assert "no right to write to stranger/open (403)" in message


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "(404)"), (413, "files of this size"), (429, "takes no more requests"), (503, "a fault of its own (503)")],
)
@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "objects/batch", "/commit/"])
def test_what_the_hub_refuses_is_said_with_what_it_holds_then(
    upload_hub: UploadHub, upload: Any, status: int, said: str, where: str
) -> None:
    def refuse(_method: str, path: str) -> None:
        if where in path:
            raise Refusal(status, "for a reason")

    upload_hub.before = refuse
    message = _refused(upload())
    assert said in message
    state = {"/api/repos/create": "Nothing was changed", "/commit/": "not known"}.get(where, "was created and is empty")
    assert state in message
    if where != "/api/repos/create":
        assert list(upload_hub.repos["me/mine"].files) == [".gitattributes"]
    upload_hub.before = lambda _method, _path: None
    assert run_upload(upload())["commit"] == upload_hub.repos["me/mine"].head


@pytest.mark.parametrize("part_bytes", [None, 100_000])
def test_an_upload_that_breaks_off_in_mid_file_leaves_no_file_and_goes_on(
    upload_hub: UploadHub, upload: Any, part_bytes: int | None
) -> None:
    upload_hub.part_bytes, upload_hub.cut_after = part_bytes, 50_000
    message = _refused(upload())
    assert "broke off" in message
    assert "was created and is empty" in message
    assert "signed" not in message
    assert list(upload_hub.repos["me/mine"].files) == [".gitattributes"]
    upload_hub.cut_after = None
    assert run_upload(upload())["files"] == 6


def test_a_hub_that_cannot_be_reached_is_said(upload_hub: UploadHub, upload: Any, monkeypatch: Any) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = _refused(upload())
    assert "connection to the hub broke off" in message
    assert "Nothing was changed on the hub." in message


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_upload(upload_hub: UploadHub, upload: Any) -> None:
    answer = upload_hub.answer

    def lose(method: str, path: str, token: str | None, body: bytes) -> Any:
        answered = answer(method, path, token, body)
        if "/commit/" in path:
            raise ConnectionError
        return answered

    upload_hub.answer = lose  # type: ignore[method-assign]
    assert "is not known: the same upload finds out" in _refused(upload())
    upload_hub.answer = answer  # type: ignore[method-assign]
    summary = run_upload(upload())
    assert summary["already_there"]
    assert summary["commit"] == upload_hub.repos["me/mine"].head
    assert len(upload_hub.repos["me/mine"].commits) == 2


def test_what_the_hub_lists_is_held_against_what_was_sent(upload_hub: UploadHub, upload: Any) -> None:
    commit = upload_hub._commit

    def spoil(repo_id: str, repo: Repo, lines: list[dict[str, Any]]) -> Any:
        answered = commit(repo_id, repo, lines)
        repo.files["tokenizer.json"] = b"x" * 5_000
        return answered

    upload_hub._commit = spoil  # type: ignore[method-assign]
    assert "lists other files than were sent to me/mine: tokenizer.json" in _refused(upload())


@pytest.mark.parametrize("what", ["flipped", "missing", "link"])
def test_a_file_that_is_not_as_it_was_saved_is_not_sent(
    upload_hub: UploadHub, upload: Any, adapter: Path, what: str
) -> None:
    context, file = upload(), adapter / "tokenizer.json"
    content = file.read_bytes()
    file.unlink()
    if what == "flipped":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif what == "link":
        (adapter.parent / "elsewhere").write_bytes(content)
        file.symlink_to(adapter.parent / "elsewhere")
    message = _refused(context)
    assert "tokenizer.json" in message
    assert "Nothing was sent." in message
    assert upload_hub.requests == []


def test_a_cancel_takes_effect_in_mid_file_and_leaves_no_file(upload_hub: UploadHub, upload: Any) -> None:
    upload_hub.part_bytes = 100_000  # each is answered for before the next is read; sockets would hold the whole file
    context = upload()
    came: list[int] = []

    def cancel(count: int) -> None:
        came.append(count)
        context.stop_request = StopRequest.CANCEL

    upload_hub.on_bytes = cancel
    with pytest.raises(JobCancelled):
        run_upload(context)
    assert sum(came) < 305_000
    assert list(upload_hub.repos["me/mine"].files) == [".gitattributes"]


def test_progress_is_told_in_bytes(upload_hub: UploadHub, upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.exports.hub_files._TELL_SECONDS", 0.0)
    context = upload()
    run_upload(context)
    told = [record for record in read_records(context) if record.kind == "progress"]
    total = told[-1].data["max_steps"]
    steps = [record.step or 0 for record in told]
    assert max(steps) > 305_000
    assert all(0 <= step <= total for step in steps)
