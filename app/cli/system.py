"""`loradeck gpu`, `loradeck events`, `loradeck doctor`."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.output import EXIT_FAILED, AsJson, print_json, print_table
from app.core.settings import Settings

app = typer.Typer()


@app.command("gpu")
def gpu(*, json: AsJson = False) -> None:
    """The newest reading of GPUs and host."""
    reading = Client().get("/gpu")
    if json:
        print_json(reading)
        return
    if not reading["available"]:
        print(f"No GPU reading: {reading.get('reason') or 'not available'}")
    fields = [
        "index",
        "name",
        "vram_used_bytes",
        "vram_total_bytes",
        "utilization_percent",
        "temperature_celsius",
        "power_watts",
    ]
    if reading["devices"]:
        print_table(reading["devices"], fields)
    for name, value in (reading["host"] or {}).items():
        print(f"{name}: {value if value is not None else 'not available'}")


@app.command("events")
def events(
    job: Annotated[int | None, typer.Option(help="Only this job's, from its first to its last.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="From behind this event id.")] = None,
    *,
    _json: Annotated[bool, typer.Option("--json", help="Accepted as elsewhere: each line is JSON anyway.")] = False,
) -> None:
    """The live stream, one JSON object a line; of one job, until it has ended."""
    for event in Client().events(job=job, after=after):
        print(json_format.dumps(event, ensure_ascii=False), flush=True)
        if job is not None and event["kind"] == "finished":
            return


@app.command("doctor")
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Judge what jobs produced by size, without reading it.")
    ] = False,
    *,
    json: AsJson = False,
) -> None:
    """Check what this installation needs; exit code 1 where something is wrong."""
    from app.core.doctor import run_checks  # imported here: other commands need no database

    checks = run_checks(Settings.load(), hashes=not quick)
    if json:
        print_json({"ok": all(check.ok for check in checks), "checks": [check.to_json() for check in checks]})
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.message}")
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_FAILED)
