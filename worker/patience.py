"""Waiting for room, on the disk or in memory: what is worth more than the time until somebody has made it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import psutil

from app.core.errors import JobCancelled, JobError
from worker.artifacts.disk import DiskFull
from worker.context import JobContext, StopRequest
from worker.notes import FILE, WaitNote

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_ENDING = (StopRequest.CANCEL, StopRequest.INTERRUPT)
Saved = TypeVar("Saved")


def save_when_it_fits(context: JobContext, save: Callable[[], Saved]) -> Saved:
    """What `save` returns, called again until it meets no full disk; the job's page says meanwhile what is needed.

    Raises: JobCancelled where that is asked for meanwhile, or the worker stops: the run goes on from the last state.
    """
    try:
        return save()
    except DiskFull as error:
        full = error
    logger.warning("%s The job waits until there is room.", full)
    with closing(WaitNote(Path(context.assignment.spool).with_name(FILE))) as note:
        saved = _wait(context, save, note, full)
        note.put(None)
    logger.info("there is room again; saved")
    return saved


def _wait(context: JobContext, save: Callable[[], Saved], note: WaitNote, full: DiskFull) -> Saved:
    while True:
        if context.stop_request in _ENDING:
            raise JobCancelled() from full
        note.put({"kind": full.code, "message": f"{full} The job waits, and goes on as soon as there is room."})
        time.sleep(POLL_SECONDS)
        try:
            return save()
        except DiskFull as error:
            full = error


class TooLarge(JobError):
    """This machine has not the memory that it takes."""

    code = "too_large"


def wait_for_memory(context: JobContext, needed_bytes: int, why: str) -> None:
    """Return once so much memory is free; the job's page says meanwhile `why` it is needed, and how much.

    Raises: TooLarge where this machine never has as much; JobCancelled where that is asked for, or the worker stops.
    """
    memory = psutil.virtual_memory()
    needs = f"{why} takes about {_gb(needed_bytes)} of memory"
    if needed_bytes > memory.total:
        raise TooLarge(f"{needs}; this machine has {_gb(memory.total)}.", advice="Run it on one that has more.")
    if needed_bytes <= memory.available:
        return
    logger.warning("%s; %s are free. The job waits until they are.", needs, _gb(memory.available))
    with closing(WaitNote(Path(context.assignment.spool).with_name(FILE))) as note:
        while (free := psutil.virtual_memory().available) < needed_bytes:
            if context.stop_request in _ENDING:
                raise JobCancelled()
            said = f"{needs}; {_gb(free)} are free. The job waits, and goes on as soon as there is room."
            note.put({"kind": "memory", "message": said})
            time.sleep(POLL_SECONDS)
        note.put(None)
    logger.info("there is enough memory now")


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
