"""A job's context as a child has it, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.context import Assignment, JobContext
from worker.spool import Record, SpoolWriter, read_spool


@dataclass(frozen=True, slots=True)
class Ids:
    """A batch's token ids where torch is too much: their number alone."""

    count: int

    def numel(self) -> int:
        return self.count


def make_context(folder: Path, kind: str, payload: dict[str, Any]) -> JobContext:
    """A job's context on its own folder, with a real spool at `spool.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / "spool.jsonl"
    assignment = Assignment(1, kind, 1, str(folder), str(spool), str(folder / "train.log"), payload)
    return JobContext(assignment, SpoolWriter(spool))


def read_records(context: JobContext) -> list[Record]:
    """Everything in the context's spool so far."""
    return [record for record, _offset in read_spool(Path(context.assignment.spool))]
