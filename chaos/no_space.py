"""`python -m chaos.no_space --at 200`: let the disk fill up at the k-th write of a short training, for every k in turn.

Counted is what the job's process writes below its data folder: spool, tokenized rows, checkpoints, states, the adapter,
the receipt. Once the disk is full the job waits, until there is room; every second time its worker stops meanwhile, and
another attempt goes on. However it comes, what is published verifies, the newest state before is there, nothing is left
half-written, and adapter and curves equal those of a run that nothing disturbed.

Prints one JSON line; exits 1 where one of them is broken. With more writes than `--at`, as many are taken, evenly.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from app.core.errors import JobCancelled
from chaos.full_disk import FillingDisk
from chaos.sampling import evenly
from scripts.gpu_check_job import make_tiny_model
from worker.artifacts.disk import DiskFull, is_disk_full
from worker.artifacts.folders import folder_fault
from worker.artifacts.steps import step_folders
from worker.base_models.publish import hash_file
from worker.context import Assignment, JobContext, StopRequest
from worker.spool import SpoolWriter, read_spool
from worker.training.train import run_training

_SPEC: dict[str, Any] = {
    "base_model": "tiny", "dataset": "rows", "eval_fraction": 0.2, "r": 4, "lora_alpha": 8, "lora_dropout": 0.1,
    "max_length": 64, "per_device_train_batch_size": 2, "max_steps": 6, "eval_steps": 3, "save_steps": 2,
}  # fmt: skip
_OF_TIME = frozenset({"tokens_per_second"})
_MOST_ATTEMPTS = 4


@dataclass(slots=True)
class Try:
    """One job on a disk that fills up once."""

    folder: Path
    inputs: Path
    disk: FillingDisk
    stops: bool = False  # its worker stops while it waits for room
    waits: int = 0
    attempts: int = 0
    broken: list[str] = field(default_factory=list)
    context: JobContext | None = None

    def run(self) -> None:
        """As a worker would, until it is completed."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(time, "sleep", lambda _seconds: self._wait()))
            stack.enter_context(patch("worker.training.run.write_samples", lambda *_: None))
            stack.enter_context(self.disk.mounted())
            while not self._attempt():
                if self.attempts == _MOST_ATTEMPTS:
                    self.broken.append("it does not end")
                    return
        self._look()

    def _attempt(self) -> bool:
        """Returns whether it is completed."""
        self.attempts += 1
        self.context = self._make_context()
        try:
            run_training(self.context)
        except JobCancelled:
            self.disk.make_room()
            return False
        except Exception as error:
            if not isinstance(error, DiskFull) and not is_disk_full(error):
                raise
            self._look()
            self.disk.make_room()
            return False
        return True

    def _make_context(self) -> JobContext:
        attempt = self.folder / "attempts" / str(self.attempts)
        attempt.mkdir(parents=True)
        spool = attempt / "spool.jsonl"
        with self.disk.spared():  # no process is started where there is no room for these
            writer = SpoolWriter(spool)
        log = str(self.folder / "train.log")
        payload = _payload(self.inputs, self.folder)
        return JobContext(Assignment(1, "train", self.attempts, str(self.folder), str(spool), log, payload), writer)

    def _wait(self) -> None:
        """The job waits for room: once it has had a look around, it gets some."""
        self.waits += 1
        self._look()
        if self.stops and self.context is not None and self.context.stop_request is None:
            self.context.stop_request = StopRequest.INTERRUPT
        else:
            self.disk.make_room()

    def _look(self) -> None:
        states = [step for step, _ in step_folders(self.folder / "state")]
        folders = [path for kind in ("state", "checkpoints") for _, path in step_folders(self.folder / kind)]
        for path in [*folders, *(self.folder / name for name in ("adapter",) if (self.folder / name).exists())]:
            if fault := folder_fault(path):
                self.broken.append(f"{path.relative_to(self.folder)}: {fault}")
        self.broken += [f"{path} is left" for path in self.folder.rglob(".*.partial")]
        due = (max((step for _, step in self.curves()), default=0) - 1) // _SPEC["save_steps"] * _SPEC["save_steps"]
        if due > 0 and not any(step >= due for step in states):
            self.broken.append(f"the state of step {due} is gone; there are {states}")

    def curves(self) -> dict[tuple[str, int], Any]:
        """Metric values by name and step, as the database would hold them."""
        values: dict[tuple[str, int], Any] = {}
        for number in range(1, self.attempts + 1):
            for record, _offset in read_spool(self.folder / "attempts" / str(number) / "spool.jsonl"):
                at = record.step or 0
                if record.kind == "start":
                    values = {key: value for key, value in values.items() if at and key[1] <= at}
                if record.kind == "metric":
                    values |= {(name, at): value for name, value in record.data.items() if name not in _OF_TIME}
        return values

    @property
    def weights(self) -> str:
        return hash_file(self.folder / "adapter" / "adapter_model.safetensors")


def sweep(home: Path, at: int) -> dict[str, Any]:
    """Try at most `at` of the writes; returns {writes, tried, filled, waited, attempts, broken: [{write, what}]}."""
    inputs = _make_inputs(home / "inputs")
    twin = Try(home / "twin", inputs, FillingDisk(home / "twin"))
    twin.run()
    chosen = enumerate(evenly(twin.disk.writes, at))
    tried = [_try(home, inputs, twin, number, stops=index % 2 == 1) for index, number in chosen]
    return {
        "writes": twin.disk.writes,
        "tried": len(tried),
        "filled": sum(each.disk.full_at is None for each in tried),  # a run may come to its end one write earlier
        "waited": sum(each.waits > 0 for each in tried),
        "attempts": sum(each.attempts for each in tried),
        "broken": [what for each in [twin, *tried] for what in each.broken],
    }


def _try(home: Path, inputs: Path, twin: Try, number: int, *, stops: bool) -> Try:
    folder = home / f"write-{number}"
    each = Try(folder, inputs, FillingDisk(folder, number), stops=stops)
    each.run()
    if not each.broken and (each.weights != twin.weights or each.curves() != twin.curves()):
        each.broken.append("it ended otherwise than the run that nothing disturbed")
    each.broken = [f"write {number}: {what}" for what in each.broken]
    return each


def _make_inputs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    make_tiny_model(folder / "model")
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"Box {number}?"},
                {"role": "assistant", "content": "Red. " * number},
            ]
        }
        for number in range(1, 13)
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def _payload(inputs: Path, folder: Path) -> dict[str, Any]:
    rows = str(inputs / "rows.jsonl")
    return {
        "spec": _SPEC,
        "base_model": {"name": "tiny", "path": str(inputs / "model"), "architecture": "LlamaForCausalLM"},
        "dataset": {"name": "rows", "path": rows, "tokens": str(folder / "tokens"), "format": "messages"},
        "proofs": str(folder / "proofs"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, default=200, help="how many writes to try at most")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="loradeck-no-space-") as home:
        result = sweep(Path(home), asked.at)
    print(json.dumps(result))
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
