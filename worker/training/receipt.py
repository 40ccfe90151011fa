"""The receipt of a finished training job: everything that decided its result, so that it can be run again exactly."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from app import __version__
from app.core.jobs.capabilities import BITSANDBYTES, needs_bitsandbytes
from app.core.jobs.receipts import RECEIPT, RECEIPT_FORMAT
from app.core.jobs.spec import TrainingSpec
from app.core.paths import fsync_folder
from worker.artifacts.disk import telling_full_disk
from worker.base_models.publish import files_of, hash_file
from worker.context import JobContext
from worker.patience import save_when_it_fits
from worker.training.model import Hardware

_PACKAGES = ("accelerate", "peft", "safetensors", "tokenizers", "torch", "transformers")
_MODEL_SUFFIXES = (".json", ".jinja", ".model", ".safetensors", ".txt")


def write_receipt(context: JobContext, spec: TrainingSpec, hardware: Hardware, summary: dict[str, Any]) -> Path:
    """Write `receipt.json` into the job's folder, whole or not at all. Returns its path.

    On a full disk it waits for room. Raises: JobCancelled where that is asked for meanwhile.
    """
    dataset, base = context.payload["dataset"], context.payload["base_model"]
    receipt = {
        "format": RECEIPT_FORMAT,
        "job_id": context.assignment.job_id,
        "attempt": context.assignment.attempt,
        "created_at": time.time(),
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "dataset": {key: dataset.get(key) for key in ("name", "format", "sha256", "source")},
        "base_model": {
            **{key: base.get(key) for key in ("name", "architecture", "hub_id", "revision")},
            "sha256": hash_model(Path(base["path"])),
        },
        "init_adapter": _name_start(context.payload.get("init_adapter")),
        "versions": describe_versions(spec, hardware),
        "hardware": describe_hardware(hardware),
        "result": summary,
    }
    target = context.folder / RECEIPT
    content = json.dumps(receipt, indent=2, ensure_ascii=False, allow_nan=False).encode()
    save_when_it_fits(context, lambda: _replace(target, content))
    return target


def _name_start(start: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if start is None else {"name": f"of job {start['job_id']}", "sha256": start["sha256"]}


def _replace(target: Path, content: bytes) -> None:
    """Raises: DiskFull."""
    staged = target.with_name(f".{target.name}")
    with telling_full_disk(target, len(content)):
        with staged.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        staged.replace(target)
        fsync_folder(target.parent)


def hash_model(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for file in files_of(folder):
        if file.suffix in _MODEL_SUFFIXES and file.name != "meta.json":
            digest.update(f"{file.relative_to(folder)}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def describe_versions(spec: TrainingSpec, hardware: Hardware) -> dict[str, str]:
    """Versions of everything that computes."""
    more = (BITSANDBYTES,) if needs_bitsandbytes(spec, on_cuda=hardware.device.type == "cuda") else ()
    return {
        "loradeck": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in (*_PACKAGES, *more)},
    }


def describe_hardware(hardware: Hardware) -> dict[str, Any]:
    """What the run computes on, and in which type."""
    on_cuda = hardware.device.type == "cuda"
    return {
        "device": str(hardware.device),
        "device_name": torch.cuda.get_device_name(hardware.device) if on_cuda else platform.processor() or None,
        "dtype": hardware.dtype_name,
        "cuda": torch.version.cuda if on_cuda else None,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "ram_total_bytes": psutil.virtual_memory().total,
    }
