"""A run that is interrupted and goes on equals one that is not: weights, optimizer, random states, order, curves."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

from tests.worker.tiny import ROWS, make_context, read_records, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.spool import SpoolWriter
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

# 22 rows to train on: 11 batches, 6 steps an epoch, the last of them of one batch
SPEC = {
    "max_steps": None,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "eval_steps": 3,
    "save_steps": 2,
    "logging_steps": 2,
}
TIMES = {"tokens_per_second"}


class PowerCut(Exception):
    """Ends a run in mid-step."""


@dataclass
class Recorded:
    """What a run did: batches by step, and how everything stood at its end."""

    batches: dict[int, list[str]] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: Any = None
    scheduler: Any = None
    random: Any = None
    tokens: int = 0
    summary: dict[str, Any] = field(default_factory=dict)


def record(monkeypatch: pytest.MonkeyPatch, cut_in_step: int | None) -> Recorded:
    """Watch the next run, and cut its power in the last batch of a step."""
    recorded = Recorded()
    step, train = Trainer.training_step, Trainer.train

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        loss = step(self, model, inputs, *rest)
        number = self.state.global_step + 1
        text = str({name: value.tolist() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        recorded.batches.setdefault(number, []).append(hashlib.sha256(text.encode()).hexdigest())
        if number == cut_in_step and len(recorded.batches[number]) == self.current_gradient_accumulation_steps:
            raise PowerCut
        return loss

    def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = train(self, *arguments, **keywords)
        recorded.weights = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        recorded.optimizer, recorded.scheduler = self.optimizer.state_dict(), self.lr_scheduler.state_dict()
        recorded.random = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        recorded.tokens = self.tokens_seen
        return result

    monkeypatch.setattr(Trainer, "training_step", training_step)
    monkeypatch.setattr(Trainer, "train", watched)
    return recorded


def run(context: JobContext, cut_in_step: int | None = None) -> Recorded:
    """One attempt."""
    with pytest.MonkeyPatch.context() as patched:
        recorded = record(patched, cut_in_step)
        if cut_in_step is None:
            recorded.summary = run_training(context)
        else:
            with pytest.raises(PowerCut):
                run_training(context)
    return recorded


def next_attempt(context: JobContext) -> JobContext:
    """As the worker makes it: the same folder and payload, a spool of its own."""
    number = context.assignment.attempt + 1
    spool = context.folder / f"spool-{number}.jsonl"
    return JobContext(replace(context.assignment, attempt=number, spool=str(spool)), SpoolWriter(spool))


def curves(*attempts: JobContext) -> dict[tuple[str, int], float]:
    """Metric values by name and step, as the database would hold them."""
    values: dict[tuple[str, int], float] = {}
    for attempt in attempts:
        for record in read_records(attempt):
            at = record.step or 0
            if record.kind == "start":
                values = {key: value for key, value in values.items() if at and key[1] <= at}
            if record.kind == "metric":
                values |= {(name, at): value for name, value in record.data.items() if name not in TIMES}
    return values


def same(left: Any, right: Any) -> bool:
    """Equal to the last bit, through lists and dicts."""
    if isinstance(left, torch.Tensor | np.ndarray):
        return torch.equal(torch.as_tensor(left), torch.as_tensor(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def uneven(path: Path) -> Path:
    rows = [[row[0], {"role": "assistant", "content": "red blue " * (3 * i % 17 + 1)}] for i, row in enumerate(ROWS)]
    return write_rows(path, rows)


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Callable[..., JobContext]:
    """A training job in a folder of its own; keywords override the spec."""

    def make(name: str, **spec: Any) -> JobContext:
        payload = train_payload(tiny_model, uneven(tmp_path / "rows.jsonl"), **{**SPEC, **spec})
        return make_context(tmp_path / name, "train", payload)

    return make


MakeJob = Callable[..., JobContext]

RUNS = [
    pytest.param({}, 6, 7, id="at an epoch's end"),
    pytest.param({}, 8, 10, id="in mid-epoch"),
    pytest.param({"padded": True}, 4, 5, id="padded batches"),
    pytest.param({"init_lora_weights": "pissa", "use_rslora": True}, 8, 9, id="PiSSA"),
    pytest.param({"bias": "all", "use_dora": True, "gradient_checkpointing": True}, 8, 9, id="DoRA"),
    pytest.param(
        {"early_stopping_patience": 2, "learning_rate": 0.1, "num_train_epochs": 9}, 9, 10, id="early stopping"
    ),
    pytest.param({"max_steps": 9, "gradient_accumulation_steps": 3, "logging_steps": 5}, 8, 9, id="max_steps"),
]


@pytest.mark.parametrize(("spec", "saved", "cut"), RUNS)
def test_interrupted_run_ends_as_the_undisturbed_one(
    spec: dict[str, Any], saved: int, cut: int, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dict(spec)
    if spec.pop("padded", False):
        monkeypatch.setattr("worker.training.batches.proves_isolation", lambda *_: False)
    undisturbed, first = job("undisturbed", **spec), job("interrupted", **spec)
    whole = run(undisturbed)
    run(first, cut_in_step=cut)
    torch.manual_seed(987)  # another process has other random states
    random.seed(654)
    second = next_attempt(first)
    rest = run(second)

    assert rest.summary["resumed_from_step"] == saved
    assert (rest.summary["attempts"], whole.summary["resumed_from_step"]) == (2, None)
    assert rest.batches == {step: batches for step, batches in whole.batches.items() if step > saved}
    for part in ("weights", "optimizer", "scheduler", "random", "tokens"):
        assert same(getattr(rest, part), getattr(whole, part)), part
    assert curves(first, second) == curves(undisturbed)
    taken = {"train_seconds", "tokens_per_second", "resumed_from_step", "attempts", "adapter_bytes"}
    assert {k: v for k, v in rest.summary.items() if k not in taken} == {
        k: v for k, v in whole.summary.items() if k not in taken
    }
    weights = "adapter/adapter_model.safetensors"
    assert hash_file(first.folder / weights) == hash_file(undisturbed.folder / weights)
    kept = [sorted(p.name for p in (c.folder / "checkpoints").iterdir()) for c in (first, undisturbed)]
    assert kept[0] == kept[1]
