"""Saving what was trained: whole or not at all, old checkpoints removed only once the new one is in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.folders import drop_old_steps, drop_steps_after, folder_bytes, publish_artifact
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
    base_model: dict[str, Any]  # name, architecture, and the dtype that it was trained in
    output: Output

    def drop_later_checkpoints(self, step: int) -> None:
        """This attempt goes on from `step`: what one before it saved later must not outlive its own."""
        drop_steps_after(self.job_folder / "checkpoints", step)

    def save_checkpoint(self, model: Any, step: int, best_step: int | None = None) -> None:
        """Save `checkpoints/step-N`, then drop the oldest beyond `save_total_limit`, but not the best.

        Raises: DiskFull.
        """
        checkpoints = self.job_folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True, mode=0o700)
        self._write(self.output.checkpoint(model), checkpoints / f"step-{step}", step, "checkpoint")
        drop_old_steps(checkpoints, self.spec.save_total_limit, best_step)
        self.spool.artifact("checkpoint", f"checkpoints/step-{step}", step=step)

    def save_final(self, model: Any, step: int, last_step: int) -> dict[str, Any]:
        """Save the folder `adapter`, or `model`. Returns its size, and its certificate where it has one, by name.

        `step` is that of the model's weights; where it is not the run's last one, the card says so.
        Raises: DiskFull; JobError where what is on disk is not what was trained.
        """
        kind = self.output.kind
        target = self.job_folder / kind
        best = f"\nThese weights are the best of {last_step} steps: step {step} had the lowest eval loss.\n"
        certificate = self._write(self.output.final(model), target, step, kind, best if step < last_step else "")
        proof = {"certificate": certificate} if certificate else {}
        self.spool.artifact(kind, kind, step=step, **proof)
        return {f"{kind}_bytes": folder_bytes(target), **proof}

    def _write(self, writing: Writing, target: Path, step: int, kind: str, note: str = "") -> Certificate | None:
        meta = {"kind": kind, "base_model": self.base_model, "step": step, "spec": self.spec.model_dump(mode="json")}
        with publish_artifact(target, meta, writing.weights_bytes + _FILES_BYTES) as folder:
            certificate = writing.write(folder)
            if certificate:
                meta["certificate"] = certificate
            self.tokenizer.save_pretrained(folder)
            (folder / "README.md").write_text(self.output.card(step) + note, encoding="utf-8")
        return certificate
