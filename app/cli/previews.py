"""`loradeck datasets preview`: rows as they came, or as training would see them under a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.jobs import wait_for
from app.cli.output import AsJson, print_fields, print_json
from app.core.datasets.xray import FLAG_WORDS, ORDINARY, Flag
from app.core.errors import Conflict, InvalidInput

app = typer.Typer()


@app.command("preview")
def preview(
    dataset: str,
    row: Annotated[int | None, typer.Option(min=1, help="One row's number, from 1; default: the first ten.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Show the tokens that training would see under this model, and which it learns.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="With --model: as in a job's spec.")] = None,
    overlong_rows: Annotated[str | None, typer.Option(help="With --model: truncate, drop or split.")] = None,
    packing: Annotated[bool | None, typer.Option("--packing", help="With --model: also what shares a pack.")] = None,
    suspicious: Annotated[
        bool, typer.Option("--suspicious", help="With --model: begin with the next row that should be looked at.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="With --model: seconds to wait for the worker.")] = 120.0,
    *,
    json: AsJson = False,
) -> None:
    """Rows as they came; with --model, as training would see them: every token, and whether it is learned."""
    settings = {"max_length": max_length, "overlong_rows": overlong_rows, "packing": packing}
    if model is None:
        _refuse_settings({**settings, "suspicious": suspicious or None})
        _show_rows(dataset, row, json)
        return
    asked = {**settings, "model": model, "row": row or 1, "count": 1 if row else 10, "find": suspicious}
    xray = _ask(Client(), dataset, asked, timeout)
    print_json(xray) if json else _print(xray)


def _refuse_settings(settings: Mapping[str, Any]) -> None:
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise InvalidInput("needs --model: the tokens are those of a model.", field=given[0])


def _show_rows(dataset: str, row: int | None, json: bool) -> None:
    params = {"first": row, "count": 1} if row else {}
    answer = Client().get(f"/datasets/{dataset}/rows", **params)
    if json:
        print_json(answer)
        return
    for each in answer["rows"]:
        print_fields(each, ["row", "raw"])


def _ask(client: Client, dataset: str, asked: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Raises: InvalidInput with the reason where there can be none, Conflict where the worker does not get to it."""
    present = {name: value for name, value in asked.items() if value is not None}
    answer: dict[str, Any] = client.post(f"/datasets/{dataset}/preview", {**present, "wait_seconds": min(timeout, 20)})
    if "rows" in answer:
        return answer
    job = wait_for(client, answer["job"]["id"], timeout)
    if job["status"] in ("queued", "starting", "running"):
        advice = "Is the worker running? `loradeck doctor` says so. Ask again, or raise --timeout."
        raise Conflict(f"Job {job['id']} is still {job['status']}.", advice=advice)
    found: dict[str, Any] = client.get(f"/datasets/{dataset}/preview", **present)
    return found


def _print(xray: Mapping[str, Any]) -> None:
    if not xray["rows"]:
        print(f"No suspicious row up to row {xray['searched_to']:,} of {xray['total']:,}.", file=sys.stderr)
    for row in xray["rows"]:
        words = "; ".join(("" if flag in ORDINARY else "⚠ ") + FLAG_WORDS[Flag(flag)] for flag in row["flags"])
        print(f"row {row['row']}: {row['trained_tokens']} of {row['total_tokens']} tokens are learned; {words}")
        if row["reason"]:
            print(f"  {row['reason']}")
        for sequence in row["sequences"]:
            print(f"  {sequence['name'] or 'sequence'}:")
            for run in sequence["runs"]:
                print(f"  {'learned' if run['trained'] else 'given':>7} {run['tokens']:>5}  {run['text']!r}")
