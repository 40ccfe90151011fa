"""What the harness costs: the same training steps by `run_training` and by bare peft + Trainer, alternated.

    python -m bench.harness_overhead --model FOLDER [--rows FILE.jsonl] [--steps 8] [--repeats 3]

Both train on the same encoded rows in the same order, with the same settings and no eval. The bare run is the stock
Trainer: attention mask, logits at every position, its own loss. Time is from the first step's start to the last one's
end; at each repeat the two take turns in going first. A ratio of 1.03 means that the harness costs 3 %.
`--same-loss` gives the bare run our loss and batches, so that the ratio shows reporting and bookkeeping alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the child: a thread that spins starves the other processes

import torch
from transformers import Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from app.core.jobs.spec import TrainingSpec, parse_spec
from worker.context import Assignment, JobContext
from worker.spool import SpoolWriter, read_spool
from worker.training.adapters import add_lora
from worker.training.batches import Collator, choose_collator
from worker.training.data import EncodedRow, encode_row, ensure_chat_template
from worker.training.losses import answer_loss
from worker.training.model import choose_hardware, load_base_model, set_threads
from worker.training.reading import read_rows
from worker.training.tokenizer import load_tokenizer
from worker.training.train import run_training
from worker.training.trainer import AnswerTrainer, make_arguments

_WORDS = ["seven", "bright", "stars", "shine", "on", "quiet", "water", "while", "a", "quick", "fox", "sleeps"]


class Stopwatch(TrainerCallback):
    """Seconds from the first step's start to the last step's end, and the losses on the way."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0
        self.losses: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.seconds = time.perf_counter() - self.started
            self.losses.append(logs["loss"])


class _SameOrder(AnswerTrainer):
    """The bare Trainer, but for the order of the rows."""

    loss_is_scaled_for_ga = None
    compute_loss = Trainer.compute_loss
    floating_point_ops = Trainer.floating_point_ops


class _SameLoss(_SameOrder):
    """The bare Trainer with our loss."""

    loss_is_scaled_for_ga = True

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, num_items_in_batch: Any = None) -> Any:
        return answer_loss(model, inputs, self.scoring) / num_items_in_batch


def collate_plainly(pad: int) -> Any:
    def collate(rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
        batch = Collator(pad)(rows)
        lengths = torch.tensor([len(row.input_ids) for row in rows])
        mask = torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]
        return {"input_ids": batch["input_ids"], "labels": batch["labels"], "attention_mask": mask.long()}

    return collate


def run_bare(model_path: str, rows_path: Path, spec: TrainingSpec, folder: Path, *, same_loss: bool) -> Stopwatch:
    """peft + Trainer, nothing else."""
    hardware = choose_hardware(spec.bf16)
    tokenizer = load_tokenizer(model_path)
    ensure_chat_template(tokenizer)
    rows = [encode_row(tokenizer, messages, spec.max_length) for messages in read_rows(rows_path)]
    model = add_lora(load_base_model(model_path, hardware), spec, "bench")
    watch, pad = Stopwatch(), tokenizer.pad_token_id or 0
    kind = _SameLoss if same_loss else _SameOrder
    collate = choose_collator(model, pad, spec.max_length) if same_loss else collate_plainly(pad)
    trainer = kind(model, make_arguments(spec, hardware, folder), [r for r in rows if r.trained_tokens], collate, watch)
    trainer.train()
    return watch


def run_harness(model_path: str, rows_path: Path, spec: TrainingSpec, folder: Path) -> tuple[float, list[float]]:
    """`run_training`, as the child runs it. Returns (training seconds, losses)."""
    payload = {
        "spec": spec.model_dump(mode="json"),
        "base_model": {"name": "bench", "path": model_path, "architecture": None},
        "dataset": {
            "name": "bench",
            "path": str(rows_path),
            "tokens": str(folder / "tokens"),
            "format": "messages",
            "sha256": None,
        },
    }
    spool = folder / "spool.jsonl"
    assignment = Assignment(1, "train", 1, str(folder), str(spool), str(folder / "train.log"), payload)
    summary = run_training(JobContext(assignment, SpoolWriter(spool)))
    records = [record for record, _ in read_spool(spool, limit=100_000)]
    return summary["train_seconds"], [r.data["loss"] for r in records if r.kind == "metric" and "loss" in r.data]


def write_made_up_rows(path: Path, count: int) -> Path:
    """Rows of varying length, for a measurement without a dataset."""
    rows = []
    for i in range(count):
        text = " ".join(_WORDS[(i + j) % len(_WORDS)] for j in range(10 + 7 * i % 60))
        rows.append({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Alternate the two; ratio of the medians, and the largest difference of their losses."""
    rows = arguments.rows or write_made_up_rows(folder / "rows.jsonl", 200)
    spec = parse_spec(
        {
            "base_model": "bench",
            "dataset": "bench",
            "eval_fraction": 0,
            "lora_dropout": 0,
            "r": 8,
            "warmup_ratio": 0,  # where the stock schedule is ours
            "max_steps": arguments.steps,
            "max_length": arguments.max_length,
            "save_steps": 1_000_000,
        }
    )
    harness: list[float] = []
    bare: list[float] = []
    losses: dict[str, list[float]] = {}
    for repeat in range(arguments.repeats):
        for who in ("harness", "bare") if repeat % 2 else ("bare", "harness"):
            with tempfile.TemporaryDirectory() as job:
                if who == "bare":
                    watch = run_bare(arguments.model, rows, spec, Path(job), same_loss=arguments.same_loss)
                    bare.append(watch.seconds)
                    losses[who] = watch.losses
                else:
                    seconds, losses[who] = run_harness(arguments.model, rows, spec, Path(job))
                    harness.append(seconds)
    difference = max(abs(a - b) for a, b in zip(losses["harness"], losses["bare"], strict=True))
    return {
        "steps": arguments.steps,
        "bare_seconds": [round(each, 3) for each in bare],
        "harness_seconds": [round(each, 3) for each in harness],
        "ratio": round(statistics.median(harness) / statistics.median(bare), 4),
        "largest_loss_difference": difference,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model")
    parser.add_argument("--rows", type=Path, help="normalised rows, one {messages} per line")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--same-loss", action="store_true", help="our loss in the bare run too")
    set_threads()
    set_verbosity_error()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args(), Path(folder))))


if __name__ == "__main__":
    main()
