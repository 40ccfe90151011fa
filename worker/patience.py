"""Waiting for disk space: what a run has learned is worth more than the time until somebody has made room."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from app.core.errors import JobCancelled
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
