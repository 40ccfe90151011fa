"""An export job is a file of another program, or an upload to the hub: what each needs is imported for it alone."""

from __future__ import annotations

from typing import Any

from app.core.exports.formats import HUB
from worker.context import JobContext


def run_export_job(context: JobContext) -> dict[str, Any]:
    """By the payload's `format`. Raises: what the export raises."""
    if context.payload.get("format") == HUB:
        from worker.exports.hub import run_upload

        return run_upload(context)
    from worker.exports.run import run_export

    return run_export(context)
