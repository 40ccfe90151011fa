"""Fixtures for tests that train the tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.tiny import make_context, save_tiny_model, train_payload, write_rows
from tests.worker.training.runs import Interrupted, run
from tests.worker.training.runs import make_job as make_uneven_job
from worker.context import JobContext
from worker.spool import SpoolWriter


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads on so small a model only wait for each other where other processes run beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder; read only."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_job(tiny_model: Path, tmp_path: Path) -> Callable[..., JobContext]:
    """Make a training job's context; keywords override the spec."""

    def make(**spec: Any) -> JobContext:
        rows = write_rows(tmp_path / "rows.jsonl")
        return make_context(tmp_path / "job", "train", train_payload(tiny_model, rows, **spec))

    return make


@pytest.fixture(scope="session")
def cut_once(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Interrupted:
    """Read only: `interrupted` is a copy."""
    parent = tmp_path_factory.mktemp("cut")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    job, twin = (make_uneven_job(parent / name, tiny_model) for name in ("job", "twin"))
    whole = run(twin)
    run(job, cut_in_step=7)
    torch.set_num_threads(threads)
    return Interrupted(job, twin, whole)


@pytest.fixture
def interrupted(cut_once: Interrupted, tmp_path: Path) -> JobContext:
    """The interrupted job in a folder of this test's own."""
    folder = Path(shutil.copytree(cut_once.job.folder, tmp_path / "job"))
    spool = folder / "spool.jsonl"
    assignment = replace(cut_once.job.assignment, job_folder=str(folder), spool=str(spool))
    return JobContext(assignment, SpoolWriter(spool))
