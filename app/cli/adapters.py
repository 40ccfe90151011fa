"""`loradeck adapters …`."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.jobs import show_ended
from app.cli.output import AsJson
from app.core.errors import InvalidInput

app = typer.Typer(help="Take in adapters that were trained elsewhere.", no_args_is_help=True)


@app.command("import")
def import_adapter(
    path: Annotated[Path, typer.Argument(help="The adapter's folder, or a zip of it.")],
    base_model: Annotated[str, typer.Option("--base-model", help="The registered model that it was trained on.")],
    name: Annotated[str | None, typer.Option(help="Default: `adapter on` the model's name.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    *,
    json: AsJson = False,
) -> None:
    """Import a LoRA adapter in safetensors, as a job; by its id it is then merged, exported or chatted with."""
    client = Client()
    if path.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            job = _send(client, _pack(path, Path(scratch) / "adapter.zip"), base_model, name)
    elif path.is_file():
        job = _send(client, path, base_model, name)
    else:
        raise InvalidInput(f"{path} is neither a folder nor a file.", field="path")
    show_ended(client, job, wait, json)


def _pack(folder: Path, target: Path) -> Path:
    """The folder's own files, stored; links are followed here, where they are the user's."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(each for each in folder.iterdir() if each.is_file()):
            archive.write(file, file.name)
    return target


def _send(client: Client, file: Path, base_model: str, name: str | None) -> dict[str, Any]:
    fields = {"base_model": base_model, **({"name": name} if name else {})}
    with file.open("rb") as opened:
        job: dict[str, Any] = client.post("/adapters", files={"file": (file.name, opened)}, data=fields)
    return job
