"""Saving what was trained: whole or not at all, old checkpoints removed only once the new one is in place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.spool import SpoolWriter
from worker.training.outputs import Certificate, Output, Writing

_FILES_BYTES = 16 * 1024**2  # tokenizer, configuration and card beside the weights


@dataclass(frozen=True, slots=True)
class Saver:
    """Saves what one job trains below its folder and announces it."""

    spool: SpoolWriter
    job_folder: Path
    tokenizer: Any
    spec: TrainingSpec
    base_model: dict[str, Any]  # name and architecture
    output: Output

    def drop_earlier_attempts(self) -> None:
        """This attempt starts from step 0: checkpoints of one before it must not outlive its own."""
        shutil.rmtree(self.job_folder / "checkpoints", ignore_errors=True)

    def save_checkpoint(self, model: Any, step: int, best_step: int | None = None) -> None:
        """Save `checkpoints/step-N`, then drop the oldest beyond `save_total_limit`, but not the best.

        Raises: DiskFull.
        """
        checkpoints = self.job_folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True, mode=0o700)
        self._write(self.output.checkpoint(model), checkpoints / f"step-{step}", step, "checkpoint")
        self._drop_old(checkpoints, best_step)
        self.spool.artifact("checkpoint", f"checkpoints/step-{step}", step=step)

    def save_final(self, model: Any, step: int) -> dict[str, Any]:
        """Save the folder `adapter`, or `model`. Returns its size, and its certificate where it has one, by name.

        Raises: DiskFull; JobError where what is on disk is not what was trained.
        """
        kind = self.output.kind
        target = self.job_folder / kind
        certificate = self._write(self.output.final(model), target, step, kind)
        proof = {"certificate": certificate} if certificate else {}
        self.spool.artifact(kind, kind, step=step, **proof)
        return {f"{kind}_bytes": folder_bytes(target), **proof}

    def _write(self, writing: Writing, target: Path, step: int, kind: str) -> Certificate | None:
        meta = {"kind": kind, "base_model": self.base_model, "step": step, "spec": self.spec.model_dump(mode="json")}
        with publish_artifact(target, meta, writing.weights_bytes + _FILES_BYTES) as folder:
            certificate = writing.write(folder)
            if certificate:
                meta["certificate"] = certificate
            self.tokenizer.save_pretrained(folder)
            (folder / "README.md").write_text(self.output.card(step), encoding="utf-8")
        return certificate

    def _drop_old(self, checkpoints: Path, best_step: int | None) -> None:
        folders = sorted(checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        for folder in folders[: -self.spec.save_total_limit]:
            if folder.name == f"step-{best_step}":
                continue
            condemned = folder.with_name(f".{folder.name}.removed")  # half a checkpoint must not look like one
            folder.rename(condemned)
            shutil.rmtree(condemned)
