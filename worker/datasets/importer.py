"""Import a dataset from the hub into its own folder, and tell what it holds."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from app.core.datasets.faults import Row, RowFault
from app.core.datasets.normalise import ROWS, Checked, normalise_rows
from app.core.datasets.reader import read_rows
from app.core.errors import DatasetFormatError, DatasetImportError, InvalidInput
from worker.base_models.publish import hash_file, link_or_copy_file, publish_folder
from worker.base_models.stages import Stages
from worker.context import JobContext
from worker.datasets.at_once import report_at_once
from worker.datasets.hub import Download, download_dataset
from worker.limits import limit_memory

logger = logging.getLogger(__name__)

_ROWS_BETWEEN_STOPS = 1000


def run_import(context: JobContext) -> dict[str, Any]:
    """Fill the dataset's folder, and return its facts: what the worker stores of it.

    Payload: dataset_id, name, source {kind: hub, hub_id, revision?, config?, split?}, columns, target (the dataset's
    own folder). Raises: DatasetImportError, DiskFull, JobCancelled. Nothing half-written stays behind either.
    """
    source, target = context.payload["source"], Path(context.payload["target"])
    stages = Stages(context, total=3)
    download = download_dataset(source, target, stages)
    limit_memory()
    with publish_folder(target) as folder:
        stages.enter("convert")
        files = _place(download, folder)
        rows = FileRows(files, download.choice.files, stages)
        place = f"{source['hub_id']}, split {download.choice.split}"
        checked = _normalise(place, rows, folder / ROWS, context.payload["columns"])
        facts = _facts(source, download, files, rows.counts, checked) | report_at_once(folder / ROWS, checked)
        stages.enter("save")
    stages.finish()
    logger.info("%s: %d rows of the format %s", source["hub_id"], checked.rows, checked.format)
    return facts


def _place(download: Download, folder: Path) -> list[Path]:
    """The files beside their rows, so that they can be shown as they came; their order is that of their names."""
    placed = []
    for number, file in enumerate(download.files):
        part = f".{number:05}" if len(download.files) > 1 else ""
        placed.append(folder / f"source{part}{file.suffix.lower()}")
        link_or_copy_file(file.resolve(), placed[-1])
    return placed


class FileRows:
    """The rows of several files, one file after another; counts those of each."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], stages: Stages) -> None:
        self._files = files
        self._names = names
        self._stages = stages
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Generator[tuple[int | str, Row | RowFault], None, None]:
        for file, name in zip(self._files, self._names, strict=True):
            try:
                for number, row in read_rows(file):
                    self.counts[name] += 1
                    if number % _ROWS_BETWEEN_STOPS == 0:
                        self._stages.check_stop()
                    yield (f"{number} of {name}" if len(self._names) > 1 else number), row
            except DatasetFormatError as error:
                faults = "; ".join(fault.message for fault in error.faults)
                raise DatasetImportError(f"{name}: {faults}", advice=error.advice) from error


def _normalise(place: str, rows: FileRows, target: Path, columns: dict[str, str]) -> Checked:
    try:
        return normalise_rows(rows, target, columns)
    except InvalidInput as error:
        faults = "\n".join(fault.message for fault in error.faults)
        raise DatasetImportError(
            f"{place}: {faults.rstrip('.')}.",
            advice=error.advice or "Choose another dataset; or download it, put these rows in order, and upload it.",
        ) from error


def _facts(
    source: dict[str, Any], download: Download, files: Sequence[Path], counts: Counter[str], checked: Checked
) -> dict[str, Any]:
    """`sha256` is of the files' bytes one after another: of a single file its own."""
    choice = download.choice
    listed = [
        {"path": name, "bytes": file.stat().st_size, "sha256": hash_file(file), "rows": counts[name]}
        for name, file in zip(choice.files, files, strict=True)
    ]
    return {
        "format": checked.format,
        "kind": checked.kind.value,
        "columns": checked.columns,
        "rows": checked.rows,
        "bytes": sum(file["bytes"] for file in listed),
        "sha256": _hash_all(files) if len(files) > 1 else listed[0]["sha256"],
        "rows_sha256": checked.rows_sha256,
        "source": checked.noted(
            {
                **source,
                "revision": download.commit,
                "config": choice.config,
                "split": choice.split,
                "files": listed,
            }
        ),
    }


def _hash_all(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
