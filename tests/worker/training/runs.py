"""Training runs of the tiny model that are cut off and go on, and what is compared of them afterwards."""

from __future__ import annotations

import hashlib
import json
import random
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
from worker.training.resume import Found, StateStore
from worker.training.train import run_training

# 22 rows to train on: 11 batches, 6 steps an epoch, the last of them of one batch
SPEC = {
    "max_steps": None,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "down_proj"],
    "eval_steps": 3,
    "save_steps": 2,
    "logging_steps": 2,
}
TIMES = {"tokens_per_second"}
WEIGHTS = "adapter/adapter_model.safetensors"


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
    """Rows of many lengths."""
    answers = [[{"role": "assistant", "content": "red blue " * (3 * i % 17 + 1)}] for i in range(len(ROWS))]
    return write_rows(path, [[row[0], *answer] for row, answer in zip(ROWS, answers, strict=True)])


def pairs(path: Path) -> Path:
    """Preference pairs of many lengths."""
    rejected = [[{"role": "assistant", "content": "No. " * (3 * i % 7 + 1)}] for i in range(len(ROWS))]
    lines = [{"prompt": r[:1], "chosen": r[1:], "rejected": no} for r, no in zip(ROWS, rejected, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_job(folder: Path, model: Path, **spec: Any) -> JobContext:
    """A training job in `folder`; keywords override the spec."""
    write = pairs if spec.get("task") == "dpo" else uneven
    rows = folder.parent / "rows.jsonl"
    if not rows.exists():
        write(rows)
    return make_context(folder, "train", train_payload(model, rows, **{**SPEC, **spec}))


def assert_same_end(
    attempts: tuple[JobContext, JobContext], rest: Recorded, undisturbed: JobContext, whole: Recorded, saved: int
) -> None:
    assert (rest.summary["resumed_from_step"], rest.summary["attempts"]) == (saved, 2)
    assert (whole.summary["resumed_from_step"], whole.summary["attempts"]) == (None, 1)
    assert rest.batches == {step: batches for step, batches in whole.batches.items() if step > saved}
    for part in ("weights", "optimizer", "scheduler", "random", "tokens"):
        assert same(getattr(rest, part), getattr(whole, part)), part
    assert curves(*attempts) == curves(undisturbed)
    assert told(rest.summary) == told(whole.summary)
    folder, other = attempts[0].folder, undisturbed.folder
    weights = WEIGHTS if (other / "adapter").exists() else "model/model.safetensors"
    assert hash_file(folder / weights) == hash_file(other / weights)
    for kept in ("checkpoints", "state"):
        assert [p.name for p in sorted((folder / kept).iterdir())] == [p.name for p in sorted((other / kept).iterdir())]


def told(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what differs between attempts and from one moment to the next."""
    passing = {
        *("train_seconds", "tokens_per_second", "resumed_from_step", "states_passed_over", "attempts"),
        *("adapter_bytes", "model_bytes"),
    }
    return {name: value for name, value in summary.items() if name not in passing}


@dataclass(frozen=True)
class Interrupted:
    """A job cut in step 7 with states of the steps 4 and 6, and its undisturbed twin."""

    job: JobContext
    twin: JobContext
    whole: Recorded


def find_state(job: JobContext, up_to: int | None = None, **origin: str) -> Found:
    """What a next attempt on the job would go on from; keywords make its origin another one."""
    return StateStore(job.folder, {**origin_of(job), **origin}, "cpu").find(up_to)


def origin_of(job: JobContext) -> dict[str, str]:
    origin: dict[str, str] = json.loads((job.folder / "state" / "step-4" / "meta.json").read_text())["origin"]
    return origin


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
