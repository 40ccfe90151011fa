"""`loradeck secrets …`."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_json, print_table

app = typer.Typer(help="Tokens of other services, kept in the data folder.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Which one: hf_token is that of the Hugging Face hub.")]


@app.command("list")
def list_all(*, json: AsJson = False) -> None:
    """Which secrets are set, masked."""
    secrets = Client().get("/secrets")
    print_json(secrets) if json else print_table(secrets, ["name", "shown", "source", "purpose"])


@app.command("set")
def set_one(name: Name, *, json: AsJson = False) -> None:
    """Store a secret: read from standard input (at a terminal asked for, unseen), never from the command line."""
    value = getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.readline()
    secret = Client().put(f"/secrets/{name}", {"value": value.strip()})
    print_json(secret) if json else print(f"{name} is set: {secret['shown']}")


@app.command("remove")
def remove(name: Name, *, json: AsJson = False) -> None:
    """Forget a stored secret."""
    secret = Client().delete(f"/secrets/{name}")
    left = f"; {secret['variable']} of the dashboard's environment is in force" if secret["source"] else ""
    print_json(secret) if json else print(f"{name} is removed{left}")
