"""An adapter of the tiny model, trained once for all merge tests."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.tiny import make_context, save_tiny_model, train_payload, write_rows
from worker.context import JobContext
from worker.training.train import run_training


@dataclass(frozen=True)
class Trained:
    """Folders of a base model named `tiny` and of an adapter for it; read only."""

    model: Path
    adapter: Path


def _train(folder: Path, *, tied: bool, hidden_size: int = 32, **spec: Any) -> Trained:
    torch.set_num_threads(1)
    model = save_tiny_model(folder / "model", tied=tied, hidden_size=hidden_size)
    values = {"max_steps": 30, "r": 16, "learning_rate": 2e-2, **spec}
    payload = train_payload(model, write_rows(folder / "rows.jsonl"), **values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        run_training(make_context(folder / "job", "train", payload))
    return Trained(model, folder / "job" / "adapter")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """With tied embeddings."""
    return _train(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="session")
def trained_untied(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """With a head of its own."""
    return _train(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session", params=[{"hidden_size": 64}, {"load_in_8bit": True}], ids=["nf4", "int8"])
def trained_quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On a base held in 4 bits, as wide as a block of values that is quantised, or in 8 bits."""
    folder = tmp_path_factory.mktemp("quantised")
    return _train(folder, tied=True, method="qlora", eval_fraction=0, **request.param)


def merge_job(trained: Trained, folder: Path, dtype: str = "bf16", name: str = "tiny", **more: Any) -> JobContext:
    """The context of a job that merges it."""
    payload = {
        **more,
        "base_model": {"name": name, "path": str(trained.model)},
        "adapter_path": str(trained.adapter),
        "adapter_job_id": 1,
        "dtype": dtype,
    }
    return make_context(folder / "job", "merge", payload)
