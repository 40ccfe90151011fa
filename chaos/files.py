"""What must hold of the files: results, checkpoints, nothing half-done. Each check yields None for what is in order."""

from __future__ import annotations

from app.core.artifacts.store import read_files, trained_kind
from app.core.jobs.status import JobKind
from chaos.evidence import Evidence, Finding
from worker.artifacts.folders import META, folder_fault
from worker.artifacts.steps import CHECKPOINTS, step_folders


def results_equal_the_twins(evidence: Evidence) -> Finding:
    for job, twin in evidence.with_twins():
        yield compare_folders(evidence, job.key, twin, trained_kind(job))
    first = {trained: merge for merge, trained in evidence.merges.items() if trained in evidence.twins.values()}
    for job in evidence.done:
        if job.kind == JobKind.MERGE and job.source_job_id is not None:
            source = next(each for each in evidence.rows if each.id == job.source_job_id)
            twin_merge = first.get(evidence.twin_of(source) or 0)
            yield (
                compare_folders(evidence, job.key, twin_merge, "merged") if twin_merge else f"job {job.id} has no twin"
            )


def compare_folders(evidence: Evidence, job_id: int, twin: int, name: str) -> str | None:
    """Of two finished folders every file must be the same, but for the list of them, which tells the time."""
    mine, theirs = ({file["path"]: file["sha256"] for file in _files(evidence, each, name)} for each in (job_id, twin))
    differ = sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path))
    return f"job {job_id}: {name} is not that of job {twin}: {', '.join(differ)}" if differ or not mine else None


def _files(evidence: Evidence, job_id: int, name: str) -> list[dict[str, str]]:
    try:
        return [file for file in read_files(evidence.folder.job(job_id) / name) if file["path"] != META]
    except (OSError, ValueError, KeyError):
        return []


def folders_verify(evidence: Evidence) -> Finding:
    recorded = {(each.job_id, each.path) for each in evidence.artifacts}
    there = set()
    for job in evidence.rows:
        folder = evidence.folder.job(job.key)
        saved = [path for _step, path in step_folders(folder / CHECKPOINTS)]
        for path in (*saved, *(folder / name for name in ("adapter", "merged") if (folder / name).exists())):
            there.add((job.key, str(path.relative_to(folder))))
            fault = folder_fault(path)
            yield f"{path}: {fault}" if fault else None
        limit = int(job.spec.get("save_total_limit", len(saved)))
        yield None if len(saved) <= limit else f"{folder} keeps {len(saved)} checkpoints of {limit}"
    for job_id, name in sorted(recorded ^ there):
        yield f"job {job_id}: {name} is {'on record' if (job_id, name) in recorded else 'on disk'} only"


def nothing_is_left_half_done(evidence: Evidence) -> Finding:
    for job in evidence.rows:
        left = [path for path in evidence.folder.job(job.key).rglob(".*") if path.name.startswith(".")]
        yield f"job {job.id}: {', '.join(str(path) for path in left)}" if left else None
    for upload in evidence.folder.uploads.iterdir():
        yield f"{upload} was never collected"
    for line in evidence.left_over:
        yield f"still there after everything was stopped: {line}"
