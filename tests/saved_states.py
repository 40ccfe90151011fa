"""Training states as a run leaves them in its job's folder, as far as the web looks at them."""

from __future__ import annotations

from app.core.artifacts.manifest import META, hash_file, seal
from app.core.jobs.models import Job
from app.core.paths import DataFolder


def save_states(folder: DataFolder, job: Job, *steps: int, size: int = 4) -> None:
    """A state for each step, of one file with `size` bytes."""
    for step in steps:
        state = folder.job(job.key) / "state" / f"step-{step}"
        state.mkdir(parents=True)
        (state / "optimizer.pt").write_bytes(b"x" * size)
        listed = {"path": "optimizer.pt", "bytes": size, "sha256": hash_file(state / "optimizer.pt")}
        meta = {"kind": "state", "step": step, "created_at": 5.0, "files": [listed]}
        (state / META).write_text(seal(meta))
