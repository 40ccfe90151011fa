"""The job behind the dataset doctor: read every row, and tell what is wrong instead of refusing. No torch."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.datasets.columns import named
from app.core.datasets.faults import Row, RowFault
from app.core.datasets.formats import FORMATS, Normalised
from app.core.datasets.normalise import UnknownFormat
from app.core.datasets.reader import Place, read_rows
from app.core.datasets.report import ProblemKind, Report
from app.core.errors import DatasetFormatError
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext
from worker.datasets.duplicates import Duplicates
from worker.datasets.findings import Findings
from worker.datasets.oddities import find_oddities
from worker.datasets.opened import OfDataset, OfFile, Reader
from worker.datasets.progress import Progress
from worker.datasets.split_advice import suggest_split

if TYPE_CHECKING:
    from worker.datasets.token_check import TokenCheck

logger = logging.getLogger(__name__)

_GLANCE_ROWS, _GLANCE_SECONDS = 1000, 0.5
_SEED = TrainingSpec.model_fields["seed"].default


def run_check(context: JobContext) -> dict[str, Any]:
    """Return the report of a dataset, or of a data file that is none, which is removed when the job has ended.

    Payload: spec {columns?, max_length?, filename?}, dataset {path, format, kind} or path, base_model {name, path} or
    None. While it runs the summary holds what is known already of `rows`, `problems`, `counts` and `unusable`.
    Raises: ModelLoadError, TemplateFault, InvalidInput on `column`, JobCancelled.
    """
    model, glance, tokens = context.payload["base_model"], {"rows": 0}, None
    if model:
        context.spool.phase("load")
        glance = _glance(context.payload)
        context.spool.summary(glance)
        tokens = _load_tokenizer(model, context.payload["spec"]["max_length"])
    if model:
        context.spool.phase("tokenize")
    else:
        context.spool.phase("check")
    doctor = Doctor(_make_reader(context.payload), tokens)
    source, place = _source(context.payload), Place()
    progress = Progress(context, place, lambda: max(glance, doctor.findings_so_far(), key=lambda found: found["rows"]))
    for number, row in progress.watch(doctor.until_unreadable(read_rows(source, place=place))):
        doctor.look_at(number, row)
    doctor.finish()
    progress.finish()
    report = doctor.report()
    logger.info("%d rows looked at, %d of no use", report["rows"], report["unusable"])
    return dict(report)


def _glance(payload: dict[str, Any]) -> dict[str, Any]:
    """What the first rows show, for whoever waits while the tokenizer is loaded."""
    doctor, give_up_at = Doctor(_make_reader(payload), None), time.monotonic() + _GLANCE_SECONDS
    for number, row in islice(doctor.until_unreadable(read_rows(_source(payload))), _GLANCE_ROWS):
        doctor.look_at(number, row)
        if time.monotonic() > give_up_at:
            break
    return doctor.findings_so_far()


def _load_tokenizer(model: dict[str, Any], max_length: int) -> TokenCheck:
    """Tokenizers come with transformers, whose import takes longer than the check of a small file."""
    tokens: TokenCheck = importlib.import_module("worker.datasets.token_check").TokenCheck(model, max_length)
    return tokens


def _source(payload: dict[str, Any]) -> Path:
    return Path(payload["dataset"]["path"] if payload["dataset"] else payload["path"])


def _make_reader(payload: dict[str, Any]) -> Reader:
    dataset = payload["dataset"]
    return OfDataset(dataset["format"]) if dataset else OfFile(payload["spec"].get("columns") or {})


class Doctor:
    """Looks at rows one by one."""

    def __init__(self, reader: Reader, tokens: TokenCheck | None) -> None:
        self._reader = reader
        self._tokens = tokens
        self._findings = Findings()
        self._duplicates = Duplicates()
        self._rows = 0

    def until_unreadable(self, rows: Iterator[tuple[int, Row | RowFault]]) -> Iterator[tuple[int, Row | RowFault]]:
        """The rows, up to where the file as a whole cannot be read on: that is a finding, too."""
        try:
            yield from rows
        except DatasetFormatError as error:
            for fault in error.faults:
                advice = f" {fault.advice}" if fault.advice else ""
                self._findings.add(None, fault.field, ProblemKind.FILE, fault.message + advice)

    def look_at(self, number: int, row: Row | RowFault) -> None:
        """Find out what is wrong with the row. Raises: InvalidInput where a mapped column is not there."""
        self._rows += 1
        if isinstance(row, RowFault):
            self._findings.add_fault(number, row)
            return
        try:
            normalised = self._reader.normalised(row, number)
        except RowFault as fault:
            self._findings.add_fault(number, fault)
        except UnknownFormat as error:
            message = f"is of no known format; its fields are {named(error.fields)}"
            self._findings.add(number, "", ProblemKind.FORMAT, message)
        else:
            self._look_into(number, row, normalised)

    def _look_into(self, number: int, row: Row, normalised: Normalised) -> None:
        self._duplicates.add(number, normalised)
        if left_out := self._reader.left_out(row):
            self._findings.add(number, "", ProblemKind.OPENING_LEFT_OUT, left_out)
        for kind, field, message in find_oddities(self._reader.read_fields(row)):
            self._findings.add(number, field, kind, message)
        if self._tokens:
            self._tokens.look_at(number, normalised, FORMATS[self._reader.format].kind, self._findings)

    def finish(self) -> None:
        """All rows have come."""
        if self._tokens:
            self._tokens.encode(self._findings)

    def findings_so_far(self) -> dict[str, Any]:
        """{format, rows, problems, counts, unusable}."""
        return {"format": self._reader.format or None, "rows": self._rows, **self._findings.to_json()}

    def report(self) -> Report:
        """All that was found."""
        found = self._findings
        if not self._rows and not found.counts:
            found.add(None, "file", ProblemKind.FILE, "The file is empty: it holds no rows.")
        count, duplicate_rows = self._duplicates.find()
        whole = not found.unusable and ProblemKind.FILE.value not in found.counts
        known = FORMATS.get(self._reader.format)
        return {
            "format": known.name if known else None,
            "kind": known.kind.value if known else None,
            "recognised_by": list(known.required) if known else [],
            "rows": self._rows,
            "unusable": found.unusable,
            "problems": found.named,
            "counts": dict(found.counts),
            "duplicates": count,
            "duplicate_rows": duplicate_rows,
            "tokens": self._tokens.to_json() if self._tokens else None,
            "split": suggest_split(self._rows, self._duplicates, _SEED) if whole else None,
        }
