"""The planned peak of a changed spec, as the plan of a new job would have it, in bytes alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sqlmodel import Session

from app.core.errors import InvalidInput
from app.core.jobs.changes import Setting
from app.core.jobs.spec import TrainingSpec
from app.core.models.models import BaseModel
from app.core.planning.architecture import Architecture
from app.core.planning.calibration import Calibration
from app.core.planning.config import load_config
from app.core.planning.families import read_architecture
from app.core.planning.history import find_calibration
from app.core.planning.overhead import overhead_bytes
from app.core.planning.peak import Setting as PlanSetting
from app.core.planning.peak import peak_of


class Planner:
    """Plans changes to one spec, on its model and with its rows."""

    def __init__(self, session: Session, model: BaseModel | None, spec: TrainingSpec, setting: Setting) -> None:
        """The type that is computed in is the one that `spec` has."""
        self._session = session
        self._architecture = _find_architecture(model)
        in_bf16 = bool((setting.capabilities or {}).get("bf16")) if spec.bf16 == "auto" else spec.bf16
        self._setting = PlanSetting(setting.on_cuda, 2 if in_bf16 else 4, setting.rows.longest)
        self._calibrations: dict[str, Calibration | None] = {}

    def __call__(self, spec: TrainingSpec) -> int | None:
        """None where there is no plan. On a GPU with what CUDA takes beside the tensors, and corrected by past jobs."""
        if self._architecture is None:
            return None
        try:
            peak = peak_of(self._architecture, spec, self._setting)
        except InvalidInput:  # what is not covered
            return None
        if not self._setting.on_cuda:
            return peak.allocated
        components = {**asdict(peak), "overhead": overhead_bytes(peak.allocated)}
        calibration = self._calibration_of(spec)
        return sum((calibration.apply(components) if calibration else components).values())

    def _calibration_of(self, spec: TrainingSpec) -> Calibration | None:
        if spec.method not in self._calibrations:
            self._calibrations[spec.method] = find_calibration(self._session, spec)
        return self._calibrations[spec.method]


def _find_architecture(model: BaseModel | None) -> Architecture | None:
    if model is None or model.path is None:
        return None
    try:
        return read_architecture(load_config(Path(model.path)))
    except InvalidInput:  # not there yet, or of a kind that the plan does not know
        return None
