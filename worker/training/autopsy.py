"""What memory held when it ran out, for the job's page. Runs in the child, behind the error; nothing here allocates."""

from __future__ import annotations

import gc
import logging
import resource
from collections.abc import Iterable
from typing import Any

import psutil
import torch

from worker.training.device_limit import DeviceLimitReached

logger = logging.getLogger(__name__)

_STATS = {  # ours: PyTorch's
    "allocated_bytes": "allocated_bytes.all.current",
    "peak_allocated_bytes": "allocated_bytes.all.peak",
    "reserved_bytes": "reserved_bytes.all.current",
    "inactive_split_bytes": "inactive_split_bytes.all.current",
    "retries": "num_alloc_retries",
}


def describe_allocator(error: BaseException) -> dict[str, Any]:
    """What the allocator says: of CUDA, of the live storages under a test's limit, else of the process.

    `free_bytes` and `total_bytes` are the memory's own; `held` is what Python still holds, by what it is.
    """
    if isinstance(error, DeviceLimitReached):
        figures: dict[str, Any] = {"source": "limit", **error.figures()}
    else:
        figures = _cuda() if torch.cuda.is_available() else _process()
    return {**figures, "held": count_held_bytes(gc.get_objects())}


def _cuda() -> dict[str, Any]:
    """By then the failed step's own tensors may be gone: `peak_allocated_bytes` is what it came to."""
    stats = torch.cuda.memory_stats()
    free, total = torch.cuda.mem_get_info()
    logger.error("%s", torch.cuda.memory_summary(abbreviated=True))
    figures = {name: stats.get(theirs) for name, theirs in _STATS.items()}
    return {"source": "cuda", **figures, "free_bytes": free, "total_bytes": total}


def _process() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        "source": "process",
        "rss_bytes": psutil.Process().memory_info().rss,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "free_bytes": memory.available,
        "total_bytes": memory.total,
    }


def count_held_bytes(objects: Iterable[Any]) -> dict[str, int]:
    """Bytes of the tensors among Python's objects, by what they are: {weights, gradients, optimizer, other}.

    A storage that several share counts once. What autograd alone holds is not among them.
    """
    tensors: dict[str, list[torch.Tensor]] = {"weights": [], "gradients": [], "optimizer": [], "other": []}
    for each in objects:
        kind = type(each)  # isinstance would ask the object, which may answer at length
        if issubclass(kind, torch.nn.Parameter):
            tensors["weights"].append(each)
            tensors["gradients"] += [each.grad] if each.grad is not None else []
        elif issubclass(kind, torch.Tensor):
            tensors["other"].append(each)
        elif issubclass(kind, torch.optim.Optimizer):
            tensors["optimizer"] += [v for state in each.state.values() for v in state.values() if torch.is_tensor(v)]
    seen: set[int] = set()
    return {what: sum(_new_bytes(each, seen) for each in group) for what, group in tensors.items()}


def _new_bytes(tensor: torch.Tensor, seen: set[int]) -> int:
    storage = tensor.untyped_storage()
    if storage._cdata in seen:
        return 0
    seen.add(storage._cdata)
    return storage.nbytes()
