"""Queue a merge: of which adapter, onto which weights, in which type; what cannot be merged is refused here."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import find_artifact, list_artifacts, trained_kind
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.inputs import find_changes
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

MERGE_DTYPES = ("bf16", "fp16", "fp32")
ONTO = ("trained", "original")  # of QLoRA: its dequantised base, or the weights that this was quantised from
_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
_SPARE_BYTES = 100 * 1024**2  # tokenizer and the like, and what is to stay free


def submit_merge(
    session: Session, folder: DataFolder, source: Job, dtype: str = "bf16", onto: str = "trained",
    checkpoint: int | None = None,
) -> Job:  # fmt: skip
    """Queue the merge of an adapter, trained here or elsewhere, or of a kept checkpoint, into its base model.

    Raises: InvalidInput with every faulty field; Conflict where there is nothing to merge, its base is gone or another
    one by now, or the disk is too full.
    """
    faults = [*_faults(source, dtype, onto)]
    if faults:
        raise InvalidInput(faults)
    get_mergeable(session, source, checkpoint)
    base = _require_base(session, source)
    _require_room(folder, base, dtype)
    at_step = f" at step {checkpoint}" if checkpoint is not None else ""
    job = Job(
        name=f"merge {source.name}{at_step}"[:200],
        kind=JobKind.MERGE,
        spec={"job": source.id, "dtype": dtype, "onto": onto, "checkpoint": checkpoint},
        base_model_id=source.base_model_id,
        source_job_id=source.id,
        priority=1,
        created_at=time.time(),
    )
    return enqueue(session, job)


def _faults(source: Job, dtype: str, onto: str) -> list[Fault]:
    faults = []
    if dtype not in MERGE_DTYPES:
        faults.append(Fault("dtype", f"{dtype!r} is not one of {', '.join(MERGE_DTYPES)}"))
    if onto not in ONTO:
        faults.append(Fault("onto", f"{onto!r} is not one of {', '.join(ONTO)}"))
    elif onto == "original" and source.spec.get("method") != "qlora":
        message = "the adapter was trained on the original weights"
        faults.append(Fault("onto", message, "Only a QLoRA adapter has another base; leave it out."))
    return faults


def get_mergeable(session: Session, source: Job, checkpoint: int | None = None) -> Artifact:
    """The adapter, or the checkpoint of that step. Raises: Conflict that says what there is instead."""
    if source.kind not in (JobKind.TRAIN, JobKind.ADAPTER):
        raise Conflict(f"Job {source.id} is not a training job ({source.kind}); only a training job saves an adapter.")
    if trained_kind(source) != "adapter":
        raise Conflict(
            f"Job {source.id} trains every weight: there is no adapter to merge.",
            advice=f"Download its model, which is whole: loradeck artifacts download {source.id} model -o model.zip",
        )
    kind = "adapter" if checkpoint is None else "checkpoint"
    found = find_artifact(session, source, kind, checkpoint)
    if found is not None:
        return found
    steps = sorted(a.step for a in list_artifacts(session, source) if a.kind == "checkpoint" and a.step is not None)
    kept = f"It has checkpoints at steps {', '.join(map(str, steps))}: name one of them." if steps else None
    what = "adapter" if checkpoint is None else f"checkpoint at step {checkpoint}"
    raise Conflict(f"Job {source.id} ({source.status}) has no {what}.", advice=kept or "Wait until it is completed.")


def _require_base(session: Session, source: Job) -> BaseModel:
    """Raises: Conflict where the base model is gone, or its files are not those that the adapter was trained on."""
    base = session.get(BaseModel, source.base_model_id) if source.base_model_id is not None else None
    if base is None or base.path is None or not Path(base.path).is_dir():
        where = f" ({base.path})" if base is not None and base.path else ""
        name = base.name if base is not None else source.spec.get("base_model", "")
        raise Conflict(f"The base model {name} of job {source.id} is gone{where}.", advice="Put it back as it was.")
    then = (source.inputs or {}).get("model_files")
    changes = ", ".join(find_changes(Path(base.path), then)) if then else ""
    if changes:
        done = "imported onto" if source.kind == JobKind.ADAPTER else "trained on"
        message = f"Base model {base.name} is not the one that job {source.id} was {done} ({base.path}: {changes})."
        raise Conflict(message, advice="Put it back as it was. The adapter itself can be downloaded.")
    return base


def forecast_bytes(base: BaseModel, dtype: str) -> int:
    """What the merged model takes on the disk, about."""
    return _BYTES[dtype] * (base.parameters or 0) + _SPARE_BYTES


def _require_room(folder: DataFolder, base: BaseModel, dtype: str) -> None:
    needed, free = forecast_bytes(base, dtype), shutil.disk_usage(folder.home).free
    if free < needed:
        raise Conflict(
            f"Disk full: the merged model takes {_gib(needed)} in {dtype}; {folder.home} has {_gib(free)} free.",
            advice="Delete old jobs or models, or move LORADECK_HOME to a larger disk.",
        )


def _gib(count: int) -> str:
    return f"{count / 1024**3:,.2f} GiB"


def merge_payload(session: Session, folder: DataFolder, source: Job, spec: dict[str, Any]) -> dict[str, Any]:
    """What the merge's process is told beside its base model. Raises: Conflict where its adapter has gone meanwhile."""
    artifact = get_mergeable(session, source, spec.get("checkpoint"))
    return {
        "adapter_path": str((folder.job(artifact.job_id) / artifact.path).resolve()),
        "adapter_job_id": source.id,
        "checkpoint": spec.get("checkpoint"),
        "dtype": spec["dtype"],
        "onto": spec.get("onto", "trained"),
        "model_files": (source.inputs or {}).get("model_files"),
        "held_out": _held_out(session, folder, source),
    }


def _held_out(session: Session, folder: DataFolder, source: Job) -> dict[str, Any] | None:
    """Where the rows are that the training held out; None where it held out none, or its dataset is gone."""
    dataset = session.get(Dataset, source.dataset_id) if source.dataset_id is not None else None
    if source.kind != JobKind.TRAIN or dataset is None or not source.spec.get("eval_fraction"):
        return None
    return {"path": str(rows_path(folder, dataset).resolve()), "sha256": dataset.rows_sha256, "spec": source.spec}
