"""Register datasets: check every row, write the normalised copy that training reads, store both by id."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from sqlmodel import Session, col, select

from app.core.datasets.formats import Messages, RowFault, recognise, to_messages
from app.core.datasets.models import Dataset
from app.core.datasets.reader import SUFFIXES, Row, read_rows
from app.core.errors import Conflict, DatasetFormatError, Fault, InvalidInput, NotFound, TooLarge
from app.core.paths import DataFolder, fsync_folder
from app.core.table import as_id

MAX_FAULTS = 20  # so many are named; the rest are counted
_CHUNK_BYTES = 1024 * 1024
_ROWS = "rows.jsonl"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Checked:
    """A data file that can be trained on."""

    format: str
    rows: int
    rows_sha256: str


def list_datasets(session: Session) -> Sequence[Dataset]:
    """All datasets by name."""
    return session.exec(select(Dataset).order_by(col(Dataset.name))).all()


def find_dataset(session: Session, reference: str) -> Dataset | None:
    """By name or id."""
    by_name = session.exec(select(Dataset).where(Dataset.name == reference)).first()
    number = as_id(reference)
    return session.get(Dataset, number) if by_name is None and number is not None else by_name


def get_dataset(session: Session, reference: str) -> Dataset:
    """Raises: NotFound that names what there is."""
    dataset = find_dataset(session, reference)
    if dataset is None:
        names = ", ".join(each.name for each in list_datasets(session)) or "none yet"
        raise NotFound(f"There is no dataset {reference!r}.", advice=f"Registered: {names}.")
    return dataset


class Upload:
    """A data file on its way in: received, then checked without the database, then registered in one transaction.

    Used as a context manager; what is not registered leaves nothing behind.
    """

    def __init__(self, folder: DataFolder, filename: str) -> None:
        self.filename = filename
        self.suffix = Path(filename).suffix.lower()
        if self.suffix not in SUFFIXES:
            kinds = ", ".join(SUFFIXES)
            raise DatasetFormatError(f"{filename!r} is not a data file: its name must end in {kinds}.", field="file")
        self._folder = folder
        self._staging = Path(tempfile.mkdtemp(dir=folder.uploads))
        self.source = self._staging / f"source{self.suffix}"
        self._digest = hashlib.sha256()
        self._bytes = 0

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_exception: object) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def receive(self, stream: BinaryIO, max_bytes: int) -> Upload:
        """Copy the stream to disk. Raises: TooLarge at the limit."""
        with self.source.open("wb") as file:
            while chunk := stream.read(_CHUNK_BYTES):
                self._bytes += len(chunk)
                if self._bytes > max_bytes:
                    raise TooLarge(f"{self.filename!r} is larger than the limit of {max_bytes:,} bytes.")
                self._digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return self

    def check(self) -> Checked:
        """Read every row, write the normalised copy. Raises: DatasetFormatError with row numbers."""
        return normalise(self.source, self._staging / _ROWS, suffix=self.suffix)

    def register(self, session: Session, checked: Checked, name: str | None = None) -> Dataset:
        """Store the dataset under its id. Raises: Conflict where the name is taken."""
        dataset = Dataset(
            name=_clean_name(name or Path(self.filename).stem),
            format=checked.format,
            rows=checked.rows,
            bytes=self._bytes,
            sha256=self._digest.hexdigest(),
            rows_sha256=checked.rows_sha256,
            created_at=time.time(),
        )
        if session.exec(select(Dataset).where(Dataset.name == dataset.name)).first():
            raise Conflict(f"A dataset named {dataset.name!r} is registered already.", advice="Give another name.")
        session.add(dataset)
        session.flush()
        target = self._folder.dataset(dataset.key)
        shutil.rmtree(target, ignore_errors=True)  # left by a crash between this rename and the commit
        self._staging.rename(target)
        fsync_folder(target.parent)
        return dataset


def add_file(session: Session, folder: DataFolder, path: Path, name: str | None = None) -> Dataset:
    """Register a file of this machine, as the first start does with the demo dataset."""
    with Upload(folder, path.name) as upload, path.open("rb") as stream:
        checked = upload.receive(stream, max_bytes=path.stat().st_size + 1).check()
        return upload.register(session, checked, name)


def normalise(source: Path, target: Path, suffix: str | None = None) -> Checked:
    """Write `source`'s rows to `target` as one `{"messages": […]}` per line. Raises: DatasetFormatError."""
    faults: list[Fault] = []
    digest, rows, bad, format_name = hashlib.sha256(), 0, 0, None
    with target.open("wb") as out:
        for number, row in read_rows(source, suffix):
            try:
                format_name = format_name or _recognise_first(row)
                line = _line(_usable(row, format_name))
            except RowFault as fault:
                bad += 1
                if len(faults) < MAX_FAULTS:
                    faults.append(fault.at(number))
                continue
            rows += 1
            digest.update(line)
            out.write(line)
        out.flush()
        os.fsync(out.fileno())
    if bad > len(faults):
        faults.append(Fault("file", f"and {bad - len(faults):,} more rows"))
    if faults:
        raise DatasetFormatError(faults)
    if not rows:
        raise DatasetFormatError("The dataset is empty: it holds no rows.", field="file")
    return Checked(str(format_name), rows, digest.hexdigest())


def preview_raw(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Row]:
    """Rows as they came, from row `first` (from 1)."""
    source = next(folder.dataset(dataset.key).glob("source.*"))
    rows = (row for _number, row in read_rows(source) if not isinstance(row, RowFault))
    return list(_window(rows, first, count))


def preview_messages(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Messages]:
    """Rows as training reads them, from row `first` (from 1)."""
    with rows_path(folder, dataset).open(encoding="utf-8") as file:
        return [json.loads(line)["messages"] for line in _window(file, first, count)]


def rows_path(folder: DataFolder, dataset: Dataset) -> Path:
    """The normalised rows that training reads."""
    return folder.dataset(dataset.key) / _ROWS


def _window(items: Iterable[_T], first: int, count: int) -> Iterator[_T]:
    """`count` items from the one with number `first` on."""
    start = min(first - 1, sys.maxsize - count)
    return islice(items, start, start + count)


def _recognise_first(row: Row | RowFault) -> str | None:
    """The file's format by its first readable row."""
    if isinstance(row, RowFault):
        return None
    name = recognise(row)
    if name is None:
        found = ", ".join(map(repr, row)) or "none"
        raise DatasetFormatError(
            [
                Fault(
                    "file",
                    f"The rows' format is not known: the first row has the fields {found}.",
                    advice="Use instruction/input/output, prompt/completion, or messages (a list of role and content).",
                )
            ]
        )
    return name


def _usable(row: Row | RowFault, format_name: str | None) -> Messages:
    """The row's messages. Raises: RowFault."""
    if isinstance(row, RowFault):
        raise row
    return to_messages(row, str(format_name))


def _line(messages: Messages) -> bytes:
    return json.dumps({"messages": messages}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _clean_name(name: str) -> str:
    cleaned = re.sub(r"\s+", " ", name).strip()[:120]
    if not cleaned or not cleaned.isprintable():
        raise InvalidInput("A dataset needs a printable name.", field="name")
    return cleaned
