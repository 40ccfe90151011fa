"""What a job has proven of a model, kept on disk, so that the next job on the same model need not prove it anew.

The proofs are a few forward passes: with a small model on a CPU a fifth of the time from the claim of a job to its
first step. A result is used again only where everything that it follows from is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from app.core.jobs.spec import TrainingSpec
from app.core.paths import write_private
from worker.training.model import Hardware

logger = logging.getLogger(__name__)

Value = TypeVar("Value", bool, Sequence[float])  # as JSON holds it

_DECIDING_CODE = ("attention", "batches", "linear_loss", "losses", "proofs", "varlen")
_PACKAGES = ("peft", "torch", "transformers")
_NOT_DECIDING = {  # fields of a spec that change neither the model nor what it computes before its first step
    "base_model", "dataset", "eval_fraction", "eval_max_rows", "eval_steps", "probe", "save_steps", "save_total_limit",
    "logging_steps", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_ratio",
    "weight_decay", "seed", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps",
}  # fmt: skip

_kept: ContextVar[Path | None] = ContextVar("kept_proofs", default=None)


@contextmanager
def keeping_proofs(folder: str | Path | None, decides: dict[str, Any]) -> Iterator[None]:
    """Inside the block `proven` looks into the file of `folder` that stands for `decides`; without a folder nowhere."""
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    token = _kept.set(Path(folder) / f"{key}.json" if folder else None)
    try:
        yield
    finally:
        _kept.reset(token)


def proven(name: str, prove: Callable[[], Value]) -> Value:
    """What `prove` gives, or gave an earlier job. Raises: what it raises, of which nothing is kept."""
    file = _kept.get()
    if file is None:
        return prove()
    known = _read(file)
    if name in known:
        logger.info("%s: as an earlier job has shown for this model and these settings", name)
        found: Value = known[name]
        return found
    value = prove()
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, json.dumps({**known, name: value}))
    return value


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        known: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        logger.warning("the proofs kept in %s are not used and made anew: %s", file, error)
        return {}
    return known


def what_decides(model_folder: Path, spec: TrainingSpec, hardware: Hardware) -> dict[str, Any]:
    """Everything that the proofs follow from, as plain values: files, settings, machine, code and versions.

    Weights are known by size and time of change: to read them would cost more than the proofs do.
    """
    files = [(file.name, file.stat()) for file in sorted(model_folder.iterdir()) if file.is_file()]
    code = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _DECIDING_CODE]
    on_cuda = hardware.device.type == "cuda"
    return {
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
        "settings": spec.model_dump(mode="json", exclude=_NOT_DECIDING),
        "machine": torch.cuda.get_device_name(hardware.device) if on_cuda else _processor(),
        "dtype": hardware.dtype_name,
        "code": hashlib.sha256(b"\0".join(code)).hexdigest(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
