"""What a run on a GPU held in fact, by component, beside what was planned for it: later plans are corrected by it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec
from app.core.planning.calibration import in_groups
from app.core.planning.config import load_config
from app.core.planning.plan import Data, make_plan
from worker.training.model import Hardware

logger = logging.getLogger(__name__)


class MemoryMarks:
    """Reads CUDA's allocator once the model is loaded and once the run is over; on a CPU there is nothing to read."""

    def __init__(self, model: Any, hardware: Hardware) -> None:
        """Take it as soon as the model is as it will be trained: what is allocated then are weights and adapter."""
        self._device, self._in_float32 = hardware.device, hardware.dtype == torch.float32
        if self._device.type != "cuda":
            return
        learning = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        self._adapter = learning if hasattr(model, "peft_config") else 0
        self._loaded = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)

    def summary(self, model_folder: str | Path, spec: TrainingSpec, longest_row: int) -> dict[str, Any]:
        """{memory: {device, allocated_bytes, planned, measured}}, bytes by group; empty on a CPU, or without a plan.

        To be called after the last step, while the optimizer is there and gradients are not.
        """
        if self._device.type != "cuda":
            return {}
        try:
            planned_for = spec.model_copy(update={"bf16": not self._in_float32})
            plan = make_plan(load_config(Path(model_folder)), planned_for, data=Data(longest_row=longest_row))
        except InvalidInput as error:
            logger.info("no plan to hold the measured memory against: %s", error.message)
            return {}
        if plan.components is None:
            return {}
        held, peak = torch.cuda.memory_allocated(self._device), torch.cuda.max_memory_allocated(self._device)
        measured = {
            "weights": self._loaded - self._adapter,
            "adapter": self._adapter,
            "optimizer": held - self._loaded,
            "working": peak - held,
        }
        name = torch.cuda.get_device_name(self._device)
        planned = in_groups(plan.components)
        return {"memory": {"device": name, "allocated_bytes": peak, "planned": planned, "measured": measured}}
