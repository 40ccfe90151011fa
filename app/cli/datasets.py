"""`loradeck datasets …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_fields, print_json, print_table
from app.core.errors import InvalidInput

app = typer.Typer(help="Register and look at datasets.", no_args_is_help=True)


@app.command("add")
def add(
    file: Path,
    name: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Read a column as a format's field, as instruction=question."),
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Register a JSON, JSONL, CSV or Parquet file.

    The format is recognised by the rows' fields: messages, sharegpt, alpaca, dolly, prompt_completion, text,
    preference, preference_alpaca, preference_sharegpt.
    """
    if not file.is_file():
        raise InvalidInput(f"{file} is not a file.", field="file")
    data = {"column": column or [], **({"name": name} if name else {})}
    with file.open("rb") as stream:
        dataset = Client().post("/datasets", files={"file": (file.name, stream)}, data=data)
    if json:
        print_json(dataset)
    else:
        print_fields(dataset, ["id", "name", "kind", "format", "recognised_by", "columns", "rows", "sha256"])


@app.command("list")
def list_all(*, json: AsJson = False) -> None:
    """All datasets."""
    datasets = Client().get("/datasets")
    print_json(datasets) if json else print_table(datasets, ["id", "name", "kind", "format", "rows"])


@app.command("preview")
def preview(
    dataset: str,
    row: Annotated[int | None, typer.Option(min=1, help="One row's number, from 1; default: the first ten.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Rows as they came."""
    params = {"first": row, "count": 1} if row else {}
    answer = Client().get(f"/datasets/{dataset}/rows", **params)
    if json:
        print_json(answer)
        return
    for each in answer["rows"]:
        print_fields(each, ["row", "raw"])
