"""Jobs that compute next to nothing, so that a worker's kills can be tried by the dozen in a minute.

`python -m chaos.light` is the child process as it is (assignment, spool, signals, folders published and pruned by the
same functions), but for what it computes: a training is a chain of hashes. `chaos.light_worker` starts it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import worker.child
from app.core.errors import JobCancelled
from worker.artifacts.disk import telling_full_disk
from worker.artifacts.folders import STATE, folder_bytes, folder_fault, publish_artifact
from worker.artifacts.steps import CHECKPOINTS, drop_old_steps, drop_steps_after, step_folders
from worker.context import JobContext, StopRequest
from worker.patience import save_when_it_fits

_PAUSE_SECONDS = 0.01  # a training step, and each part of a save
_PARTS = 4
_KEPT_STATES = 2


def run_training(context: JobContext) -> dict[str, Any]:
    """In place of `worker.training.train`: the same folders, records and order of saves."""
    return _Run(context).train()


class _Run:
    def __init__(self, context: JobContext) -> None:
        self._context, self._spec = context, context.payload["spec"]
        self._checkpoints, self._states = context.folder / CHECKPOINTS, context.folder / STATE
        self._chain = hashlib.sha256(json.dumps(self._spec, sort_keys=True).encode()).hexdigest()

    def train(self) -> dict[str, Any]:
        spool, last = self._context.spool, int(self._spec["max_steps"])
        begun = self._go_on()
        spool.start(begun)
        spool.phase("train")
        for step in range(begun + 1, last + 1):
            self._take_step(step, last)
        spool.phase("save")
        self._save(self._context.folder / "adapter", last)
        spool.artifact("adapter", "adapter", step=last)
        return {"steps": last, "adapter_bytes": folder_bytes(self._context.folder / "adapter")}

    def _go_on(self) -> int:
        """The newest state that verifies, taken up; 0 where there is none."""
        for folder in (self._checkpoints, self._states):
            folder.mkdir(exist_ok=True, mode=0o700)
        whole = [(step, folder) for step, folder in step_folders(self._states) if folder_fault(folder) is None]
        step, state = whole[-1] if whole else (0, None)
        if state is not None:
            self._chain = (state / "part-0").read_text()
        drop_steps_after(self._checkpoints, step)
        drop_steps_after(self._states, step)
        return step

    def _take_step(self, step: int, last: int) -> None:
        time.sleep(_PAUSE_SECONDS)
        self._chain = hashlib.sha256(f"{self._chain} {step}".encode()).hexdigest()
        self._context.spool.metrics(step, {"loss": int(self._chain[:8], 16) / 2**32, "tokens": 64.0 * step})
        self._context.spool.progress(step, last, (last - step) * _PAUSE_SECONDS)
        if self._context.stop_request is StopRequest.CANCEL:
            raise JobCancelled()
        if step % self._spec["save_steps"] == 0 and step < last:
            self._save_step(step)
        if self._context.stop_request is StopRequest.INTERRUPT:
            self._save_state(step)
            raise JobCancelled()

    def _save_step(self, step: int) -> None:
        self._save(self._checkpoints / f"step-{step}", step)
        drop_old_steps(self._checkpoints, self._spec["save_total_limit"], None)
        self._context.spool.artifact("checkpoint", f"{CHECKPOINTS}/step-{step}", step=step)
        self._save_state(step)

    def _save_state(self, step: int) -> None:
        self._context.spool.sync()
        self._save(self._states / f"step-{step}", step)
        drop_old_steps(self._states, _KEPT_STATES, None)

    def _save(self, target: Path, step: int) -> None:
        save_when_it_fits(self._context, lambda: self._publish(target, step))

    def _publish(self, target: Path, step: int) -> None:
        meta = {"kind": "light", "step": step}
        with publish_artifact(target, meta, 0) as folder, telling_full_disk(target, 0):
            _write_parts(folder, self._chain)


def run_merge(context: JobContext) -> dict[str, Any]:
    """In place of `worker.artifacts.merge`."""
    context.spool.phase("merge")
    weights = (Path(context.payload["adapter_path"]) / "part-0").read_text()
    with publish_artifact(context.folder / "merged", {"kind": "merged"}, 0) as folder:
        _write_parts(folder, hashlib.sha256(weights.encode()).hexdigest())
    context.spool.artifact("merged", "merged")
    return {"bytes": folder_bytes(context.folder / "merged")}


def _write_parts(folder: Path, text: str) -> None:
    """Several files, slowly: half a folder is to be seen."""
    for part in range(_PARTS):
        (folder / f"part-{part}").write_text(text)
        time.sleep(_PAUSE_SECONDS)


def run_child() -> int:
    """The child process of a job."""
    worker.child.JOB_FUNCTIONS |= {"train": "chaos.light:run_training", "merge": "chaos.light:run_merge"}
    return worker.child.main()


if __name__ == "__main__":
    sys.exit(run_child())
