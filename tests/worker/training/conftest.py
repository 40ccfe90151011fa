"""Fixtures for tests that train the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.tiny import make_context, save_tiny_model, train_payload, write_rows
from worker.context import JobContext


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
