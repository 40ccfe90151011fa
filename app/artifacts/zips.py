"""Artifacts as zips, streamed: stored rather than deflated, the length known before the first byte, no copy on disk."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import StreamingResponse
from zipstream import ZIP_STORED, ZipStream

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import META
from app.core.errors import Conflict
from app.core.jobs.models import Job
from app.core.paths import DataFolder


def zip_response(folder: DataFolder, job: Job, artifact: Artifact) -> StreamingResponse:
    """One artifact folder's files. Raises: Conflict where it is not verified, or a file of it has gone."""
    if artifact.verified is False:
        raise Conflict(
            f"The {artifact.kind} of job {job.id} did not pass its verification.",
            advice="Its certificate says what differs; merge again.",
        )
    name = f"loradeck-job-{job.id}-{artifact.kind}" + (
        f"-step-{artifact.step}" if artifact.kind == "checkpoint" else ""
    )
    stream = _build_zip(folder.job(artifact.job_id) / artifact.path, artifact, name)
    headers = {"Content-Length": str(len(stream)), "Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(iter(stream), media_type="application/zip", headers=headers)


def _build_zip(root: Path, artifact: Artifact, name: str) -> ZipStream:
    stream = ZipStream(compress_type=ZIP_STORED, sized=True)
    listed = (file["path"] for file in artifact.files)
    for relative in dict.fromkeys([*listed, META]):  # artifacts of earlier versions do not list their meta.json
        path = root / relative
        if path.resolve() != root.resolve() / relative or not path.is_file():  # no link on the way, no way out
            raise Conflict(f"{relative} of this {artifact.kind} is missing from the data folder.")
        stream.add_path(str(path), arcname=f"{name}/{relative}")
    return stream
