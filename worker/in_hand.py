"""The batch that a training works on, in a small file beside the spool: it outlives a child that is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "in_hand.json"
_FILE_BYTES = 2048  # written as one block, over the one before
_NAMED_ROWS = 8


@dataclass(frozen=True, slots=True)
class Origins:
    """Where a batch's sequences come from: rows of the dataset by number, from 1, and their tokens.

    No tuple of its own, which what moves batches to a device would take apart.
    """

    numbers: tuple[int | None, ...]
    lengths: tuple[int, ...]


class InHand:
    """What is worked on. `take` writes 2 KiB into the page cache; with its JSON that takes some ten microseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._facts: dict[str, Any] = {}
        self.last: dict[str, Any] | None = None

    def describe_rows(self, lengths: Sequence[int], max_length: int) -> None:
        """Tokens of every row: the longest, and how many would be longer than a half or a quarter of `max_length`."""
        limits = [limit for limit in (max_length // 2, max_length // 4) if limit]
        longer = [[limit, sum(length > limit for length in lengths)] for limit in limits]
        self._facts = {"rows_in_all": len(lengths), "longest_row": max(lengths, default=0), "longer_than": longer}

    def take(self, step: int, batch: Mapping[str, Any]) -> None:
        """Note the batch with its `origins`, `tokens` and `input_ids`; `step` is the one that it is part of."""
        origins: Origins = batch["origins"]
        again = self.last is not None and self.last["step"] == step
        lengths, numbers = origins.lengths, origins.numbers
        longest = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[:_NAMED_ROWS]
        self.last = {
            "step": step,
            "micro_batch": self.last["micro_batch"] + 1 if again and self.last else 1,
            "sequences": len(lengths),
            "tokens": batch["tokens"],
            "places": batch["input_ids"].numel(),
            "longest": [[numbers[index], lengths[index]] for index in longest],
            **self._facts,
        }
        self._write(json.dumps(self.last).ljust(_FILE_BYTES).encode())

    def _write(self, block: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(self._descriptor, block, 0)


def read_in_hand(attempt_folder: Path) -> dict[str, Any] | None:
    """What an attempt worked on last; None where it noted no batch."""
    path = attempt_folder / FILE
    if not path.is_file():
        return None
    try:
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # killed in the middle of the write
        return None
    return noted
