"""Whether a job is about to train on what it was queued on: looked at before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from app.core.errors import JobError
from app.core.jobs.inputs import SPEC, find_changes, hash_content
from worker.context import JobContext
from worker.training.reading import hash_rows

_SHOWN = 12  # characters of a hash in a message


class InputChanged(JobError):
    """What the job was queued on has changed since."""

    code: ClassVar[str] = "input_changed"


def check_inputs(context: JobContext) -> None:
    """Compare spec, rows and base model with what they were when the job was queued. What was not kept may be anything.

    Costs the reading of the rows' file: about a second per GB. Raises: InputChanged that names every file.
    """
    then, job = context.payload.get("inputs") or {}, context.assignment.job_id
    changes = [
        *_changes_of_spec(context.folder / SPEC, then.get("spec_sha256")),
        *_changes_of_model(context.payload["base_model"], then.get("model_files")),
        *_changes_of_rows(context.payload["dataset"], then.get("dataset_sha256")),
        *_changes_of_start(context.payload.get("init_adapter"), then.get("init_adapter_sha256")),
    ]
    if changes:
        raise InputChanged(
            f"Not what the job was queued on any more: {'; '.join(changes)}.",
            advice="Put it back as it was, then start the job again; "
            f"or train on what is there now: loradeck jobs clone {job}",
        )


def _changes_of_spec(path: Path, sha256: str | None) -> Iterator[str]:
    if sha256 is None:
        return
    if not path.is_file():
        yield f"the job's spec is gone ({path})"
    elif (now := hash_content(path)) != sha256:
        yield f"the job's spec was edited ({path}: {_hashes(sha256, now)})"


def _changes_of_model(base: Mapping[str, Any], files: Mapping[str, Any] | None) -> Iterator[str]:
    folder = Path(base["path"])
    if not folder.is_dir():
        yield f"the folder of base model {base['name']} is gone ({folder})"
    elif found := list(find_changes(folder, files)) if files is not None else []:
        yield f"base model {base['name']} has changed ({folder}: {', '.join(found)})"


def _changes_of_rows(dataset: Mapping[str, Any], sha256: str | None) -> Iterator[str]:
    path, then = Path(dataset["path"]), sha256 or dataset.get("sha256")
    if not path.is_file():
        yield f"the rows of dataset {dataset['name']} are gone ({path})"
    elif then and (now := hash_rows(path)) != then:
        yield f"the rows of dataset {dataset['name']} have changed ({path}: {_hashes(then, now)})"


def _changes_of_start(start: Mapping[str, Any] | None, sha256: str | None) -> Iterator[str]:
    """Its files are compared with what was saved of them when they are loaded."""
    if start is not None and sha256 and start["sha256"] != sha256:
        yield f"the adapter of job {start['job_id']} is another one ({_hashes(sha256, start['sha256'])})"


def _hashes(then: str, now: str) -> str:
    return f"SHA-256 {then[:_SHOWN]} then, {now[:_SHOWN]} now"
