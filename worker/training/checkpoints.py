"""Saving what was trained: whole or not at all, old checkpoints removed only once the new one is in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.artifacts.steps import CHECKPOINTS, drop_old_steps, drop_steps_after
from worker.context import JobContext
from worker.patience import save_when_it_fits
from worker.training.identity import hash_values
from worker.training.outputs import Certificate, Output, Writing

_FILES_BYTES = 16 * 1024**2  # tokenizer, configuration and card beside the weights


@dataclass(frozen=True, slots=True)
class Saver:
    """Saves what one job trains below its folder and announces it. On a full disk it waits for room."""

    context: JobContext
    tokenizer: Any
    spec: TrainingSpec
    base_model: dict[str, Any]  # name, architecture, and the dtype that it was trained in
    output: Output

    @property
    def _checkpoints(self) -> Path:
        return self.context.folder / CHECKPOINTS

    def drop_later_checkpoints(self, step: int) -> None:
        """This attempt goes on from `step`: what one before it saved later must not outlive its own."""
        drop_steps_after(self._checkpoints, step)

    def save_checkpoint(self, model: Any, step: int, best_step: int | None = None) -> None:
        """Save `checkpoints/step-N`, then drop the oldest beyond `save_total_limit`, but not the best.

        Raises: JobCancelled where that is asked for while it waits for room.
        """
        self._write(self.output.checkpoint(model), self._checkpoints / f"step-{step}", step, "checkpoint")
        drop_old_steps(self._checkpoints, self.spec.save_total_limit, best_step)
        self.context.spool.artifact("checkpoint", f"{CHECKPOINTS}/step-{step}", step=step)

    def save_final(self, model: Any, step: int, last_step: int) -> dict[str, Any]:
        """Save the folder `adapter`, or `model`. Returns its size, and its certificate where it has one, by name.

        `step` is that of the model's weights; where it is not the run's last one, the card says so.
        Raises: JobCancelled as above; JobError where what is on disk is not what was trained.
        """
        kind = self.output.kind
        target = self.context.folder / kind
        best = f"\nThese weights are the best of {last_step} steps: step {step} had the lowest eval loss.\n"
        certificate = self._write(self.output.final(model), target, step, kind, best if step < last_step else "")
        proof = {"certificate": certificate} if certificate else {}
        self.context.spool.artifact(kind, kind, step=step, **proof)
        return {f"{kind}_bytes": folder_bytes(target), **proof}

    def _write(self, writing: Writing, target: Path, step: int, kind: str, note: str = "") -> Certificate | None:
        card = self.output.card(step) + note
        return save_when_it_fits(self.context, lambda: self._publish(writing, target, step, kind, card))

    def _publish(self, writing: Writing, target: Path, step: int, kind: str, card: str) -> Certificate | None:
        spec = self.spec.model_dump(mode="json")
        meta = {"kind": kind, "base_model": self.base_model, "step": step, "spec": spec, "spec_hash": hash_values(spec)}
        with publish_artifact(target, meta, writing.weights_bytes + _FILES_BYTES) as folder:
            certificate = writing.write(folder)
            if certificate:
                meta["certificate"] = certificate
            self.tokenizer.save_pretrained(folder)
            (folder / "README.md").write_text(card, encoding="utf-8")
        return certificate
