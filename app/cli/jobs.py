"""`loradeck jobs …`."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.autopsy import print_changes
from app.cli.client import Client
from app.cli.output import EXIT_FAILED, AsJson, print_fields, print_json, print_table
from app.cli.recipes import Changes, From, spec_text
from app.core.jobs.status import ENDED, status_words

app = typer.Typer(help="Submit, watch and cancel jobs.", no_args_is_help=True)

_FIELDS = [
    "id",
    "name",
    "kind",
    "status",
    "paused",
    "pause_reason",
    "held_up",
    "phase",
    "step",
    "max_steps",
    "eta_seconds",
    "attempts",
    "error",
    "summary",
]
_POLL_SECONDS = 0.5


@app.command("submit")
def submit(
    spec: Path,
    name: Annotated[str | None, typer.Option()] = None,
    source: From = "loradeck",
    changes: Changes = None,
    *,
    json: AsJson = False,
) -> None:
    """Queue a training job from a YAML file, or from what comes on stdin where the file is `-`."""
    show_job(Client().post("/jobs", {"yaml": spec_text(spec, source, changes), "name": name}), json)


@app.command("spec")
def print_spec(job: int) -> None:
    """A training job's spec as YAML, which `jobs submit` takes."""
    print(Client().get_bytes(f"/jobs/{job}/spec").decode(), end="")


@app.command("list")
def list_all(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    limit: Annotated[int, typer.Option("--limit", "--size", min=1, max=500, help="Jobs to show; a page of them.")] = 50,
    *,
    json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    found = Client().get("/jobs", status=status, page=page, size=limit)
    jobs = found["jobs"]
    if json:
        print_json(jobs)
    else:
        columns = ["id", "name", "kind", "status", "phase", "step", "max_steps"]
        print_table([_in_words(job) for job in jobs], columns)
    if len(jobs) < found["total"]:
        message = (
            f"{len(jobs)} of {found['total']} jobs shown (page {page} of {found['pages']}); see --limit and --page."
        )
        print(message, file=sys.stderr)


@app.command("show")
def show(job: int, *, json: AsJson = False) -> None:
    """One job; of one that ran out of memory, what to change first."""
    client = Client()
    found = client.get(f"/jobs/{job}")
    show_job(found, json, [*_FIELDS, "spec"])
    if not json and "autopsy" in (found["error"] or {}):
        print_changes(job, client.get(f"/jobs/{job}/autopsy"))


@app.command("autopsy")
def autopsy(job: int, *, json: AsJson = False) -> None:
    """Why a job ran out of memory, and what would take less."""
    found = Client().get(f"/jobs/{job}/autopsy")
    if json:
        print_json(found)
        return
    print_fields(found, [name for name in found if name not in ("changes", "readings")])
    print_changes(job, found, len(found["changes"]))


@app.command("change")
def change(job: int, key: str, *, json: AsJson = False) -> None:
    """Queue a job that ran out of memory again, with one of the changes that its autopsy names."""
    show_job(Client().post(f"/jobs/{job}/changes", {"change": key}), json)


@app.command("wait")
def wait(
    job: int,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Wait until the job has ended; exit code 1 unless it completed."""
    ended = wait_for(Client(), job, timeout)
    show_job(ended, json)
    if ended["status"] != "completed":
        raise typer.Exit(EXIT_FAILED)


@app.command("clone")
def clone(
    job: int,
    name: Annotated[str | None, typer.Option(help="Default: the name of the job that is cloned.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Queue a training job with the same spec."""
    show_job(Client().post(f"/jobs/{job}/clone", {"name": name}), json)


@app.command("rerun")
def rerun(
    job: int,
    name: Annotated[str | None, typer.Option(help="Default: the name of the job that is run again.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Run a completed training again exactly, from its receipt; refused where its data or model is another one now."""
    show_job(Client().post(f"/jobs/{job}/rerun", {"name": name}), json)


@app.command("receipt")
def receipt(job: int) -> None:
    """The receipt of a completed training, as JSON."""
    print_json(Client().get(f"/jobs/{job}/receipt"))


@app.command("metrics")
def metrics(job: int, name: Annotated[str | None, typer.Option()] = None, *, json: AsJson = False) -> None:
    """Metric series by step."""
    answer = Client().get(f"/jobs/{job}/metrics", name=name)
    if json:
        print_json(answer)
        return
    for series, points in answer["series"].items():
        for step, value in points:
            print(f"{series}\t{step}\t{value}")


@app.command("logs")
def logs(job: int, follow: Annotated[bool, typer.Option("--follow", "-f")] = False) -> None:
    """The job's log; --follow goes on until the job has ended."""
    client = Client()
    offset = 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two parts
    while True:
        last = client.get(f"/jobs/{job}")["status"] in ENDED or not follow
        content = client.get_bytes(f"/jobs/{job}/logs", offset)
        offset += len(content)
        print(decoder.decode(content, final=last), end="", flush=True)
        if last:
            return
        time.sleep(_POLL_SECONDS)


def wait_for(client: Client, job: int, timeout_seconds: float | None) -> dict[str, Any]:
    """The job once it has ended, or as it is when the time is over."""
    deadline = time.monotonic() + timeout_seconds if timeout_seconds is not None else None
    while True:
        found: dict[str, Any] = client.get(f"/jobs/{job}")
        if found["status"] in ENDED or (deadline is not None and time.monotonic() > deadline):
            return found
        time.sleep(_POLL_SECONDS)


def show_ended(client: Client, job: dict[str, Any], wait: bool, as_json: bool) -> None:
    """Print a job that was queued; with `wait` once it has ended, and then exit 1 unless it is completed."""
    job = wait_for(client, job["id"], None) if wait else job
    show_job(job, as_json)
    if wait and job["status"] != "completed":
        raise typer.Exit(EXIT_FAILED)


def show_job(job: dict[str, Any], as_json: bool, fields: Sequence[str] = _FIELDS) -> None:
    """Print one job; for people without its autopsy, which is long and has a command of its own."""
    if as_json:
        print_json(job)
        return
    error = {name: value for name, value in (job["error"] or {}).items() if name != "autopsy"}
    print_fields({**_in_words(job), "error": error}, fields)


def _in_words(job: dict[str, Any]) -> dict[str, Any]:
    return {**job, "status": status_words(job["status"], job["summary"], paused=job["paused"])}
