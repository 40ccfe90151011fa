"""The plan of a job before it is launched."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import InvalidInput
from app.core.jobs.spec import parse_spec, read_yaml
from app.core.planning.history import plan_on_box
from app.web.dependencies import FolderDep, SessionDep

router = APIRouter(prefix="/plan", tags=["plan"])

_GIB = 1 << 30


class PlanIn(BaseModel):
    """A TrainingSpec as values or as YAML text, one of the two."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any] | None = None
    yaml: str | None = None
    config: dict[str, Any] | None = Field(None, description="config.json of a model that is not registered.")
    vram_gb: float | None = Field(None, gt=0, le=10_000, description="A card to hold it against, in GiB.")


@router.post("", name="api_plan")
def plan(body: PlanIn, session: SessionDep, folder: FolderDep) -> dict[str, Any]:
    """{method, trainable_parameters, all_parameters, adapter_bytes, peak_bytes, components, fits, warnings, …}.

    Nothing is queued or loaded. `fits` is null where no card is named and the box has none.
    """
    if (body.spec is None) == (body.yaml is None):
        raise InvalidInput("Give the spec as `spec` or as `yaml`.", field="spec")
    spec = parse_spec(read_yaml(body.yaml) if body.yaml is not None else body.spec or {})
    vram = round(body.vram_gb * _GIB) if body.vram_gb else None
    return plan_on_box(session, folder.home, spec, config=body.config, vram_bytes=vram).to_json()
