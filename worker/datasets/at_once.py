"""The doctor's report of rows that were just imported: where they are few, nobody need wait for a check of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import __version__
from app.core.datasets.normalise import Checked
from app.core.datasets.reader import read_rows
from app.core.datasets.report import AT_ONCE
from worker.datasets.opened import OfDataset

if TYPE_CHECKING:
    from worker.datasets.check import Doctor

_FEW_BYTES = 4 << 20  # some thousand rows, read in a fraction of a second


def report_at_once(rows: Path, checked: Checked) -> dict[str, Any]:
    """What the import's summary says of the written rows, for `app.core.jobs.checks` to find; nothing of many rows."""
    if rows.stat().st_size > _FEW_BYTES:
        return {}
    doctor = _make_doctor(checked.format)
    for number, row in read_rows(rows):
        doctor.look_at(number, row)
    return {AT_ONCE: {"version": __version__, "report": doctor.report()}}


def _make_doctor(format_name: str) -> Doctor:
    """Its imports take longer than a small file, whose faults are told before."""
    doctor: Doctor = importlib.import_module("worker.datasets.check").Doctor(OfDataset(format_name), None)
    return doctor
