"""`loradeck jobs sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_json, print_table
from app.cli.recipes import Changes, From, spec_text
from app.core.errors import InvalidInput
from app.core.jobs.shown import show
from app.core.jobs.sweep_axes import read_axes

app = typer.Typer()


@app.command("sweep")
def sweep(
    spec: Path,
    over: Annotated[list[str], typer.Option("--over", help="FIELD=VALUE,VALUE or FIELD=[VALUE, VALUE]; repeatable.")],
    name: Annotated[str | None, typer.Option(help="Before the values by which the jobs differ.")] = None,
    source: From = "loradeck",
    changes: Changes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be queued.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Queue a training for each combination of some fields' values, all of them or none (`-` is stdin)."""
    body = {"yaml": spec_text(spec, source, changes), "over": _read(over), "name": name, "dry_run": dry_run}
    found = Client().post("/sweeps", body)
    if json:
        print_json(found)
    elif dry_run:
        print_table([_row(each) for each in found["jobs"]], ["differences", "verdict", "steps", "seconds"])
    else:
        print(f"sweep {found['sweep_id']}: {len(found['jobs'])} jobs")
        print_table(found["jobs"], ["id", "name", "status"])


def _read(over: list[str]) -> dict[str, Any]:
    """Raises: InvalidInput."""
    for each in over:
        if "=" not in each:
            raise InvalidInput(f"{each!r:.80} is not FIELD=VALUE,VALUE.", field="--over")
    return dict(read_axes("\n".join(each.replace("=", ": ", 1) for each in over)))


def _row(job: dict[str, Any]) -> dict[str, Any]:
    differences = ", ".join(f"{field} {show(value)}" for field, value in job["differences"].items())
    return {**job, "differences": differences, "verdict": job["verdict"] or job["reason"]}
