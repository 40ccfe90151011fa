"""A job that runs another one again exactly: what must be the same is checked before it trains, the rest is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.errors import JobError
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext
from worker.training.model import Hardware
from worker.training.receipt import describe_hardware, describe_versions, hash_model

logger = logging.getLogger(__name__)

_DECIDING = ("device", "device_name", "dtype", "cuda", "threads", "machine")  # of the hardware: these change rounding


def check_rerun(context: JobContext, spec: TrainingSpec, hardware: Hardware) -> dict[str, Any]:
    """Compare this run with the receipt of the one that it repeats; returns what the summary says of it.

    That is nothing for a job that repeats none, else {rerun_of, rerun_differences: ["peft: 0.20 then, 0.21 now", …]}.
    Raises: JobError where the rows or the model's files are others.
    """
    rerun = context.payload.get("rerun")
    if rerun is None:
        return {}
    receipt, base, hardware_now = rerun["receipt"], context.payload["base_model"], describe_hardware(hardware)
    _require_same(rerun["job_id"], "dataset", receipt["dataset"], context.payload["dataset"]["sha256"])
    _require_same(rerun["job_id"], "base model", receipt["base_model"], hash_model(Path(base["path"])))
    if receipt.get("init_adapter") is not None:
        start = context.payload["init_adapter"]
        _require_same(rerun["job_id"], "adapter to start from", receipt["init_adapter"], start["sha256"])
    found = [
        *_compare(receipt["versions"], describe_versions(spec, hardware)),
        *_compare(receipt["hardware"], {key: hardware_now[key] for key in _DECIDING}),
    ]
    if found:
        differing = "; ".join(found)
        logger.warning("runs job %s again, perhaps not to the last bit: these differ: %s", rerun["job_id"], differing)
    else:
        logger.info("runs job %s again: same rows, model, versions and hardware", rerun["job_id"])
    return {"rerun_of": rerun["job_id"], "rerun_differences": found}


def _require_same(job_id: int, what: str, then: Mapping[str, Any], now: str) -> None:
    if then["sha256"] != now:
        raise JobError(
            f"Job {job_id} cannot be run again exactly: {what} {then['name']} has changed since "
            f"(sha256 {then['sha256'][:12]} then, {now[:12]} now).",
            advice=f"Put the files of that time back; or train on those of today: loradeck jobs clone {job_id}",
        )


def _compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {then.get(key)} then, {value} now" for key, value in now.items() if then.get(key) != value]
