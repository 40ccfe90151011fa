"""Import jobs as the child runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import JobCancelled, ModelLoadError
from tests.worker.base_models.tiny_gguf import write_gguf
from tests.worker.tiny import make_context, make_model, make_tokenizer, read_records, save_tiny_model
from worker import imports
from worker.base_models.importer import run_import
from worker.context import JobContext, StopRequest

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = make_tokenizer()
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", make_model(tokenizer), tokenizer)


def _context(folder: Path, source: dict[str, Any], cache: Path | None = None) -> JobContext:
    payload = {
        "model_id": 1,
        "name": "tiny",
        "source": source,
        "target": str(folder / "models" / "1"),
        "cache": str(cache) if cache else None,
    }
    return make_context(folder / "job", "import", payload)


def _progress(context: JobContext) -> list[tuple[int | None, int]]:
    return [(r.step, r.data["max_steps"]) for r in read_records(context) if r.kind == "progress"]


def test_gguf_fills_its_own_folder(file: Path, tmp_path: Path) -> None:
    context = _context(tmp_path, {"kind": "gguf", "path": str(file)})
    summary = run_import(context)
    assert summary["path"] == str(tmp_path / "models" / "1")
    assert summary["dtype"] == "bfloat16"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["1"]
    assert _progress(context) == [(step, 6) for step in range(7)]
    phases = [r.data["phase"] for r in read_records(context) if r.kind == "phase"]
    assert phases == ["load", "convert", "save", "verify"]


def test_second_data_folder_links_the_cached_model(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = run_import(_context(tmp_path / "a", {"kind": "gguf", "path": str(file)}, cache))
    context = _context(tmp_path / "b", {"kind": "gguf", "path": str(file)}, cache)
    second = run_import(context)
    weights = [Path(summary["path"]) / "model.safetensors" for summary in (first, second)]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino
    assert "convert" not in [r.data.get("phase") for r in read_records(context)]
    assert _progress(context)[-1] == (7, 7)


def test_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "mine")
    before = {path: path.stat() for path in folder.iterdir()}
    summary = run_import(_context(tmp_path, {"kind": "folder", "path": str(folder)}))
    assert summary["path"] == str(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }
    assert not (tmp_path / "models").exists()


def test_hub_snapshot_is_placed_in_the_models_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = save_tiny_model(tmp_path / "snapshot")

    def download(hub_id: str, stages: Any, revision: str | None, *, keep_code: Callable[[Path], None]) -> Path:
        assert (hub_id, revision) == ("someone/tiny", None)
        stages.enter("download")
        return snapshot

    monkeypatch.setattr("worker.base_models.importer.download_model", download)
    context = _context(tmp_path, {"kind": "hub", "hub_id": "someone/tiny"})
    summary = run_import(context)
    assert summary["path"] == str(tmp_path / "models" / "1")
    assert summary["architecture"] == "LlamaForCausalLM"
    assert summary["revision"] == snapshot.name
    assert _progress(context) == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_unusable_folder_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        run_import(_context(tmp_path, {"kind": "folder", "path": str(tmp_path / "empty")}))


@pytest.mark.parametrize("run", [run_import, imports.run_import], ids=["the importer", "as the child finds it"])
def test_unknown_kind_is_refused(tmp_path: Path, run: Callable[[JobContext], Any]) -> None:
    with pytest.raises(ModelLoadError, match="'ftp'"):
        run(_context(tmp_path, {"kind": "ftp"}))


@pytest.mark.parametrize("request_", list(StopRequest))
def test_stopped_import_leaves_no_folder(file: Path, tmp_path: Path, request_: StopRequest) -> None:
    context = _context(tmp_path, {"kind": "gguf", "path": str(file)})
    context.stop_request = request_
    with pytest.raises(JobCancelled):
        run_import(context)
    assert not (tmp_path / "models" / "1").exists()
    assert list((tmp_path / "models").iterdir()) == []
