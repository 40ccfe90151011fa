"""How fast real tokens are trained on: bare peft + Trainer and our trainer in turn, with the same loss at each step.

    python -m bench.throughput [--model FOLDER] [--dataset FILE] [--steps 8] [--repeats 2] [--grouped]

Both train on the same batches of the same encoded rows with the same settings, and no eval. The bare run is the stock
Trainer: padded batches with an attention mask, logits at every position, its own loss. Without --model and --dataset
the demo's are used. Rows come in random order, as the stock Trainer draws them; with --grouped those of like length
come side by side, in both runs, so that the bare one has little padding. Only tokens of the dataset count, padding does
not. `cpu_ratio` compares CPU seconds instead, start and end included; other work on the machine distorts it less.
Exits with 1 where the losses differ.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.__main__ import convert_demo_model
from bench.harness_overhead import Stopwatch, collate_plainly  # first of all, as it sets the environment

# isort: split
import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from app.core.datasets.store import normalise
from app.core.demo import demo_dataset_file
from app.core.jobs.spec import TrainingSpec, parse_spec
from worker.training.adapters import add_lora
from worker.training.batches import LengthGroupedSampler, choose_collator
from worker.training.data import EncodedRow, encode_row, ensure_chat_template
from worker.training.model import choose_hardware, load_base_model, set_threads
from worker.training.reading import read_rows
from worker.training.tokenizer import load_tokenizer
from worker.training.trainer import AnswerTrainer, Rows, make_arguments

LOSS_TOLERANCE = 1e-3  # relative: AdamW's first steps magnify the last bits of a gradient


class _Watch(Stopwatch):
    """The stopwatch, and the CPU seconds of the whole run."""

    cpu_seconds = 0.0


class _BareInOrder(Trainer):
    """The stock Trainer, but for the order of the rows, which is as given."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset or self.train_dataset)


class _OursInOrder(AnswerTrainer):
    """Our trainer, but for the order of the rows, which is as given."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset or self.train_dataset)


def encode(tokenizer: Any, dataset: Path, spec: TrainingSpec, folder: Path, *, grouped: bool) -> list[EncodedRow]:
    """The rows that the steps need, in the order in which both runs take them."""
    normalised = folder / "rows.jsonl"
    normalise(dataset, normalised)
    rows = [encode_row(tokenizer, messages, spec.max_length) for messages in read_rows(normalised)]
    rows = [row for row in rows if row.trained_tokens]
    random.Random(spec.seed).shuffle(rows)
    batch = spec.per_device_train_batch_size
    if grouped:
        rows = [rows[i] for i in LengthGroupedSampler([len(row.input_ids) for row in rows], batch, spec.seed)]
    return rows[: batch * (spec.max_steps or 1)]


def train(who: str, path: str, rows: Sequence[EncodedRow], spec: TrainingSpec, pad: int) -> _Watch:
    """One run, from the same start each time; `who` is bare or ours."""
    hardware, watch = choose_hardware(spec.bf16), _Watch()
    model = add_lora(load_base_model(path, hardware), spec, "bench")
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_arguments(spec, hardware, Path(folder))
        if who == "bare":
            trainer: Trainer = _BareInOrder(
                model, arguments, collate_plainly(pad), train_dataset=Rows(rows), callbacks=[watch]
            )
        else:
            trainer = _OursInOrder(model, arguments, rows, choose_collator(model, pad, spec.max_length), watch)
        before = time.process_time()
        trainer.train()
        watch.cpu_seconds = time.process_time() - before
    return watch


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let the two take turns; tokens per second of each, their ratio, and the largest relative difference in loss."""
    spec = parse_spec(
        {
            "base_model": "bench",
            "dataset": "bench",
            "eval_fraction": 0,
            "lora_dropout": 0,
            "r": 8,
            "learning_rate": 1e-4,
            "warmup_ratio": 0,  # the stock schedule's first step of a warm-up has a learning rate of 0, ours has not
            "max_steps": arguments.steps,
            "max_length": arguments.max_length,
            "per_device_train_batch_size": arguments.batch_size,
        }
    )
    path = str(arguments.model or convert_demo_model(folder))
    tokenizer = load_tokenizer(path)
    ensure_chat_template(tokenizer)
    dataset = arguments.dataset or demo_dataset_file()
    rows = encode(tokenizer, dataset, spec, folder, grouped=arguments.grouped)
    runs: dict[str, list[_Watch]] = {"bare": [], "ours": []}
    for repeat in range(arguments.repeats):
        for who in ("ours", "bare") if repeat % 2 else ("bare", "ours"):
            runs[who].append(train(who, path, rows, spec, tokenizer.pad_token_id or 0))
    return summarise(rows, arguments.batch_size, runs)


def summarise(rows: Sequence[EncodedRow], batch_size: int, runs: dict[str, list[_Watch]]) -> dict[str, Any]:
    """The figures of all runs: rates in real tokens per second, ratios of medians, ours over bare."""
    lengths = [len(row.input_ids) for row in rows]
    padded = sum(max(lengths[i : i + batch_size]) * batch_size for i in range(0, len(lengths), batch_size))
    rates = {who: [round(sum(lengths) / watch.seconds, 1) for watch in watches] for who, watches in runs.items()}
    cpu = {who: statistics.median(watch.cpu_seconds for watch in watches) for who, watches in runs.items()}
    pairs = list(zip(runs["bare"][-1].losses, runs["ours"][-1].losses, strict=True))
    return {
        "steps": len(pairs),
        "tokens": sum(lengths),
        "labelled": sum(row.trained_tokens for row in rows),
        "density_when_padded": round(sum(lengths) / padded, 3),
        "tokens_per_second": rates,
        "ratio": round(statistics.median(rates["ours"]) / statistics.median(rates["bare"]), 3),
        "cpu_ratio": round(cpu["bare"] / cpu["ours"], 3),
        "largest_relative_loss_difference": max(abs(bare - ours) / bare for bare, ours in pairs),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model")
    parser.add_argument("--dataset", type=Path, help="a dataset file of any format that can be registered")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--grouped", action="store_true", help="rows of like length side by side, in both runs")
    set_threads()
    set_verbosity_error()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(parser.parse_args(), Path(folder))
    print(json.dumps(result))
    if result["largest_relative_loss_difference"] > LOSS_TOLERANCE:
        sys.exit("The losses differ: the two did not train the same; the ratio means nothing.")


if __name__ == "__main__":
    main()
