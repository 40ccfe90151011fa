"""Registered datasets: find them, receive a file, store it by id with the normalised copy that training reads."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sqlmodel import Session, col, select

from app.core.datasets.columns import Columns
from app.core.datasets.incoming import IncomingFile
from app.core.datasets.models import Dataset
from app.core.datasets.normalise import ROWS, Checked, normalise
from app.core.datasets.reader import SUFFIXES
from app.core.errors import DatasetFormatError, NotFound, TooLarge
from app.core.names import clean_name, name_taken
from app.core.paths import DataFolder, fsync_folder
from app.core.table import as_id

_CHUNK_BYTES = 1024 * 1024
_MAX_FILENAME = 255  # characters


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

    Used as a context manager; what is not registered leaves nothing behind. `incoming`: what is on the disk already.
    """

    def __init__(self, folder: DataFolder, filename: str, incoming: IncomingFile | None = None) -> None:
        self.filename = filename
        self.suffix = Path(filename).suffix.lower()
        if self.suffix not in SUFFIXES:
            kinds = ", ".join(SUFFIXES)
            raise DatasetFormatError(f"{filename!r} is not a data file: its name must end in {kinds}.", field="file")
        self._folder = folder
        self._incoming = incoming or IncomingFile(folder.uploads)
        self.source = self._incoming.folder / f"source{self.suffix}"

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._incoming.close()

    def receive(self, stream: BinaryIO, max_bytes: int) -> Upload:
        """Copy the stream to disk. Raises: TooLarge at the limit."""
        while chunk := stream.read(_CHUNK_BYTES):
            self._refuse_above(max_bytes, self.bytes + len(chunk))
            self._incoming.write(chunk)
        return self.accept(max_bytes)

    def accept(self, max_bytes: int) -> Upload:
        """All of it has come. Raises: TooLarge above the limit."""
        self._refuse_above(max_bytes, self.bytes)
        self._incoming.finish()
        self._incoming.path.rename(self.source)
        return self

    def _refuse_above(self, max_bytes: int, size: int) -> None:
        if size > max_bytes:
            raise TooLarge(f"{self.filename!r} is larger than the limit of {max_bytes:,} bytes.")

    @property
    def bytes(self) -> int:
        """Received so far."""
        return self._incoming.bytes

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return Path(self.filename).stem

    @property
    def sha256(self) -> str:
        """Of what was received, as hexadecimal digits."""
        return self._incoming.sha256

    @property
    def source_facts(self) -> dict[str, Any]:
        """As `Dataset.source` keeps it."""
        return {"kind": "file", "filename": Path(self.filename).name[:_MAX_FILENAME]}

    def check(self, columns: Columns | None = None) -> Checked:
        """Read every row, write the normalised copy. Raises: DatasetFormatError with row numbers."""
        return normalise(self.source, self.source.parent / ROWS, suffix=self.suffix, columns=columns)

    def register(self, session: Session, checked: Checked, name: str | None = None) -> Dataset:
        """Store the dataset under its id. Raises: InvalidInput or Conflict on `name`."""
        dataset = Dataset(
            name=clean_name(name or self.stem, "dataset"),
            source=checked.noted(self.source_facts),
            columns=checked.columns,
            format=checked.format,
            kind=checked.kind,
            rows=checked.rows,
            bytes=self.bytes,
            sha256=self.sha256,
            rows_sha256=checked.rows_sha256,
            created_at=time.time(),
        )
        if session.exec(select(Dataset).where(Dataset.name == dataset.name)).first():
            raise name_taken(dataset.name, "dataset")
        self.place(session, dataset)
        return dataset

    def place(self, session: Session, dataset: Dataset) -> None:
        """Store the dataset, and what was received in its folder."""
        session.add(dataset)
        session.flush()
        target = self._folder.dataset(dataset.key)
        shutil.rmtree(target, ignore_errors=True)  # left by a crash between this rename and the commit
        self.source.parent.rename(target)
        fsync_folder(target.parent)


def add_file(session: Session, folder: DataFolder, path: Path, name: str | None = None) -> Dataset:
    """Register a file of this machine, as the first start does with the demo dataset."""
    with Upload(folder, path.name) as upload, path.open("rb") as stream:
        checked = upload.receive(stream, max_bytes=path.stat().st_size + 1).check()
        return upload.register(session, checked, name)


def rows_path(folder: DataFolder, dataset: Dataset) -> Path:
    """The normalised rows that training reads."""
    return folder.dataset(dataset.key) / ROWS
