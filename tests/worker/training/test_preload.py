"""A spare child may hold the base model that its job most likely trains; the job gets what loading would give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch

from app.core.jobs.spec import TrainingSpec
from worker.training import preload
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import find_quantization

pytestmark = pytest.mark.model

CPU = Hardware(torch.device("cpu"), torch.float32)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders that were really loaded from."""
    seen: list[Path] = []

    def load(path: Path, *given: object) -> object:
        seen.append(Path(path))
        return load_base_model(path, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(preload, "load_base_model", load)
    yield seen
    preload.release()


def test_a_job_gets_the_model_that_was_loaded_ahead(folder: Path, loads: list[Path]) -> None:
    preload.preload(folder)
    tokenizer, model = preload.tokenizer_of(str(folder)), preload.base_model_of(str(folder), CPU)
    assert loads == [folder]
    plain = load_base_model(folder, CPU).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in model.state_dict().items())
    assert tokenizer("Hello").input_ids


def test_it_is_handed_out_once(folder: Path, loads: list[Path]) -> None:
    preload.preload(folder)
    first, second = (preload.base_model_of(folder, CPU) for _ in range(2))
    assert first is not second
    assert loads == [folder, folder]


def test_files_that_have_changed_since_are_read_again(folder: Path, loads: list[Path]) -> None:
    preload.preload(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    preload.base_model_of(folder, CPU)
    assert loads == [folder, folder]


def test_another_type_or_a_quantised_model_is_loaded_anew(folder: Path, loads: list[Path]) -> None:
    preload.preload(folder)
    assert preload.base_model_of(folder, replace(CPU, dtype=torch.bfloat16)).dtype == torch.bfloat16
    preload.preload(folder)
    spec = TrainingSpec(base_model="m", dataset="d", method="qlora")
    quantised = preload.base_model_of(folder, CPU, find_quantization(spec.model_dump()))
    assert quantised.is_loaded_in_4bit
    assert len(loads) == 4


def test_a_job_on_another_model_leaves_nothing_held(folder: Path, tiny_model: Path, loads: list[Path]) -> None:
    preload.preload(folder)
    preload.tokenizer_of(tiny_model)
    preload.base_model_of(folder, CPU)
    assert loads == [folder, folder]


@pytest.mark.parametrize("gone", ["large", "full", "folder"])
def test_what_is_large_or_gone_is_left_to_the_job(
    gone: str, folder: Path, loads: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if gone == "large":
        monkeypatch.setattr(preload, "MAX_WEIGHTS_BYTES", 1000)
    if gone == "full":
        monkeypatch.setattr(preload, "_ROOM", 10**12)
    preload.preload(tmp_path / "nowhere" if gone == "folder" else folder)
    assert loads == []


def test_a_model_that_cannot_be_loaded_does_not_end_the_spare(folder: Path, loads: list[Path]) -> None:
    (folder / "config.json").write_text("{")
    preload.preload(folder)
    assert loads == []
