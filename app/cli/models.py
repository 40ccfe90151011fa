"""`loradeck models …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_fields, print_json, print_table
from app.core.errors import NotFound

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


@app.command("code")
def show_code(
    model: str,
    file: Annotated[str | None, typer.Option(help="Print the text of this file.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """The Python code that comes with a model, and whether an admin has allowed it."""
    code = Client().get(_code_path(model))
    if json:
        print_json(code)
    elif file is not None:
        print(_find_file(code["files"], file)["text"], end="")
    else:
        print_table(code["files"], ["path", "bytes", "sha256"])
        print_fields(code, ["needed", "allowed", "change", "revision", "sha256"])


@app.command("allow-code")
def allow_code(
    model: str,
    sha256: Annotated[str, typer.Argument(help="Of all files, as `loradeck models code` shows it.")],
    *,
    json: AsJson = False,
) -> None:
    """Let jobs run the code that comes with a model, as long as no file of it changes (admins)."""
    _print_code(Client().put(f"{_code_path(model)}/{quote(sha256, safe='')}"), as_json=json)


@app.command("withdraw-code")
def withdraw_code(model: str, sha256: str, *, json: AsJson = False) -> None:
    """Let no job run that code any longer (admins)."""
    _print_code(Client().delete(f"{_code_path(model)}/{quote(sha256, safe='')}"), as_json=json)


def _code_path(model: str) -> str:
    return f"/models/{quote(model, safe='')}/code"


def _find_file(files: list[dict[str, Any]], path: str) -> dict[str, Any]:
    """Raises: NotFound."""
    found = next((each for each in files if each["path"] == path), None)
    if found is None:
        raise NotFound(f"There is no file {path!r} of code.", advice="loradeck models code lists them.")
    return found


def _print_code(code: dict[str, Any], *, as_json: bool) -> None:
    print_json(code) if as_json else print_fields(code, ["needed", "allowed", "change", "revision", "sha256"])
