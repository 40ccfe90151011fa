"""Encoded rows kept below their dataset's folder, so that the next job with the same settings need not encode anew.

An entry is a folder `tokens/<key>`: whole or absent, verified when it is read, removed with its dataset.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.folders import META, folder_fault, publish_artifact
from worker.base_models.publish import hash_file, hold_lock
from worker.training.encoded import Sequences, TokenWriter

logger = logging.getLogger(__name__)

KEPT_ENTRIES = 4  # of each dataset, those used last
_FORMAT = "tokens"
_NAMED_ROWS = 10
_DECIDING_CODE = tuple(
    Path(__file__).with_name(f"{name}.py")
    for name in (
        "data",
        "encoded",
        "encoding",
        "pairs",
        "reading",
        "rendering",
        "rows",
        "texts",
        "token_cache",
        "tokens",
    )
)
_DECIDING_SUFFIXES = (".jinja", ".json", ".model", ".tiktoken", ".txt")  # of a model's folder
_PACKAGES = ("jinja2", "tokenizers", "transformers")
_BYTES_OF_A_ROWS_BYTE = 3  # at most about a token for two characters, of 5 bytes each


@dataclass(slots=True)
class Tally:
    """How many rows something befell, and the numbers of the first of them, from 1."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        self.count += 1
        if len(self.first) < _NAMED_ROWS:
            self.first.append(number)

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        noun = "row" if self.count == 1 else "rows"
        return f"{self.count:,} {noun} ({', '.join(map(str, self.first))}{more})" if self.count else "no rows"


@dataclass(slots=True)
class Counts:
    """What became of a dataset's rows."""

    rows: int = 0
    dropped: Tally = field(default_factory=Tally)  # they keep nothing to learn, or, where asked for, are too long
    truncated: Tally = field(default_factory=Tally)  # they were cut and still have labels
    split: Tally = field(default_factory=Tally)  # they became several sequences

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counts:
        """Back from `asdict`."""
        tallies = {name: Tally(**values[name]) for name in ("dropped", "truncated", "split")}
        return cls(values["rows"], **tallies)


Encode = Callable[[TokenWriter], Counts]


def find_or_encode(
    folder: Path, decides: dict[str, Any], rows_bytes: int, encode: Encode, check_stop: Callable[[], None]
) -> tuple[Sequences, Counts]:
    """The sequences that `decides`, plain values, stand for: kept from an earlier job, or encoded and kept now.

    Raises: DiskFull; what `encode` and `check_stop` raise, which is called while another process encodes the same.
    """
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    entry = folder / key
    with hold_lock(folder / ".lock", check_stop):
        counts = _read(entry, decides)
        if counts is None:
            counts = _write(entry, decides, rows_bytes, encode)
        else:
            logger.info("the tokenized rows of an earlier job are used: %d rows", counts.rows)
        os.utime(entry)
        _drop_old(folder)
        return Sequences.open(entry), counts


def what_decides(tokenizer: Any, model_folder: Path, rows_sha256: str, spec: TrainingSpec) -> dict[str, Any]:
    """Everything that the encoded rows follow from, as plain values."""
    return {
        "rows": rows_sha256,
        "tokenizer": _digest(file for file in sorted(model_folder.iterdir()) if _is_deciding(file)),
        "chat_template": tokenizer.chat_template,
        "settings": {name: getattr(spec, name) for name in ("task", "max_length", "overlong_rows")},
        "code": _digest(_DECIDING_CODE),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _is_deciding(file: Path) -> bool:
    return file.suffix in _DECIDING_SUFFIXES and file.name != META and not file.name.endswith(".index.json")


def _digest(files: Iterable[Path]) -> str:
    lines = [f"{file.name}\0{hash_file(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(entry: Path, decides: dict[str, Any]) -> Counts | None:
    """The counts of an entry that is whole and stands for the same, else None; a damaged one is logged."""
    if not entry.exists():
        return None
    fault = folder_fault(entry)
    if fault is None:
        meta = json.loads((entry / META).read_bytes())
        if meta.get("kind") == _FORMAT and meta.get("decides") == decides:
            return Counts.from_json(meta["counts"])
        fault = f"its {META} is not that of these rows"
    logger.warning("the tokenized rows kept in %s are not used and made anew: %s", entry, fault)
    return None


def _write(entry: Path, decides: dict[str, Any], rows_bytes: int, encode: Encode) -> Counts:
    meta: dict[str, Any] = {"kind": _FORMAT, "decides": decides}
    with publish_artifact(entry, meta, rows_bytes * _BYTES_OF_A_ROWS_BYTE) as folder:
        with TokenWriter(folder) as writer:
            counts = encode(writer)
        meta["counts"] = asdict(counts)
    return counts


def _drop_old(folder: Path) -> None:
    """A process that reads an entry keeps its open files."""
    entries = sorted(folder.glob("[!.]*"), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in entries[:-KEPT_ENTRIES]:
        shutil.rmtree(entry)
