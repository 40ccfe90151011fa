"""`loradeck datasets check`: what is wrong with a data file before it is added, or with a dataset."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client, RequestFailed
from app.cli.output import EXIT_INVALID, AsJson, print_fields, print_json
from app.core.datasets.columns import parse_columns
from app.core.datasets.report import KIND_WORDS, ProblemKind, stops_training
from app.core.errors import Fault, InvalidInput
from app.core.jobs.status import ENDED, JobStatus

app = typer.Typer()

_WAIT_SECONDS = 20  # for the answer to the request; then its job is asked
_POLL_SECONDS = 0.5
_FACTS = ["format", "recognised_by", "kind", "rows", "unusable"]


@app.command("check")
def check(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A data file; or a dataset, by name or id.")],
    model: Annotated[str | None, typer.Option(help="Count tokens, and try the chat template, of this model.")] = None,
    max_length: Annotated[int | None, typer.Option(help="With --model: as in a job's spec.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Read a column as a format's field, as instruction=question."),
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Tell what is wrong with a data file; exit code 2 where rows cannot be used. Nothing is registered."""
    client = Client()
    asked = {name: value for name, value in {"model": model, "max_length": max_length}.items() if value is not None}
    if max_length is not None and model is None:
        raise InvalidInput("needs --model: lengths are counted in its tokens.", field="max_length")
    file = Path(source)
    answer = _check_file(client, file, asked, column or []) if file.is_file() else _check(client, source, asked)
    report = answer if "rows" in answer else _wait(client, answer["job"], quiet=json)
    print_json(report) if json else _print(report)
    if any(map(stops_training, report["counts"])):
        raise typer.Exit(EXIT_INVALID)


def _check_file(client: Client, file: Path, asked: Mapping[str, Any], column: list[str]) -> dict[str, Any]:
    parse_columns(column)  # refused before the file travels
    with file.open("rb") as stream:
        answer: dict[str, Any] = client.post(
            "/datasets/check",
            files={"file": (file.name, stream)},
            data={**asked, "column": column},
            params={"wait": _WAIT_SECONDS},
        )
    return answer


def _check(client: Client, reference: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    if Path(reference).suffix or "/" in reference:
        raise InvalidInput([Fault("file", f"{reference} is not a file.", "Name a file that exists, or a dataset.")])
    answer: dict[str, Any] = client.post(f"/datasets/{reference}/check", dict(asked), params={"wait": _WAIT_SECONDS})
    return answer


def _wait(client: Client, job: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The report once there is one; an interrupt from the keyboard cancels the check. Raises: RequestFailed."""
    try:
        while job["status"] not in ENDED:
            if job["status"] == JobStatus.QUEUED and not client.get("/health")["worker"]["alive"]:
                raise RequestFailed(
                    f"The check (job {job['id']}) waits, but no worker is running.",
                    advice="Start one with `loradeck worker`.",
                )
            if not quiet:
                print(_progress(job), file=sys.stderr)
            time.sleep(_POLL_SECONDS)
            job = client.get(f"/jobs/{job['id']}")
    except KeyboardInterrupt:
        client.post(f"/jobs/{job['id']}/cancel")
        _print_found(job["summary"], quiet=quiet)
        raise
    if job["status"] == JobStatus.CANCELLED:
        _print_found(job["summary"], quiet=quiet)
    report: dict[str, Any] = client.get(f"/datasets/check/{job['id']}")
    return report


def _progress(job: Mapping[str, Any]) -> str:
    done = f"{100 * job['step'] // job['max_steps']} %" if job["max_steps"] else job["status"]
    left = f", about {job['eta_seconds']:.0f} s left" if job["eta_seconds"] is not None else ""
    return f"{done}: {job['summary'].get('rows', 0):,} rows{left}"


def _print_found(summary: Mapping[str, Any], *, quiet: bool) -> None:
    """What a check had found when it was stopped."""
    if not quiet and summary.get("rows"):
        print(f"Stopped after {summary['rows']:,} rows, of which {summary['unusable']:,} cannot be used.")
        _print_problems(summary)


def _print(report: Mapping[str, Any]) -> None:
    print_fields(report, _FACTS)
    _print_problems(report)
    repeats = [f"row {each['row']} says the same as row {each['of']}" for each in report["duplicate_rows"]]
    if repeats:
        _print_list("⚠ Rows that repeat an earlier one", report["duplicates"], repeats)
    if report["tokens"]:
        _print_tokens(report["tokens"])
    if report["split"]:
        _print_split(report["split"])


def _print_problems(found: Mapping[str, Any]) -> None:
    for kind, count in found["counts"].items():
        named = [_problem(problem) for problem in found["problems"] if problem["kind"] == kind]
        _print_list(f"{'✕' if stops_training(kind) else '⚠'} {KIND_WORDS[ProblemKind(kind)]}", count, named)


def _print_list(what: str, count: int, named: list[str]) -> None:
    more = [f"and {count - len(named):,} more"] if count > len(named) else []
    print(f"{what}: {count:,}", *named, *more, sep="\n    ")


def _problem(problem: Mapping[str, Any]) -> str:
    row = f"row {problem['row']}: " if problem["row"] else ""
    return f"{row}{problem['field'] and problem['field'] + ' '}{problem['message']}"


def _print_tokens(tokens: Mapping[str, Any]) -> None:
    rows, longest = tokens["rows"], tokens["max"]
    print(f"Lengths under {tokens['model']}, in tokens: half of {rows:,} rows have at most {tokens['p50']:,},")
    print(f"    95 % at most {tokens['p95']:,}, the longest {longest:,}")
    print(f"    {tokens['truncated']:,} are longer than max_length = {tokens['max_length']:,};", end=" ")
    print(f"{tokens['answer_lost']:,} of them lose a whole answer")
    for choice in tokens["choices"]:
        kept = f"{choice['rows']:,} rows and {choice['trained_tokens']:,} learned tokens"
        print(f"    overlong_rows: {choice['overlong_rows']} keeps {kept}")


def _print_split(split: Mapping[str, Any]) -> None:
    values = f"eval_fraction: {split['eval_fraction']}, eval_max_rows: {split['eval_max_rows']}"
    print(f"Hold out {split['rows']:,} rows for the eval loss ({values}): {split['reason']}.")
    if split["twins"]:
        print(f"    ⚠ {split['twins']:,} of them are also among the rows trained on: remove the duplicates first")
