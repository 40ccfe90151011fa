"""Drop events by rule: readings by age, and what is told elsewhere too of jobs that ended long ago."""

from __future__ import annotations

from sqlalchemy import text
from sqlmodel import Session

from app.core.events.log import mark_pruned

LOG_EVENTS_KEPT = 200  # of each job: what its page shows; the whole log is in its file

# With `kind` written out, else SQLite could not use the index of readings alone.
_OLD_READINGS = text("""
    DELETE FROM event WHERE id IN
        (SELECT id FROM event WHERE kind = 'gpu' AND time < :before ORDER BY time LIMIT :limit)
""")
_ENDED = text("""
    SELECT id, finished_at FROM job
    WHERE (finished_at, id) > (:after_time, :after_id) AND finished_at < :before
    ORDER BY finished_at, id LIMIT 1
""")
# Metrics have their own table, the log its file; what a phase or a step was is of no use without them.
_OF_ENDED_JOB = text("""
    DELETE FROM event WHERE id IN
        (SELECT id FROM event WHERE job_id = :job_id AND (
            kind IN ('progress', 'metric', 'phase', 'gpu', 'piece', 'answer') OR kind = 'log' AND id <= coalesce(
                (SELECT id FROM event WHERE job_id = :job_id AND kind = 'log'
                 ORDER BY id DESC LIMIT 1 OFFSET :kept), 0))
         LIMIT :limit)
    AND EXISTS (SELECT 1 FROM job WHERE id = :job_id AND finished_at < :before
                AND status IN ('completed', 'failed', 'cancelled'))
    RETURNING id
""")


def prune_readings(session: Session, before: float, limit: int = 100) -> int:
    """Drop GPU events older than `before`, whose readings stay in their own table; returns how many went."""
    return session.execute(_OLD_READINGS, {"before": before, "limit": limit}).rowcount  # type: ignore[attr-defined,no-any-return]


def find_ended(session: Session, after: tuple[float, int], before: float) -> tuple[float, int] | None:
    """(time, id) of the next job behind `after` that ended before `before`."""
    values = {"after_time": after[0], "after_id": after[1], "before": before}
    row = session.execute(_ENDED, values).first()
    return None if row is None else (row.finished_at, row.id)


def prune_job(session: Session, job_id: int, before: float, limit: int = 100) -> int:
    """Drop progress, metrics, phases and older log lines of a job that ended before `before`; how many went.

    A job that was started again meanwhile keeps all. Its states, samples and artifacts stay in any case.
    """
    values = {"job_id": job_id, "before": before, "limit": limit, "kept": LOG_EVENTS_KEPT}
    gone = session.execute(_OF_ENDED_JOB, values).scalars().all()
    if gone:
        mark_pruned(session, max(gone))
    return len(gone)
