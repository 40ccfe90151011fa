"""Bring a child's spool and log into the database: rows and cursor in one transaction."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.artifacts import store as artifacts
from app.core.chats.turns import take_answer
from app.core.database import Database
from app.core.events import log as events
from app.core.events.types import EventKind
from app.core.jobs.models import Attempt, Job
from app.core.masking import mask
from app.core.metrics.store import drop_metrics_after, put_metrics
from app.core.paths import DataFolder
from worker.attempts import hold
from worker.spool import Record, SpoolDamaged, read_spool

logger = logging.getLogger(__name__)

_LOG_CHUNK_BYTES = 64 * 1024
_RECORDS_AT_ONCE = 200  # in a transaction, which nobody else can write beside
_AT_ONCE_SECONDS = 0.5  # then the worker looks at other things, and others may write
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f]")


class Ingest:
    """Reads one attempt's files from where the database says it stopped."""

    def __init__(self, database: Database, folder: DataFolder, attempt: Attempt) -> None:
        self._database = database
        self._folder = folder
        self._attempt = attempt
        self.spool = folder.attempt(attempt.job_id, attempt.number) / "spool.jsonl"
        self.log = folder.job(attempt.job_id) / "train.log"
        self._read_bytes = (-1, -1)

    def run(self, *, at_end: bool = False) -> bool:
        """Take in what is new: a while's worth, at the end all of it. Returns whether there was anything.

        A child that tells more than can be taken in keeps nobody else from writing. Raises: StaleAttempt, SpoolDamaged.
        """
        sizes = (_size(self.spool), _size(self.log))
        if sizes == self._read_bytes and not at_end:
            return False
        until = time.monotonic() + _AT_ONCE_SECONDS
        while self._step(at_end):
            if not at_end and time.monotonic() >= until:
                return True
        self._read_bytes = sizes
        return True

    def _step(self, at_end: bool) -> bool:
        """One transaction's worth. Returns whether more may be waiting. What stands before damage is kept."""
        damage: SpoolDamaged | None = None
        with self._database.write() as session:
            job, attempt = hold(session, self._attempt)
            before = attempt.spool_seq
            try:
                self._take_records(session, job, attempt)
            except SpoolDamaged as error:
                damage = error
            log_bytes = self._take_log(session, attempt, at_end)
            session.add_all([job, attempt])
        if damage is not None:
            raise damage
        return attempt.spool_seq > before or log_bytes >= _LOG_CHUNK_BYTES

    def _take_records(self, session: Session, job: Job, attempt: Attempt) -> None:
        for record, offset in read_spool(self.spool, attempt.spool_offset, attempt.spool_seq, _RECORDS_AT_ONCE):
            _HANDLERS[record.kind](session, self._folder, job, record)
            if record.kind == "finished":
                attempt.outcome = record.data
            attempt.spool_offset, attempt.spool_seq = offset, record.seq

    def _take_log(self, session: Session, attempt: Attempt, at_end: bool) -> int:
        """New whole lines of the log (at the end also an unfinished one) become one event."""
        if not self.log.exists():
            return 0
        with self.log.open("rb") as file:
            file.seek(attempt.log_offset)
            chunk = file.read(_LOG_CHUNK_BYTES)
        whole = chunk[: _find_cut(chunk, at_end)]
        attempt.log_offset += len(whole)
        passing = len(chunk) == _LOG_CHUNK_BYTES > len(whole) and b"\n" not in whole  # states of a bar that goes on
        lines = [] if passing else clean_lines(whole)
        if lines:
            events.append(session, EventKind.LOG, {"lines": lines}, job_id=attempt.job_id)
        return len(chunk)


def _find_cut(chunk: bytes, at_end: bool) -> int:
    """How much of a chunk to take: whole lines. Of a line that is longer than a chunk: a progress bar's states but the
    last, else all of it; of the log's end also an unfinished line."""
    if len(chunk) < _LOG_CHUNK_BYTES:
        return len(chunk) if at_end else chunk.rfind(b"\n") + 1
    return chunk.rfind(b"\n") + 1 or chunk.rfind(b"\r", 0, max(0, chunk.rfind(b"\r"))) + 1 or len(chunk)


def clean_lines(raw: bytes) -> list[str]:
    """Log lines as text: terminal escapes removed, a progress bar's many states folded into its last."""
    lines = raw.decode("utf-8", errors="replace").split("\n")
    folded = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return [mask(_ESCAPES.sub("", line)[:4000]) for line in folded if line.strip()]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _start(session: Session, folder: DataFolder, job: Job, record: Record) -> None:
    """An attempt begins at a step: what an earlier one reported of later steps is about to be told anew."""
    job.step = record.step or 0
    job.start_from = None  # it has: an attempt that is to go on from here takes the newest state again
    drop_metrics_after(session, job.key, job.step)
    artifacts.drop_missing(session, folder, job.key)


def _phase(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    job.phase = record.data["phase"]
    if job.phase == "sample":
        job.sample_now_requested = False
    events.append(session, EventKind.PHASE, record.data, job_id=job.id, step=record.step, at=record.time)


def _progress(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    job.step = record.step or 0
    job.max_steps, job.eta_seconds = record.data["max_steps"], record.data["eta_seconds"]
    events.append(session, EventKind.PROGRESS, record.data, job_id=job.id, step=record.step, at=record.time)


def _metric(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    put_metrics(session, job.key, record.step or 0, record.time, record.data)
    events.append(session, EventKind.METRIC, record.data, job_id=job.id, step=record.step, at=record.time)


def _sample(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    events.append(session, EventKind.SAMPLE, record.data, job_id=job.id, step=record.step, at=record.time)


def _piece(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    events.append(session, EventKind.PIECE, record.data, job_id=job.id, at=record.time)


def _answer(session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    take_answer(session, job, record.data, record.time)


def _artifact(session: Session, folder: DataFolder, job: Job, record: Record) -> None:
    try:
        artifact = artifacts.record(session, folder, job.key, record.step, record.data)
    except (OSError, ValueError, KeyError) as error:
        # An attempt before this one may have announced a checkpoint that is rotated away by now.
        logger.warning("job %s announced %s, which cannot be read: %s", job.id, record.data.get("path"), error)
        return
    artifacts.drop_missing(session, folder, job.key)
    if artifact.kind == "checkpoint":
        job.save_now_requested = False
    data = {"kind": artifact.kind, "bytes": artifact.bytes}
    events.append(session, EventKind.ARTIFACT, data, job_id=job.id, step=record.step, at=record.time)


def _summary(_session: Session, _folder: DataFolder, job: Job, record: Record) -> None:
    job.summary = {**job.summary, **record.data}


def _finished(_session: Session, _folder: DataFolder, _job: Job, _record: Record) -> None:
    """Nothing yet: the job has ended once its process has; the supervisor decides then."""


_HANDLERS: dict[str, Callable[[Session, DataFolder, Job, Record], Any]] = {
    "start": _start,
    "phase": _phase,
    "progress": _progress,
    "metric": _metric,
    "sample": _sample,
    "piece": _piece,
    "answer": _answer,
    "artifact": _artifact,
    "summary": _summary,
    "finished": _finished,
}
