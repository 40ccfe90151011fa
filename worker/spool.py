"""The spool: an append-only file per attempt through which a child tells the worker what happens.

A line is `<crc32 of the rest, 8 hex digits> <JSON>`, where the JSON holds `seq` (from 1, without gaps), `time`
(seconds since the epoch, UTC), `kind`, `step` (or null) and `data`. A line is complete only with its newline, so a
reader never takes half of one, and a child killed in mid-write costs the last line alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from app.core.masking import mask_values
from worker.artifacts.disk import can_start
from worker.notes import FILE as NOTE
from worker.notes import WaitNote

logger = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
SPACE_POLL_SECONDS = 1.0
RecordKind = Literal[
    "start", "phase", "progress", "metric", "sample", "piece", "answer", "artifact", "summary", "finished"
]
RECORD_KINDS: frozenset[str] = frozenset(get_args(RecordKind))


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the spool."""

    seq: int
    time: float
    kind: RecordKind
    step: int | None
    data: dict[str, Any]


_NO_ROOM = (
    "The disk is full: the job waits, and goes on as soon as there is space on the disk of the data folder. Delete "
    "what is not needed, such as old jobs' checkpoints."
)


def open_when_it_fits(path: Path) -> SpoolWriter:
    """The writer of an attempt, once there is room to begin: nobody can be told before."""
    while True:
        try:
            if can_start(path.parent):
                return SpoolWriter(path)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
        time.sleep(SPACE_POLL_SECONDS)


class SpoolDamaged(Exception):
    """The spool holds a line that its writer did not write."""


class SpoolWriter:
    """Appends records. One per attempt; threads may share it. Where the disk is full it waits until there is space."""

    def __init__(self, path: Path) -> None:
        """Raises: OSError where there is no room to begin."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._note = WaitNote(path.with_name(NOTE))
        self._lock = threading.Lock()
        self._seq = 0

    def write(self, kind: RecordKind, data: dict[str, Any], *, step: int | None = None) -> None:
        """Append one record by a single write call."""
        with self._lock:
            self._seq += 1
            shown = mask_values(data)
            record = {"seq": self._seq, "time": time.time(), "kind": kind, "step": step, "data": shown}
            body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
            self._append(b"%08x %s\n" % (zlib.crc32(body), body))

    def _append(self, line: bytes) -> None:
        """What of a line a full disk has taken stays, and the rest follows."""
        waiting = False
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if not waiting:
                    self._note.put({"kind": "disk_full", "message": _NO_ROOM})
                waiting = True
                time.sleep(SPACE_POLL_SECONDS)
        if waiting:
            self._note.put(None)
            logger.warning("the disk has space again; the job goes on")

    def start(self, step: int) -> None:
        """Training begins at `step`, above 0 where it goes on; what an earlier attempt told of later steps is void."""
        self.write("start", {}, step=step)

    def phase(self, phase: str) -> None:
        """The job enters a phase: one of those that docs/events.md lists for its kind."""
        self.write("phase", {"phase": phase})

    def progress(self, step: int, max_steps: int | None, eta_seconds: float | None = None) -> None:
        """How far the job is. A unit is an optimizer step in training, else whatever the job counts."""
        self.write("progress", {"max_steps": max_steps, "eta_seconds": eta_seconds}, step=step)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Metric values of one step; values that are not finite become null."""
        finite = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        self.write("metric", finite, step=step)

    def artifact(self, kind: str, path: str, *, step: int | None = None, **extra: Any) -> None:
        """A finished artifact folder: kind (adapter, checkpoint, merged), path relative to the job's folder."""
        self.write("artifact", {"kind": kind, "path": path, **extra}, step=step)

    def summary(self, values: dict[str, Any]) -> None:
        """What is known already of the job's summary; later values of a name take the place of earlier ones."""
        self.write("summary", values)

    def finished(
        self, outcome: str, *, summary: dict[str, Any] | None = None, error: dict[str, Any] | None = None
    ) -> None:
        """The last record. outcome: completed, failed or cancelled; error: {kind, message, advice}."""
        self.write("finished", {"outcome": outcome, "summary": summary or {}, "error": error})

    def sync(self) -> None:
        """See what was written onto the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)
        self._note.close()


def read_spool(path: Path, offset: int = 0, after_seq: int = 0, limit: int = 2000) -> Iterator[tuple[Record, int]]:
    """Yield complete records from byte `offset`, each with the offset behind it.

    Raises: SpoolDamaged for a bad checksum or a gap in the sequence; nothing behind the damage is yielded.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for _ in range(limit):
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            record = _parse(line, expected_seq=after_seq + 1)
            after_seq = record.seq
            yield record, offset


def _parse(line: bytes, expected_seq: int) -> Record:
    checksum, _, body = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        raise SpoolDamaged(f"bad checksum where record {expected_seq} was expected")
    values = json.loads(body)
    if values["kind"] not in RECORD_KINDS:
        raise SpoolDamaged(f"record {expected_seq} is of an unknown kind: {values['kind']}")
    if values["seq"] != expected_seq:
        raise SpoolDamaged(f"record {values['seq']} where {expected_seq} was expected")
    return Record(**values)
