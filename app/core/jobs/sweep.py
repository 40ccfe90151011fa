"""A sweep: one training for each combination of some fields' values, queued together or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app.core.errors import Fault, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.shown import show
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.spec_faults import likely_field
from app.core.jobs.submit import check_values, submit_values
from app.core.jobs.sweep_axes import SWEEP_FIELD, Axes
from app.core.paths import DataFolder

MOST_JOBS = 64
_NAMED = 3  # combinations in a message
_MOST_NAME = 200


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination: all of its values, and those by which it differs from the others."""

    values: dict[str, Any]
    differences: dict[str, Any]

    @property
    def label(self) -> str:
        """As in `learning_rate 1e-4, r 8`."""
        return ", ".join(f"{field} {show(value) or 'empty'}" for field, value in self.differences.items())

    def name(self, base: str) -> str:
        """The job's name; the differences stay whole where the name would be too long."""
        room = max(0, _MOST_NAME - len(self.label) - 3)
        return f"{base[:room]} · {self.label}"[:_MOST_NAME]


def expand(values: Mapping[str, Any], axes: Axes) -> list[Variant]:
    """Every combination, the last field varying fastest. Raises: InvalidInput on `sweep` with every fault."""
    faults = list(_faults_of_axes(axes))
    if faults:
        raise InvalidInput(faults)
    combinations = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
    return [Variant({**values, **each}, each) for each in combinations]


def check_sweep(session: Session, variants: Sequence[Variant]) -> list[Fault]:
    """Every fault of every job, each told once with the combinations that have it."""
    found: dict[tuple[str, str, str | None], list[str]] = {}
    for variant in variants:
        for fault in check_values(session, variant.values):
            found.setdefault((fault.field, fault.message, fault.advice), []).append(variant.label)
    return [
        Fault(field, message if len(labels) == len(variants) else f"{message} ({_some(labels)})", advice)
        for (field, message, advice), labels in found.items()
    ] or _faults_of_twins(variants)


def submit_sweep(
    session: Session,
    values: Mapping[str, Any],
    axes: Axes,
    name: str | None = None,
    local_roots: Sequence[Path] = (),
    folder: DataFolder | None = None,
) -> list[Job]:
    """Queue one training for each combination, in their order. Raises: InvalidInput, and nothing is queued."""
    variants = expand(values, axes)
    faults = check_sweep(session, variants)
    if faults:
        raise InvalidInput(faults)
    base = (name or "").strip() or f"{values.get('base_model')} on {values.get('dataset')}"
    jobs = [submit_values(session, each.values, each.name(base), local_roots, folder) for each in variants]
    for job in jobs:
        job.sweep_id = jobs[0].key
    session.add_all(jobs)
    session.flush()
    return jobs


def get_sweep(session: Session, sweep_id: int) -> Sequence[Job]:
    """Its jobs, in their order. Raises: NotFound."""
    jobs = session.exec(select(Job).where(Job.sweep_id == sweep_id).order_by(col(Job.id))).all()
    if not jobs:
        raise NotFound(f"There is no sweep {sweep_id}.")
    return jobs


def differing_fields(jobs: Sequence[Job]) -> list[str]:
    """Fields whose values are not the same in all jobs, in the order of the spec."""
    return [name for name in TrainingSpec.model_fields if len({repr(job.spec.get(name)) for job in jobs}) > 1]


def _faults_of_axes(axes: Axes) -> Iterator[Fault]:
    if not axes:
        yield Fault(SWEEP_FIELD, "Name at least one field and its values.")
    for field, values in axes.items():
        if field not in TrainingSpec.model_fields:
            meant = likely_field(field, TrainingSpec.model_fields)
            yield Fault(SWEEP_FIELD, f"unknown field {field!r:.80}", f"Did you mean {meant}?" if meant else None)
        elif not values:
            yield Fault(SWEEP_FIELD, f"{field} has no values.")
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > MOST_JOBS:
        yield Fault(
            SWEEP_FIELD, f"These are {size:,} jobs; a sweep queues {MOST_JOBS} at most.", "Leave some values out."
        )


def _faults_of_twins(variants: Sequence[Variant]) -> list[Fault]:
    seen: dict[str, str] = {}
    for variant in variants:
        key = parse_spec(variant.values).model_dump_json()
        if key in seen:
            return [Fault(SWEEP_FIELD, f"two jobs would be the same: {seen[key]}, and {variant.label}")]
        seen[key] = variant.label
    return []


def _some(labels: Sequence[str]) -> str:
    more = f"; and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"with {'; '.join(labels[:_NAMED])}{more}"
