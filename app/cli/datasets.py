"""`loradeck datasets …`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_fields, print_json, print_table
from app.core.datasets.columns import parse_columns
from app.core.datasets.reader import SUFFIXES
from app.core.errors import AppError, DatasetImportError, Fault, InvalidInput
from app.core.jobs.status import ENDED, JobStatus
from app.core.names import is_hub_id

app = typer.Typer(help="Register and look at datasets.", no_args_is_help=True)

_FIELDS = ["id", "name", "status", "kind", "format", "recognised_by", "source", "columns", "rows", "sha256"]
_POLL_SECONDS = 0.5
_WAIT_SECONDS = 30  # for the answer to an upload; then its job is asked


class NoWorker(AppError):
    """No worker is running."""

    code = "no_worker"

    def __init__(self, message: str) -> None:
        super().__init__(message, advice="Start one with `loradeck worker`; it goes on by itself then.")


@app.command("add")
def add(
    source: Annotated[str, typer.Argument(metavar="FILE_OR_HUB_ID")],
    name: Annotated[str | None, typer.Option(help="Default: the file's name, or the name in the hub id.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Read a column as a format's field, as instruction=question."),
    ] = None,
    config: Annotated[str | None, typer.Option(help="Of a hub dataset that has several.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a hub dataset that has several.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub dataset: a branch, tag or commit.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until its rows are checked; exit code 1 or 2 if it fails.")] = True,
    *,
    json: AsJson = False,
) -> None:
    """Register a JSON, JSONL, CSV or Parquet file, or a dataset of the Hugging Face hub (owner/name).

    The format is recognised by the rows' fields: messages, sharegpt, alpaca, dolly, prompt_completion, text,
    preference, preference_alpaca, preference_sharegpt.
    """
    of_hub = {"config": config, "split": split, "revision": revision}
    if _is_file(source, of_hub):
        dataset = _upload(Client(), Path(source), name, column or [], wait)
    else:
        body = {"hub_id": source, "name": name, "columns": parse_columns(column or []), **of_hub}
        dataset = _import(Client(), body, wait)
    if json:
        print_json(dataset)
    else:
        origin = {name: value for name, value in dataset["source"].items() if name != "files"}
        print_fields({**dataset, "source": origin}, _FIELDS)


def _is_file(source: str, of_hub: Mapping[str, str | None]) -> bool:
    """Whether a file is meant. Raises: InvalidInput for what is neither that nor a hub id."""
    path = Path(source)
    if not path.exists() and is_hub_id(source) and path.suffix.lower() not in SUFFIXES:
        return False
    if not path.is_file():
        advice = "Name a file that exists, or a dataset of the Hugging Face hub as owner/name."
        raise InvalidInput([Fault("file", f"{source} is not a file.", advice)])
    faults = [Fault(option, "is for datasets of the hub; this is a file") for option, value in of_hub.items() if value]
    if faults:
        raise InvalidInput(faults)
    return True


def _upload(client: Client, file: Path, name: str | None, column: Sequence[str], wait: bool) -> dict[str, Any]:
    """The dataset; where that is waited for, with its rows checked. Raises: InvalidInput with those of no use."""
    data = {"column": column, **({"name": name} if name else {})}
    params = {"wait": _WAIT_SECONDS if wait else 0}
    with file.open("rb") as stream:
        dataset: dict[str, Any] = client.post(
            "/datasets", files={"file": (file.name, stream)}, data=data, params=params
        )
    return _await_check(client, dataset) if wait and "job_id" in dataset else dataset


def _await_check(client: Client, pending: dict[str, Any]) -> dict[str, Any]:
    print(f"{pending['message']} {pending['advice']}", file=sys.stderr)
    job = client.get(f"/jobs/{pending['job_id']}")
    while job["status"] not in ENDED:
        if job["status"] == JobStatus.QUEUED and not client.get("/health")["worker"]["alive"]:
            raise NoWorker(f"{pending['name']} is stored, but no worker is running to check its rows.")
        time.sleep(_POLL_SECONDS)
        job = client.get(f"/jobs/{pending['job_id']}")
    if job["status"] == JobStatus.COMPLETED:
        dataset: dict[str, Any] = client.get(f"/datasets/{pending['id']}")
        return dataset
    client.delete(f"/datasets/{pending['id']}")
    if job["status"] == JobStatus.CANCELLED:
        raise DatasetImportError(f"The import of the file was cancelled (job {job['id']}).")
    error = job["error"]
    faults = error.get("faults") or [{"field": "file", "message": error["message"], "advice": error.get("advice")}]
    raise InvalidInput([Fault(**fault) for fault in faults])


def _import(client: Client, body: dict[str, Any], wait: bool) -> dict[str, Any]:
    """The dataset; where that is waited for, once it is ready. Raises: DatasetImportError where its import failed."""
    dataset: dict[str, Any] = client.post("/datasets/hub", body)
    if wait:
        print(f"{dataset['name']} is imported by a job; --no-wait does not wait for it.", file=sys.stderr)
    while wait and dataset["status"] == "importing":
        time.sleep(_POLL_SECONDS)
        dataset = client.get(f"/datasets/{dataset['id']}")
    if dataset["status"] == "failed":
        raise DatasetImportError(dataset["error"])
    return dataset


@app.command("list")
def list_all(*, json: AsJson = False) -> None:
    """All datasets."""
    datasets = Client().get("/datasets")
    print_json(datasets) if json else print_table(datasets, ["id", "name", "status", "kind", "format", "rows"])
