"""The `loradeck` command: a thin client of the JSON API, and the commands that start things."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from app.cli import (
    accounts,
    adapters,
    artifacts,
    backup,
    checks,
    controls,
    datasets,
    jobs,
    models,
    plan,
    previews,
    recipes,
    samples,
    secrets,
    server,
    sweeps,
    system,
)
from app.cli.output import EXIT_FAILED, EXIT_INVALID, print_error, print_json
from app.core.errors import AppError, InvalidInput, NotFound

app = typer.Typer(
    help="Loradeck: fine-tune language models with LoRA on your own box.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (server.app, system.app, backup.app, artifacts.top, plan.app):
    app.registered_commands.extend(part.registered_commands)
for part in (checks.app, previews.app):
    datasets.app.registered_commands.extend(part.registered_commands)
for part in (controls.app, recipes.app, sweeps.app):
    jobs.app.registered_commands.extend(part.registered_commands)
for name, group in (
    ("datasets", datasets.app),
    ("models", models.app),
    ("jobs", jobs.app),
    ("queue", controls.queue),
    ("artifacts", artifacts.app),
    ("adapters", adapters.app),
    ("secrets", secrets.app),
    ("samples", samples.app),
    ("users", accounts.users),
    ("tokens", accounts.tokens),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command; 0 = done, 1 = it failed, 2 = bad usage or invalid input."""
    try:
        app()
    except AppError as error:
        _exit_with(error)
    except OSError as error:  # a full disk, a folder that cannot be written
        _exit_with(AppError(str(error)))


def _exit_with(error: AppError) -> NoReturn:
    if "--json" in sys.argv[1:]:
        print_json({"error": error.to_json()})
    print_error(error)
    sys.exit(EXIT_INVALID if isinstance(error, InvalidInput | NotFound) else EXIT_FAILED)
