"""`loradeck models …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_fields, print_json, print_table

app = typer.Typer(help="Register and look at base models.", no_args_is_help=True)

_FIELDS = ["id", "name", "status", "architecture", "parameters"]


@app.command("list")
def list_all(*, json: AsJson = False) -> None:
    """All base models."""
    models = Client().get("/models")
    print_json(models) if json else print_table(models, _FIELDS)


@app.command("add")
def add(
    path_or_hub_id: str,
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Register a local folder or GGUF file (under LORADECK_LOCAL_ROOTS), or a hub id."""
    local = Path(path_or_hub_id).expanduser()
    reference = str(local.resolve()) if local.exists() else path_or_hub_id
    model = Client().post("/models", {"path": reference, "name": name})
    print_json(model) if json else print_fields(model, [*_FIELDS, "path"])
