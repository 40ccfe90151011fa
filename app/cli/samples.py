"""`loradeck samples …`."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_json, print_table

app = typer.Typer(help="Prompts that are kept for trainings to answer at their checkpoints.", no_args_is_help=True)


@app.command("list")
def list_all(*, json: AsJson = False) -> None:
    """All that are kept; a job answers those that its spec names in `sample_prompts`."""
    samples = Client().get("/samples")
    print_json(samples) if json else print_table(samples, ["id", "text"])


@app.command("add")
def add(text: Annotated[str, typer.Argument(help="The prompt.")], *, json: AsJson = False) -> None:
    """Keep a prompt."""
    sample = Client().post("/samples", {"text": text})
    print_json(sample) if json else print(f"{sample['id']} is kept")


@app.command("remove")
def remove(sample: int, *, json: AsJson = False) -> None:
    """Keep a prompt no longer."""
    Client().delete(f"/samples/{sample}")
    print_json({"id": sample}) if json else print(f"{sample} is removed")
