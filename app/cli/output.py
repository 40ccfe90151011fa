"""How the command prints: JSON alone on stdout with --json, else lines for people; errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
import yaml

from app.core.errors import AppError, Conflict, InvalidInput

EXIT_FAILED = 1
EXIT_INVALID = 2
_NEVER_FOLD = 10**6  # characters: a line stays whole for who searches in it

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_fields(value: Mapping[str, Any], fields: Iterable[str]) -> None:
    """`name: value` lines of what is there; what is nested stands below its name, as YAML."""
    there = {field: value[field] for field in fields if value.get(field) not in (None, {}, [])}
    print(yaml.safe_dump(there, sort_keys=False, allow_unicode=True, width=_NEVER_FOLD), end="")


def print_table(rows: Iterable[Mapping[str, Any]], fields: list[str]) -> None:
    """Columns as wide as they need to be."""
    cells = [fields, *([_cell(row.get(field)) for field in fields] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(fields))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def print_error(error: AppError) -> None:
    """Every fault with its field, and what to do."""
    if isinstance(error, InvalidInput) and error.faults:
        for fault in error.faults:
            place = f"{fault.field}: " if fault.field else ""
            print(f"error: {place}{fault.message}", file=sys.stderr)
            if fault.advice:
                print(f"  {fault.advice}", file=sys.stderr)
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.advice:
        print(f"  {error.advice}", file=sys.stderr)
    if isinstance(error, Conflict) and error.possible is not None:
        print(f"  Possible now: {', '.join(error.possible) or 'nothing'}.", file=sys.stderr)
