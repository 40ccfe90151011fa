"""What a worker notes of a job that ran out of memory, as tests need it."""

from __future__ import annotations

from typing import Any

GIB = 2**30


def make_autopsy(**changes: Any) -> dict[str, Any]:
    """Of a job on a card of 12 GiB, in its third step; keywords override."""
    return {
        "memory": "device",
        "reason": "CUDA out of memory. GPU 0 has 1 of 12 GiB free. Of the allocated memory 9 GiB is by PyTorch.",
        "phase": "train",
        "step": 3,
        "time": 100.0,
        "batch": {
            "step": 3, "micro_batch": 1, "sequences": 4, "tokens": 1800, "places": 2048,
            "longest": [[17, 512], [4, 500], [9, 400], [30, 388]],
            "rows_in_all": 1000, "longest_row": 512, "longer_than": [[256, 8], [128, 700]],
        },
        "allocator": {
            "source": "cuda", "allocated_bytes": 9 * GIB, "peak_allocated_bytes": 10 * GIB, "reserved_bytes": 11 * GIB,
            "inactive_split_bytes": GIB // 2, "retries": 1, "free_bytes": GIB, "total_bytes": 14 * GIB,
            "held": {"weights": 8 * GIB, "gradients": GIB // 4, "optimizer": GIB // 2, "other": GIB // 8},
        },
        "device": {
            "index": 0, "name": "NVIDIA GeForce RTX 3060", "vram_total_bytes": 14 * GIB, "vram_used_bytes": 13 * GIB,
            "process_vram_bytes": 12 * GIB,
            "processes": [
                {"pid": 812, "name": "python3.11", "process_vram_bytes": 12 * GIB, "is_child": True},
                {"pid": 99, "name": "<b>firefox", "process_vram_bytes": GIB, "is_child": False},
            ],
        },
        "host": None,
        **changes,
    }  # fmt: skip


def make_error(**changes: Any) -> dict[str, Any]:
    """The job's error with this autopsy."""
    return {
        "kind": "out_of_memory",
        "message": "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "advice": "See the page.",
        "autopsy": make_autopsy(**changes),
        "log_tail": [],
    }
