"""Comma-separated values that a spreadsheet opens as data, never as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi.responses import StreamingResponse

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_response(chunks: Iterable[Iterable[Iterable[Any]]], filename: str) -> StreamingResponse:
    """Rows in chunks, each read when the one before is sent."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(_lines(chunks), media_type="text/csv; charset=utf-8", headers=headers)


def _lines(chunks: Iterable[Iterable[Iterable[Any]]]) -> Iterator[str]:
    for chunk in chunks:
        text = io.StringIO()
        csv.writer(text).writerows([safe_cell(cell) for cell in row] for row in chunk)
        yield text.getvalue()


def safe_cell(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, behind an apostrophe; numbers as they are.

    Source: OWASP, CSV injection.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
