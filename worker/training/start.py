"""A training that goes on from a saved adapter: its weights in place of those that an adapter begins with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from app.core.errors import Fault, InvalidInput, JobError
from worker.artifacts.folders import folder_fault
from worker.training.adapters import WEIGHTS

logger = logging.getLogger(__name__)

_SHOWN = 3


def take_start(model: Any, start: dict[str, Any]) -> None:
    """Put the weights of {job_id, path} into the model's fresh adapter.

    Raises: JobError where its files are not as they were saved; InvalidInput that names the tensors which only one of
    the two has, or which are of another shape.
    """
    folder = Path(start["path"])
    if fault := folder_fault(folder):
        raise JobError(
            f"The adapter of job {start['job_id']} is not as it was saved: {fault}.",
            advice="Train or import it again, then start this job again.",
        )
    saved, ours = load_file(folder / WEIGHTS), get_peft_model_state_dict(model, save_embedding_layers=False)
    found = [
        *(f"{name} is only in the adapter" for name in sorted(saved.keys() - ours.keys())),
        *(f"{name} is not in the adapter" for name in sorted(ours.keys() - saved.keys())),
        *(
            f"{name} is {_size(saved[name])} in the adapter and {_size(ours[name])} here"
            for name in sorted(saved.keys() & ours.keys())
            if saved[name].shape != ours[name].shape
        ),
    ]
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        message = f"the adapter of job {start['job_id']} is made otherwise: {'; '.join(found[:_SHOWN])}{more}"
        raise InvalidInput([Fault("init_adapter", message, "Set r, target_modules and the like as it has them.")])
    set_peft_model_state_dict(model, saved)
    logger.info("starts from the adapter of job %s: %d tensors", start["job_id"], len(saved))


def _size(tensor: Any) -> str:
    return " by ".join(map(str, tensor.shape))
