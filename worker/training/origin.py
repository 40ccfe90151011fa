"""What decides a run: a state is of use only to a run with the same origin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from worker.training.identity import hash_values, identify_model

LENGTH = "length"  # may differ: a run can be made longer
_LENGTH_FIELDS = ("max_steps", "num_train_epochs")
_DIFFERS = {  # what to say where a run and a state differ in the rest
    "spec": "it belongs to another spec",
    "dataset": "it belongs to another dataset",
    "base_model": "it belongs to another base model, or its files have changed",
    "rows": "the rows are tokenized otherwise now",
    "start": "the adapter starts otherwise on this machine",
}


def describe_origin(
    payload: Mapping[str, Any], row_lengths: Sequence[int], initial: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """What decides a run, as hashes. `initial` is what `initial_lora` returned: an SVD may differ between machines."""
    start = hashlib.sha256(str((payload.get("init_adapter") or {}).get("sha256", "")).encode())
    for name, tensor in sorted(initial.items()):
        start.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    spec = dict(payload["spec"])
    return {
        LENGTH: hash_values([spec.pop(name, None) for name in _LENGTH_FIELDS]),
        "spec": hash_values(spec),
        "dataset": str(payload["dataset"].get("sha256")),
        "base_model": identify_model(Path(payload["base_model"]["path"])),
        "rows": hash_values(list(row_lengths)),
        "start": start.hexdigest(),
    }


def origin_fault(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """Why a state with the one origin is of no use to a run with the other; None where it is."""
    return next((said for key, said in _DIFFERS.items() if theirs.get(key) != ours[key]), None)
