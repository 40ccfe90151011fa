"""The tables of a comparison: what the runs were set to, what they came to, what they answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.samples import BASE, list_samples
from app.core.jobs.shown import show_field
from app.core.metrics.readings import read_columns
from app.core.metrics.series import find_range, read_buckets
from app.core.metrics.store import latest_values
from app.web.templating import format_bytes, format_duration, format_number

_FINE = 500


@dataclass(frozen=True, slots=True)
class Field:
    """One hyperparameter over all runs."""

    name: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One result over all runs; `best` are the places of those that did best, empty where that says nothing."""

    label: str
    note: str
    shown: Sequence[str]
    best: frozenset[int]


def list_fields(runs: Sequence[Job]) -> list[Field]:
    """Every field of the specs, in their order."""
    names = dict.fromkeys(name for run in runs for name in run.spec)
    return [Field(name, [show_field(name, run.spec.get(name)) or "none" for run in runs]) for name in names]


def list_figures(session: Session, runs: Sequence[Job]) -> list[Figure]:
    """What the runs came to, as far as they have come."""
    results = [_results(session, run) for run in runs]
    return [
        _figure("final loss", "of the last point", results, "loss", format_number, min),
        _figure("best loss", "least of all points", results, "best_loss", format_number, min),
        _figure("final eval loss", "on held-out rows", results, "eval_loss", format_number, min),
        _figure("best eval loss", "on held-out rows", results, "best_eval_loss", format_number, min),
        _figure("steps", "", results, "steps", format_number, None),
        _figure("time", "of its steps", results, "seconds", format_duration, min),
        _figure("tokens/s", "mean, padding not counted", results, "tokens_per_second", format_number, max),
        _figure("peak memory", "of the job's process", results, "peak_bytes", format_bytes, min),
    ]


def list_answers(session: Session, runs: Sequence[Job]) -> list[tuple[str, list[tuple[int, str] | None]]]:
    """Prompts that several runs answered, each with (step, text) of every run's newest answer."""
    told = [list_samples(session, run.key).answers for run in runs]
    prompts = dict.fromkeys(prompt for answers in told for prompt in answers)
    rows = [(prompt, [_newest(answers.get(prompt, {})) for answers in told]) for prompt in prompts]
    return [(prompt, answers) for prompt, answers in rows if sum(each is not None for each in answers) > 1]


def _newest(answers: Mapping[int, str]) -> tuple[int, str] | None:
    trained = [step for step in answers if step != BASE]
    return (max(trained), answers[max(trained)]) if trained else None


def _results(session: Session, run: Job) -> dict[str, float | None]:
    latest = latest_values(session, run.key)
    seconds = None if run.started_at is None or run.finished_at is None else run.finished_at - run.started_at
    rate = run.summary.get("tokens_per_second", latest.get("tokens_per_second"))
    return {
        "loss": latest.get("loss"),
        "best_loss": _least(session, run.key, "loss"),
        "eval_loss": latest.get("eval_loss"),
        "best_eval_loss": _least(session, run.key, "eval_loss"),
        "steps": run.step,
        "seconds": run.summary.get("train_seconds", seconds),
        "tokens_per_second": rate,
        "peak_bytes": _peak(session, run.key),
    }


def _least(session: Session, job_id: int, name: str) -> float | None:
    steps = find_range(session, job_id, name)
    if steps is None:
        return None
    buckets = read_buckets(session, job_id, name, *steps, _FINE)
    return min((bucket.low for bucket in buckets if bucket.low is not None), default=None)


def _peak(session: Session, job_id: int) -> float | None:
    """Of VRAM where the process was seen on a device, else of its resident memory."""
    columns = read_columns(session, job_id, None, None, most=2)
    for name in ("process_vram_bytes", "child_rss_bytes"):
        found = [value for value in columns[name] if value is not None]
        if found:
            return float(max(found))
    return None


def _figure(
    label: str,
    note: str,
    results: Sequence[Mapping[str, Any]],
    name: str,
    show: Callable[[float | None], str],
    better: Callable[[Sequence[float]], float] | None,
) -> Figure:
    values = [result[name] for result in results]
    known = [value for value in values if value is not None]
    best = better(known) if better is not None and len(set(known)) > 1 else None
    at = frozenset(place for place, value in enumerate(values) if best is not None and value == best)
    return Figure(label, note, [show(value) for value in values], at)
