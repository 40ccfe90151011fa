"""Run a finished training again exactly: from its receipt, on the same rows and the same base model.

What the database knows is compared here. The child compares what only it can: the model's files before it trains, and
versions and hardware, where a difference costs the equality to the last bit and is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlmodel import Session

from app.core.datasets.store import find_dataset
from app.core.errors import Conflict
from app.core.jobs.models import Job
from app.core.jobs.receipts import get_receipt
from app.core.jobs.spec import parse_spec
from app.core.jobs.states import EXTENDED_AT
from app.core.jobs.status import JobKind
from app.core.jobs.submit import submit_training
from app.core.models.registry import find_model
from app.core.paths import DataFolder

_SHORT = 12  # characters of a hash that a message shows


def rerun_training(session: Session, folder: DataFolder, source: Job, name: str | None = None) -> Job:
    """Queue `source` again as its receipt says it was run; the new job names it as its source.

    Raises: Conflict that names every difference, InvalidInput where this version no longer takes the receipt's spec.
    """
    if source.kind != JobKind.TRAIN:
        raise Conflict(
            f"Job {source.id} is not a training job ({source.kind}); only training can be run again exactly."
        )
    receipt = get_receipt(folder, source)
    if receipt["result"].get("stopped_by_user"):
        raise Conflict(
            f"Job {source.id} was stopped at step {receipt['result']['steps']}, before its end; a run cannot be "
            "stopped again at just that step.",
            advice=f"To train with the same spec to its end: loradeck jobs clone {source.id}",
        )
    extended_at = receipt["result"].get(EXTENDED_AT)
    if extended_at:
        raise Conflict(
            f"Job {source.id} was made longer at step {extended_at[0]}: until then its learning rate was that of a "
            "shorter run, which one run from the start does not repeat.",
            advice=f"To train as long from the start: loradeck jobs clone {source.id}",
        )
    differences = list(_differences(session, receipt))
    if differences:
        raise Conflict(
            f"Job {source.id} cannot be run again exactly: {'; '.join(differences)}.",
            advice="Register what it was trained on under that name again; "
            f"or train with the same spec on what there is now: loradeck jobs clone {source.id}",
        )
    references = {"base_model": receipt["base_model"]["name"], "dataset": receipt["dataset"]["name"]}
    job = submit_training(session, parse_spec({**receipt["spec"], **references}), name or source.name, folder=folder)
    job.source_job_id = source.id
    session.add(job)
    return job


def _differences(session: Session, receipt: dict[str, Any]) -> Iterator[str]:
    """What of the receipt's data and model is no longer there, or is another one now."""
    then = receipt["dataset"]
    dataset = find_dataset(session, then["name"])
    if dataset is None:
        yield f"dataset {then['name']} is not registered any more"
    elif dataset.rows_sha256 != then["sha256"]:
        hashes = f"sha256 {then['sha256'][:_SHORT]} then, {dataset.rows_sha256[:_SHORT]} now"
        yield f"dataset {dataset.name} holds other rows ({hashes})"
    of_base = receipt["base_model"]
    model = find_model(session, of_base["name"])
    if model is None:
        yield f"base model {of_base['name']} is not registered any more"
        return
    now = {"architecture": model.architecture, "hub_id": model.source.get("hub_id")}
    for key, value in now.items():
        if of_base.get(key) != value:
            yield f"base model {model.name} is of another {key} ({of_base.get(key)} then, {value} now)"
