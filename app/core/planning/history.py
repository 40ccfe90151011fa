"""What this box knows for a plan: its GPU and disk as they are now, and what its finished jobs have shown."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session, select

from app.core.datasets.models import Dataset
from app.core.datasets.store import find_dataset
from app.core.errors import Conflict, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.queries import find_capabilities, latest_reading
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel
from app.core.models.registry import find_model
from app.core.planning.architecture import FIELD
from app.core.planning.calibration import Calibration, calibrate
from app.core.planning.config import load_config
from app.core.planning.finished import FinishedJobs
from app.core.planning.plan import Box, Data, Plan, make_plan
from app.core.planning.schedule import make_schedule


def plan_on_box(
    session: Session,
    home: Path,
    spec: TrainingSpec,
    *,
    config: Mapping[str, Any] | None = None,
    vram_bytes: int | None = None,
) -> Plan:
    """The plan of a spec on this box, or against a card of `vram_bytes`; `config` is that of a model not registered.

    Raises: InvalidInput; Conflict for a model that is still being imported.
    """
    model = None if config is not None else find_model(session, spec.base_model)
    dataset = find_dataset(session, spec.dataset)
    finished = FinishedJobs(session)
    return make_plan(
        _config_of(model, spec) if config is None else config,
        spec,
        find_box(session, home, vram_bytes),
        Data(dataset.rows if dataset is not None else None),
        finished.past(spec, model.id if model else None, dataset.id if dataset else None),
        _calibration(finished, spec, session),
    )


def foresee_seconds(session: Session, jobs: Sequence[Job]) -> list[int | None]:
    """How long each training would take from its start, as its plan has it; None for what cannot be told."""
    finished, rows = FinishedJobs(session), dict(session.exec(select(Dataset.id, Dataset.rows)).all())
    return [_foresee(job, rows.get(job.dataset_id), finished) for job in jobs]


def predict_memory(session: Session, job: Job) -> dict[str, int] | None:
    """The components of a training's peak, as a plan before it would have told them; None where there is no plan."""
    model = session.get(BaseModel, job.base_model_id) if job.base_model_id is not None else None
    if job.kind != JobKind.TRAIN or model is None or model.path is None:
        return None
    try:
        spec = parse_spec(job.spec)
        calibration = _calibration(FinishedJobs(session, before=job.key), spec, session)
        return make_plan(load_config(Path(model.path)), spec, calibration=calibration).components
    except InvalidInput:  # a model of a kind that the plan does not know, or whose folder is gone
        return None


def find_calibration(session: Session, spec: TrainingSpec) -> Calibration | None:
    """What finished jobs of the spec's method have shown on the device that is there now; None without any."""
    return _calibration(FinishedJobs(session), spec, session)


def find_box(session: Session, home: Path, vram_bytes: int | None = None) -> Box:
    """The box as the worker has read it last; a card's size that was named goes before the GPU that is there."""
    can = find_capabilities(session) or {}
    vram, source = (vram_bytes, "the card that was named") if vram_bytes else _live_vram(session)
    known = "bf16" in can
    return Box(
        vram_bytes=vram,
        vram_source=source,
        cuda=bool(can["cuda"]) if known else None,
        bf16=bool(can["bf16"]) if known else None,
        disk_free_bytes=shutil.disk_usage(home).free,
    )


def _live_vram(session: Session) -> tuple[int | None, str | None]:
    """What a job could have of the first device: all but what processes other than a job's hold now."""
    reading = latest_reading(session) or {}
    for device in reading.get("devices", []):
        total, used = device.get("vram_total_bytes"), device.get("vram_used_bytes")
        if total is None:
            continue
        others = max(0, (used or 0) - (device.get("process_vram_bytes") or 0))
        name = device.get("name") or "the GPU"
        return total - others, f"{name}, less what other processes hold now" if others else name
    return None, None


def _config_of(model: BaseModel | None, spec: TrainingSpec) -> dict[str, Any]:
    if model is None:
        raise InvalidInput(f"{spec.base_model!r:.100} is not registered here; its config.json is needed.", field=FIELD)
    if model.path is None:
        raise Conflict(f"{model.name} is still being imported; its config.json is not there yet.", field=FIELD)
    return load_config(Path(model.path))


def _foresee(job: Job, rows: int | None, finished: FinishedJobs) -> int | None:
    if job.kind != JobKind.TRAIN:
        return None
    spec = parse_spec(job.spec)
    return make_schedule(spec, rows, finished.past(spec, job.base_model_id, job.dataset_id)).seconds


def _calibration(finished: FinishedJobs, spec: TrainingSpec, session: Session) -> Calibration | None:
    """From jobs of this method on the device that is there now."""
    device = (find_capabilities(session) or {}).get("device_name")
    return calibrate(finished.residuals(spec.method, device))
