"""Which job is next: each lane takes the first of its own that can start."""

from __future__ import annotations

from sqlalchemy import text
from sqlmodel import Session

from app.core.jobs.status import Lane

CLAIM = text("""
    UPDATE job SET status = 'starting', fence = fence + 1, attempts = attempts + 1, error = NULL, finished_at = NULL,
                   phase = NULL, step = CASE kind WHEN 'train' THEN step ELSE 0 END, eta_seconds = NULL,
                   started_at = coalesce(started_at, :now)
    WHERE status = 'queued' AND NOT paused AND id = :id
    RETURNING id
""")
_NEXT = """
    SELECT job.id FROM job LEFT JOIN base_model ON base_model.id = job.base_model_id
                           LEFT JOIN dataset ON dataset.id = job.dataset_id
    WHERE job.status = 'queued' AND NOT job.paused AND {in_lane}
          AND (job.kind = 'import' OR coalesce(base_model.status, 'ready') = 'ready'
                                  AND coalesce(dataset.status, 'ready') = 'ready')
    ORDER BY job.priority DESC, job.position, job.id LIMIT 1
"""
_QUEUE_GOES_ON = "NOT EXISTS (SELECT 1 FROM queue_state WHERE paused)"
_ON_CPU = "(job.kind = 'playground' AND coalesce(json_extract(job.spec, '$.device'), 'auto') = 'cpu')"
_TO_HUB = "coalesce(json_extract(job.spec, '$.format'), '') = 'hub'"
_IN_LANE = {
    Lane.GPU: f"job.kind IN ('train', 'playground') AND NOT {_ON_CPU} AND {_QUEUE_GOES_ON}",
    Lane.CHAT: _ON_CPU,
    Lane.MODEL: "job.kind = 'import' AND job.dataset_id IS NULL",
    Lane.DATA: "(job.kind = 'import' AND job.dataset_id IS NOT NULL OR job.kind = 'adapter')",
    Lane.MERGE: "job.kind = 'merge'",
    Lane.EXPORT: f"job.kind = 'export' AND NOT {_TO_HUB}",
    Lane.UPLOAD: f"job.kind = 'export' AND {_TO_HUB}",
    Lane.CHECK: "job.kind = 'check'",
    Lane.VIEW: "job.kind = 'preview'",
}
_NEXT_IN_LANE = {lane: text(_NEXT.format(in_lane=condition)) for lane, condition in _IN_LANE.items()}


def find_next(session: Session, lane: Lane) -> int | None:
    """The id of the lane's first job that can start. One that is paused, or whose model or dataset comes, waits."""
    row = session.execute(_NEXT_IN_LANE[lane]).first()
    return None if row is None else int(row[0])
