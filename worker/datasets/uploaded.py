"""Check the rows of an uploaded file and write the copy that training reads. No torch, no database, no network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from app.core.datasets.normalise import ROWS, UNMAPPED, Checked, Faults, UnknownFormat, normalise_rows
from app.core.datasets.reader import Place, read_rows
from app.core.paths import fsync_folder
from worker.context import JobContext
from worker.datasets.at_once import report_at_once
from worker.datasets.progress import Progress
from worker.limits import ROWS_MEMORY_BYTES, limit_memory

logger = logging.getLogger(__name__)


def run_import(context: JobContext) -> dict[str, Any]:
    """Write `rows.jsonl` beside the file as it came, and return the dataset's facts.

    Payload: dataset_id, name, source {kind: file, filename}, columns, bytes, sha256, target (the dataset's own folder).
    While it runs the job's summary holds `problems`, the first faults by row; where the format is not known, the
    columns that can be mapped. Raises: DatasetFormatError with row numbers, InvalidInput on `column`, JobCancelled;
    then no rows are left.
    """
    payload, target = context.payload, Path(context.payload["target"])
    context.spool.phase("convert")
    checked = _normalise(context, target)
    fsync_folder(target)
    logger.info("%s: %d rows of the format %s", payload["name"], checked.rows, checked.format)
    return {
        **report_at_once(target / ROWS, checked),
        "format": checked.format,
        "kind": checked.kind.value,
        "columns": checked.columns,
        "rows": checked.rows,
        "bytes": payload["bytes"],
        "sha256": payload["sha256"],
        "rows_sha256": checked.rows_sha256,
        "source": checked.noted(payload["source"]),
    }


def _normalise(context: JobContext, target: Path) -> Checked:
    (source,), unfinished = target.glob("source.*"), target / f"{ROWS}.part"
    limit_memory(ROWS_MEMORY_BYTES)
    place, faults = Place(), Faults()
    progress = Progress(context, place, lambda: {"problems": [fault.message for fault in faults.named]})
    try:
        rows = progress.watch(read_rows(source, place=place))
        checked = normalise_rows(rows, unfinished, context.payload["columns"], faults)
        unfinished.replace(target / ROWS)
    except UnknownFormat as error:
        context.spool.summary({UNMAPPED: error.columns})
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    progress.finish()
    return checked
