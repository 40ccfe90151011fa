"""What finished jobs on this box held in fact, against what was planned for them: later plans are corrected by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

GROUPS: Mapping[str, tuple[str, ...]] = {  # what a job can measure: some components only together
    "weights": ("weights",),
    "adapter": ("adapter",),
    "optimizer": ("optimizer",),
    "working": ("gradients", "activations", "logits"),
    "overhead": ("overhead",),
}
_SANE = (0.5, 2.0)  # a factor beyond says that something else was measured


@dataclass(frozen=True, slots=True)
class Residual:
    """Of one finished job: bytes planned and measured, by group; `overhead` is not always measured."""

    planned: Mapping[str, int]
    measured: Mapping[str, int]

    def to_json(self) -> dict[str, dict[str, int]]:
        """As the job's summary keeps it; `residual` is measured less planned."""
        residual = {name: size - self.planned[name] for name, size in self.measured.items()}
        return {"planned": dict(self.planned), "measured": dict(self.measured), "residual": residual}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A factor for each group, from so many jobs."""

    factors: Mapping[str, float]
    jobs: int

    @property
    def note(self) -> str:
        """In words."""
        return f"corrected by {self.jobs} finished job{'s' if self.jobs > 1 else ''} of this method on this box"

    def apply(self, components: Mapping[str, int]) -> dict[str, int]:
        """The components as they would have been right for those jobs."""
        factor_of = {name: self.factors.get(group, 1.0) for group, names in GROUPS.items() for name in names}
        return {name: round(value * factor_of[name]) for name, value in components.items()}


def in_groups(components: Mapping[str, int]) -> dict[str, int]:
    """A plan's components as a job can measure them."""
    return {group: sum(components[name] for name in names) for group, names in GROUPS.items()}


def calibrate(residuals: Sequence[Residual]) -> Calibration | None:
    """The median ratio of measured to planned by group; None without a job. Ratios beyond reason are left out."""
    if not residuals:
        return None
    factors: dict[str, float] = {}
    for group in GROUPS:
        known = [each for each in residuals if each.planned.get(group) and group in each.measured]
        ratios = [each.measured[group] / each.planned[group] for each in known]
        sane = [ratio for ratio in ratios if _SANE[0] <= ratio <= _SANE[1]]
        if sane:
            factors[group] = median(sane)
    return Calibration(factors, len(residuals))
