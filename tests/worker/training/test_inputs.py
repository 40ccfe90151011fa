"""A job that would train on something else than it was queued on ends before anything is loaded, naming the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.jobs.inputs import SPEC, describe_files, hash_content
from tests.worker.tiny import make_context, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.training.inputs import InputChanged, check_inputs


@pytest.fixture
def queued(tmp_path: Path) -> JobContext:
    """A job with what it was queued on kept; its model is a folder of two small files."""
    model, rows = tmp_path / "model", write_rows(tmp_path / "rows.jsonl")
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text(name)
    context = make_context(tmp_path / "job", "train", train_payload(model, rows))
    (context.folder / SPEC).write_text("base_model: m\n")
    context.payload["inputs"] = {
        "spec_sha256": hash_content(context.folder / SPEC),
        "dataset_sha256": hash_file(rows),
        "model_files": describe_files(model),
    }
    return context


def _rows(context: JobContext) -> Path:
    return Path(context.payload["dataset"]["path"])


def _model(context: JobContext) -> Path:
    return Path(context.payload["base_model"]["path"])


def test_what_is_as_it_was_passes(queued: JobContext) -> None:
    check_inputs(queued)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job: (job.folder / SPEC).write_text("r: 64\n"), "spec was edited"),
        (lambda job: (job.folder / SPEC).unlink(), "spec is gone"),
        (lambda job: _rows(job).write_text("{}\n"), "rows of dataset .* have changed"),
        (lambda job: _rows(job).unlink(), "rows of dataset .* are gone"),
        (lambda job: shutil.rmtree(_model(job)), "folder of base model .* is gone"),
        (lambda job: (_model(job) / "model.safetensors").write_text("other"), "base model .* has changed"),
        (lambda job: (_model(job) / "config.json").unlink(), "base model .* has changed"),
    ],
)
def test_what_has_changed_is_named(change: Callable[[JobContext], object], said: str, queued: JobContext) -> None:
    change(queued)
    with pytest.raises(InputChanged, match=said) as caught:
        check_inputs(queued)
    assert caught.value.code == "input_changed"
    assert str(queued.assignment.job_id) in str(caught.value.advice)


def test_all_that_has_changed_is_named_at_once(queued: JobContext) -> None:
    _rows(queued).unlink()
    shutil.rmtree(_model(queued))
    with pytest.raises(InputChanged) as caught:
        check_inputs(queued)
    assert str(_rows(queued)) in str(caught.value)
    assert str(_model(queued)) in str(caught.value)
