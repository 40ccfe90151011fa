"""Downloads from a hub, by the real client: what is fetched, and what a user is told where that fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from app.core.errors import JobCancelled, ModelLoadError
from app.core.models.own_code import read_code
from tests.worker.fake_hub import COMMIT, Hub
from tests.worker.own_code import hashes, modules_in, save_own_code_model
from tests.worker.tiny import make_context, read_records, save_tiny_model
from worker.base_models.hub import download_model
from worker.base_models.importer import run_import
from worker.base_models.stages import Stages
from worker.context import JobContext, StopRequest
from worker.own_code import allow_code

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return make_context(tmp_path / "job", "import", {})


def _repository(hub: Hub, tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, served as `someone/tiny`."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny, folder)
    hub.repositories["someone/tiny"] = folder
    return folder


def test_only_what_training_needs_is_downloaded(hub: Hub, tiny: Path, tmp_path: Path, context: JobContext) -> None:
    folder = _repository(hub, tiny, tmp_path)
    for name in ("pytorch_model.bin", "modeling_tiny.py", "onnx/config.json", "consolidated.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    snapshot = download_model("someone/tiny", Stages(context, 3))
    assert snapshot.name == COMMIT
    assert {path.name for path in snapshot.iterdir()} == {path.name for path in tiny.iterdir()}
    assert (snapshot / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert "pytorch_model.bin" not in hub.downloads


def test_every_shard_of_the_index_is_downloaded(hub: Hub, tiny: Path, tmp_path: Path, context: JobContext) -> None:
    folder = _repository(hub, tiny, tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"second")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {f"tensor{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    stages = Stages(context, 3)
    snapshot = download_model("someone/tiny", stages)
    assert [name for name in names if (snapshot / name).is_file()] == names
    assert [r.data["max_steps"] for r in read_records(context) if r.kind == "progress"] == [3, 5, 5]


def test_model_with_its_own_code_is_refused_before_its_weights(
    hub: Hub, tiny: Path, tmp_path: Path, context: JobContext
) -> None:
    folder = _repository(hub, tiny, tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_tiny.Tiny"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="which nobody has allowed to be run"):
        download_model("someone/tiny", Stages(context, 3))
    assert "model.safetensors" not in hub.downloads


def test_a_model_s_code_is_left_for_an_admin_to_read_and_its_import_goes_on_once_that_is_allowed(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    hub.repositories["someone/tiny"] = save_own_code_model(folder, tmp_path / "marker")
    (folder / "pytorch_model.bin").touch()
    payload = {"source": {"kind": "hub", "hub_id": "someone/tiny"}, "target": str(tmp_path / "models" / "1")}
    with pytest.raises(ModelLoadError, match="which nobody has allowed to be run"):
        run_import(make_context(tmp_path / "first", "import", payload))
    assert not (tmp_path / "marker").exists()
    code = read_code(tmp_path / "models" / "1")
    assert (code.hashes, code.revision) == (hashes(folder), COMMIT)
    assert "model.safetensors" not in hub.downloads
    again = make_context(tmp_path / "second", "import", {**payload, "code": code.hashes, "revision": COMMIT})
    allow_code(again.payload)
    with modules_in(tmp_path / "modules"):
        summary = run_import(again)
    allow_code({})
    assert (summary["architecture"], summary["revision"]) == ("TinyForCausalLM", COMMIT)
    assert read_code(tmp_path / "models" / "1").sha256 == code.sha256


def test_model_without_safetensors_is_named(hub: Hub, tiny: Path, tmp_path: Path, context: JobContext) -> None:
    folder = _repository(hub, tiny, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="someone/tiny has no safetensors weights"):
        download_model("someone/tiny", Stages(context, 3))


def test_unknown_gated_and_malformed_ids_are_told_apart(
    hub: Hub, tiny: Path, tmp_path: Path, context: JobContext
) -> None:
    _repository(hub, tiny, tmp_path)
    hub.gated.add("someone/tiny")
    with pytest.raises(ModelLoadError, match="must be requested") as gated:
        download_model("someone/tiny", Stages(context, 3))
    assert "secrets set hf_token" in str(gated.value.advice)
    with pytest.raises(ModelLoadError, match="The hub has no model someone/else"):
        download_model("someone/else", Stages(context, 3))
    with pytest.raises(ModelLoadError, match="is no hub id"):
        download_model("a/b/c", Stages(context, 3))


def test_offline_model_comes_from_the_cache_or_is_explained(
    hub: Hub, tiny: Path, tmp_path: Path, context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    _repository(hub, tiny, tmp_path)
    snapshot = download_model("someone/tiny", Stages(context, 3))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    assert download_model("someone/tiny", Stages(context, 3)) == snapshot
    with pytest.raises(ModelLoadError, match="cannot be reached"):
        download_model("someone/else", Stages(context, 3))


def test_cancel_takes_effect_before_the_next_file(
    hub: Hub, tiny: Path, tmp_path: Path, context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    _repository(hub, tiny, tmp_path)
    monkeypatch.setattr(
        "worker.base_models.hub.check_config", lambda _: setattr(context, "stop_request", StopRequest.CANCEL)
    )
    with pytest.raises(JobCancelled):
        download_model("someone/tiny", Stages(context, 3))
    assert "model.safetensors" not in hub.downloads
