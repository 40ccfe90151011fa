"""A series as a line of the height of text, drawn by the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.metrics.outline import read_outline

WIDTH, HEIGHT = 80, 18
_EDGE = 1.5  # half of the line's width stays within


def draw_line(points: Sequence[tuple[int, float]]) -> str:
    """Coordinates of an SVG polyline in a box of WIDTH by HEIGHT; empty for fewer than two points."""
    if len(points) < 2:
        return ""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, spread = min(values), max(values) - min(values) or 1.0
    across = (WIDTH - 2 * _EDGE) / (steps[-1] - steps[0])
    down = (HEIGHT - 2 * _EDGE) / spread
    return " ".join(
        f"{_EDGE + (step - steps[0]) * across:.1f},{HEIGHT - _EDGE - (value - low) * down:.1f}"
        for step, value in points
    )


def loss_lines(session: Session, jobs: Iterable[Job]) -> dict[int, str]:
    """{job id: line of its loss} of the trainings that have one."""
    lines = {
        job.key: draw_line(read_outline(session, job.key)) for job in jobs if job.kind == JobKind.TRAIN and job.attempts
    }
    return {job_id: line for job_id, line in lines.items() if line}
