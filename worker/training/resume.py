"""The training state saved with each checkpoint: all that a run needs to go on as if it had never been interrupted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerState

from app.core.errors import JobError
from worker.artifacts.disk import DiskFull
from worker.artifacts.folders import META, STATE, current_versions, folder_fault, publish_artifact
from worker.artifacts.steps import drop_old_steps, drop_steps_after, step_folders
from worker.training.best import BestEval
from worker.training.origin import LENGTH, origin_fault

logger = logging.getLogger(__name__)

KEPT_STATES = 2
_WEIGHTS = "trainable.safetensors"
_PROGRESS = "progress.json"
_TRAINER = "trainer_state.json"  # by this name the Trainer looks for it
_SMALL_FILES_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that verifies. `progress` is what `StateStore.save` was given; `ended` whether no step is left."""

    step: int
    folder: Path
    progress: dict[str, Any]
    ended: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Where a run begins: at a state, or at step 0 without one; and which were passed over, the newest first."""

    state: SavedState | None = None
    passed_over: list[dict[str, Any]] = field(default_factory=list)  # {step, reason}

    @property
    def step(self) -> int:
        return self.state.step if self.state else 0


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

    def save(
        self, trainer: Trainer, progress: Mapping[str, Any], best_step: int | None, *, ended: bool = False
    ) -> None:
        """Save the state after the Trainer's last step, then drop all but the newest two and the best, if it verifies.

        `ended`: the run has no more steps. Raises: DiskFull.
        """
        step, origin = trainer.state.global_step, dict(self.origin)
        meta = {"kind": "state", "step": step, "ended": ended, "origin": origin, "machine": self._machine}
        with publish_artifact(self.folder / f"step-{step}", meta, _bytes_needed(trainer)) as folder:
            _write(trainer, folder, progress)
        drop_old_steps(self.folder, KEPT_STATES, best_step)

    def keep_end(self, trainer: Trainer, progress: Mapping[str, Any], best: BestEval) -> None:
        """Save the state of a run's end: saving the result may be interrupted, too, and a run may be made longer later.

        A run that was asked to stop has steps left. Where there is no room it goes without.
        """
        ended = trainer.state.global_step >= trainer.state.max_steps or best.stopped
        try:
            self.save(trainer, progress, best.kept_step, ended=ended)
        except DiskFull as error:
            logger.warning("the training state of the end is not kept, so the run cannot be made longer: %s", error)

    def find(self, up_to: int | None = None) -> Found:
        """The newest state that verifies and is this run's own, of those up to a step; log and result say what is not.

        A step of 0 is the run's start, before any state.
        """
        passed_over: list[dict[str, Any]] = []
        for step, folder in reversed(step_folders(self.folder)):
            if up_to is not None and step > up_to:
                continue
            fault = folder_fault(folder) or origin_fault(_read_meta(folder).get("origin", {}), self.origin)
            if fault is None:
                logger.info("going on from the training state of step %d", step)
                self._warn_of_differences(folder)
                return Found(self._open(step, folder), passed_over)
            logger.warning("the training state of step %d is passed over: %s", step, fault)
            passed_over.append({"step": step, "reason": fault})
        return Found(None, passed_over)

    def _open(self, step: int, folder: Path) -> SavedState:
        meta = _read_meta(folder)
        ended = meta["ended"] and meta["origin"][LENGTH] == self.origin[LENGTH]
        return SavedState(step, folder, json.loads((folder / _PROGRESS).read_bytes()), ended)

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

    @property
    def _machine(self) -> dict[str, Any]:
        return {"device": self.device, "threads": torch.get_num_threads()}

    def _warn_of_differences(self, folder: Path) -> None:
        """Other software or hardware rounds otherwise: the run goes on, but is not bit-equal to one without a break."""
        meta = _read_meta(folder)
        before, now = {**meta.get("versions", {}), **meta.get("machine", {})}, {**current_versions(), **self._machine}
        changed = [f"{name} {before[name]} (now {now.get(name)})" for name in before if before[name] != now.get(name)]
        if changed:
            logger.warning(
                "saved with %s: the run may differ in the last digits from one without a break", ", ".join(changed)
            )


def _read_meta(folder: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((folder / META).read_bytes())
    return meta


def describe_beginning(begun: Found) -> dict[str, Any]:
    """What the job's summary says of it."""
    return {
        "resumed_from_step": begun.state.step if begun.state else None,
        "states_passed_over": begun.passed_over,
    }


def take_end(trainer: Trainer, end: SavedState) -> None:
    """Put the trainer where it was when its run had ended, to be saved."""
    load_trainable(trainer.model, end.folder)
    trainer.state = TrainerState.load_from_json(str(end.folder / _TRAINER))


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
