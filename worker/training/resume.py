"""The training state saved with each checkpoint: all that a run needs to go on as if it had never been interrupted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from app.core.errors import JobError
from worker.artifacts.folders import (
    META,
    STATE,
    current_versions,
    drop_old_steps,
    drop_steps_after,
    folder_fault,
    publish_artifact,
    step_folders,
)
from worker.training.best import BestEval
from worker.training.identity import identify_model

logger = logging.getLogger(__name__)

KEPT_STATES = 2
_WEIGHTS = "trainable.safetensors"
_PROGRESS = "progress.json"
_TRAINER = "trainer_state.json"  # by this name the Trainer looks for it
_SMALL_FILES_BYTES = 1024**2
_ORIGINS = {  # what a run and a state must have in common, and what to say where they differ
    "spec": "it belongs to another spec",
    "dataset": "it belongs to another dataset",
    "base_model": "it belongs to another base model, or its files have changed",
    "rows": "the rows are tokenized otherwise now",
    "start": "the adapter starts otherwise on this machine",
}


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that verifies. `progress` is what `StateStore.save` was given."""

    step: int
    folder: Path
    progress: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StateStore:
    """The states of one job, `state/step-N` below its folder. `origin` is what `describe_origin` returned."""

    job_folder: Path
    origin: Mapping[str, str]
    device: str

    @property
    def folder(self) -> Path:
        """Where the states lie."""
        return self.job_folder / STATE

    def save(self, trainer: Trainer, progress: Mapping[str, Any], best_step: int | None) -> None:
        """Save the state after the Trainer's last step, then drop all but the newest two and the best, if it verifies.

        Raises: DiskFull before anything is written.
        """
        step = trainer.state.global_step
        meta = {"kind": "state", "step": step, "origin": dict(self.origin), "machine": self._machine}
        with publish_artifact(self.folder / f"step-{step}", meta, _bytes_needed(trainer)) as folder:
            _write(trainer, folder, progress)
        drop_old_steps(self.folder, KEPT_STATES, best_step)

    def find(self) -> SavedState | None:
        """The newest state that verifies and is this run's own; the log says why others are passed over."""
        for step, folder in reversed(step_folders(self.folder)):
            fault = folder_fault(folder) or self._origin_fault(folder)
            if fault:
                logger.warning("the training state of step %d is passed over: %s", step, fault)
                continue
            logger.info("going on from the training state of step %d", step)
            self._warn_of_differences(folder)
            return SavedState(step, folder, json.loads((folder / _PROGRESS).read_bytes()))
        return None

    def drop_later(self, step: int) -> None:
        """Remove the states of steps after `step`."""
        drop_steps_after(self.folder, step)

    def take_best(self, model: Any, best: BestEval, last_step: int) -> int:
        """With a patience, put the weights of the best eval back into the model. Returns the step of its weights."""
        if best.patience is None or best.step in (None, last_step):
            return last_step
        folder = self.folder / f"step-{best.step}"
        fault = folder_fault(folder)
        if fault:
            logger.warning("the best weights, of step %d, cannot be had: %s; the last are saved", best.step, fault)
            return last_step
        load_trainable(model, folder)
        logger.info("the weights of step %d are saved: the best eval loss, %.4f", best.step, best.loss)
        return best.step or last_step

    def _origin_fault(self, folder: Path) -> str | None:
        theirs = json.loads((folder / META).read_bytes()).get("origin", {})
        return next((said for key, said in _ORIGINS.items() if theirs.get(key) != self.origin[key]), None)

    @property
    def _machine(self) -> dict[str, Any]:
        return {"device": self.device, "threads": torch.get_num_threads()}

    def _warn_of_differences(self, folder: Path) -> None:
        """Other software or hardware rounds otherwise: the run goes on, but is not bit-equal to one without a break."""
        meta = json.loads((folder / META).read_bytes())
        before, now = {**meta.get("versions", {}), **meta.get("machine", {})}, {**current_versions(), **self._machine}
        changed = [f"{name} {before[name]} (now {now.get(name)})" for name in before if before[name] != now.get(name)]
        if changed:
            logger.warning(
                "saved with %s: the run may differ in the last digits from one without a break", ", ".join(changed)
            )


def describe_origin(
    payload: Mapping[str, Any], row_lengths: Sequence[int], initial: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """What decides a run, as hashes. `initial` is what `initial_lora` returned: an SVD may differ between machines."""
    start = hashlib.sha256()
    for name, tensor in sorted(initial.items()):
        start.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "spec": _hash(payload["spec"]),
        "dataset": str(payload["dataset"].get("sha256")),
        "base_model": identify_model(Path(payload["base_model"]["path"])),
        "rows": _hash(list(row_lengths)),
        "start": start.hexdigest(),
    }


def load_trainable(model: Any, folder: Path) -> None:
    """Put a state's weights into the model's trainable tensors. Raises: JobError where these are not the same ones."""
    saved, trainable = load_file(folder / _WEIGHTS), dict(_trainable(model))
    if saved.keys() != trainable.keys():
        odd = sorted(saved.keys() ^ trainable.keys())
        raise JobError(
            f"The training state in {folder} does not fit the model: {len(odd)} tensors are only in one of them, "
            f"such as {odd[0]}.",
            advice="Clone the job to train from the start.",
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(saved[name])


def _write(trainer: Trainer, folder: Path, progress: Mapping[str, Any]) -> None:
    """Weights and progress are ours; the rest is as the Trainer writes and reads it itself."""
    save_file(
        {name: parameter.detach().contiguous() for name, parameter in _trainable(trainer.model)}, folder / _WEIGHTS
    )
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_rng_state(str(folder))
    trainer.state.save_to_json(str(folder / _TRAINER))
    (folder / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")


def _trainable(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _bytes_needed(trainer: Trainer) -> int:
    weights = (parameter for _name, parameter in _trainable(trainer.model))
    optimizer: Any = trainer.optimizer
    states = (value for state in optimizer.state.values() for value in state.values())
    tensors = (value for value in (*weights, *states) if isinstance(value, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _SMALL_FILES_BYTES


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
