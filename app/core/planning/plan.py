"""The plan of a job: what it trains, what it takes of memory, disk and time, and what is doubtful about it.

From a model's config and a spec alone: no weights, no torch, no GPU; some milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.core.jobs.spec import TrainingSpec
from app.core.jobs.warnings import SpecWarning, Surroundings, fit_warnings, spec_warnings
from app.core.planning.architecture import Architecture
from app.core.planning.calibration import Calibration
from app.core.planning.families import read_architecture
from app.core.planning.logits import Loss, choose_loss
from app.core.planning.mending import find_values_that_fit
from app.core.planning.overhead import overhead_bytes
from app.core.planning.peak import NotPlanned, Peak, Setting, peak_of
from app.core.planning.schedule import Past, Schedule, make_schedule
from app.core.planning.trainable import adapter_file_bytes, count_trainable

Verdict = Literal["fits", "tight", "does not fit"]

_TIGHT = 0.9  # share of the memory above which a plan is called tight
_STATE_BYTES = 8  # of AdamW for each trainable parameter, as a checkpoint keeps it
_MERGED_BYTES = 2  # of each parameter, in bfloat16


@dataclass(frozen=True, slots=True)
class Box:
    """What a plan is held against; None for what is not known."""

    vram_bytes: int | None = None  # what a job can have
    vram_source: str | None = None  # in words
    cuda: bool | None = None
    bf16: bool | None = None
    disk_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of the rows."""

    rows: int | None = None
    longest_row: int | None = None  # in tokens of this model


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes and counts; see docs/plan.md. `peak_bytes` and components are None where `not_planned` says why."""

    method: str
    trainable_parameters: int
    all_parameters: int
    adapter_bytes: int
    peak_bytes: int | None
    components: dict[str, int] | None
    fits: bool | None
    verdict: Verdict | None
    vram_bytes: int | None
    vram_source: str | None
    loss: str | None  # how the logits are held
    peak_bytes_with_plain_loss: int | None
    spare_bytes: int | None  # what the peak leaves of the card; below 0 what is missing
    spare_bytes_with_plain_loss: int | None
    calibration: str | None
    disk_bytes: int
    schedule: Schedule
    assumptions: list[str]
    not_planned: str | None = None
    warnings: list[SpecWarning] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As the API and the command show it; the schedule's values stand beside the others."""
        values = asdict(self)
        schedule = values.pop("schedule")
        return {**values, **schedule}


def make_plan(
    config: Mapping[str, Any],
    spec: TrainingSpec,
    box: Box = Box(),
    data: Data = Data(),
    past: Past = Past(),  # noqa: B008
    calibration: Calibration | None = None,
) -> Plan:
    """Raises: InvalidInput for a config that is not a known language model's, and modules that it does not have."""
    architecture = read_architecture(config)
    without_bf16 = spec.bf16 is False or (spec.bf16 == "auto" and box.cuda is True and box.bf16 is False)
    setting = Setting(element_bytes=4 if without_bf16 else 2, longest_row=data.longest_row)
    trainable = count_trainable(architecture, spec)
    adapter_bytes = 0 if spec.method == "full" else adapter_file_bytes(trainable, spec)
    components, loss, not_planned = _components(architecture, spec, setting, calibration)
    peak = _total(components)
    plain = _total(_components(architecture, spec, setting, calibration, Loss.PLAIN)[0])
    verdict = _judge(peak, box.vram_bytes)
    disk = _disk_bytes(architecture, spec, trainable.total, adapter_bytes)
    schedule = make_schedule(spec, data.rows, past)
    around = Surroundings(
        tuple(architecture.module_names), architecture.max_length, _quantised_by(config), box.cuda, box.bf16,
        disk, box.disk_free_bytes,
    )  # fmt: skip
    smaller: dict[str, Any] = {}
    if peak is not None and box.vram_bytes is not None and verdict != "fits":
        allowed = _TIGHT * box.vram_bytes
        smaller = find_values_that_fit(
            spec, peak, allowed, lambda changed: _total(_components(architecture, changed, setting, calibration)[0])
        )
    return Plan(
        method=spec.method,
        trainable_parameters=trainable.total,
        all_parameters=architecture.parameters + trainable.added,
        adapter_bytes=adapter_bytes,
        peak_bytes=peak,
        components=components,
        fits=None if peak is None or box.vram_bytes is None else peak <= box.vram_bytes,
        verdict=verdict,
        vram_bytes=box.vram_bytes,
        vram_source=box.vram_source,
        loss=loss.value if loss else None,
        peak_bytes_with_plain_loss=plain,
        spare_bytes=_spare(peak, box.vram_bytes),
        spare_bytes_with_plain_loss=_spare(plain, box.vram_bytes),
        calibration=calibration.note if calibration else None,
        disk_bytes=disk,
        schedule=schedule,
        assumptions=_assumptions(spec, setting, data),
        not_planned=not_planned,
        warnings=[*fit_warnings(verdict, peak or 0, box.vram_bytes, smaller), *spec_warnings(spec, schedule, around)],
    )


def _components(
    architecture: Architecture,
    spec: TrainingSpec,
    setting: Setting,
    calibration: Calibration | None,
    loss: Loss | None = None,
) -> tuple[dict[str, int] | None, Loss | None, str | None]:
    """Bytes by component, how the logits are held; or why they are not known. `loss` None: as the engine's own."""
    try:
        peak = peak_of(architecture, spec, setting, loss=loss)
    except NotPlanned as error:
        return None, None, error.message
    components = _with_overhead(peak)
    loss = loss or choose_loss(architecture, spec.modules_to_save)
    return (calibration.apply(components) if calibration else components), loss, None


def _total(components: Mapping[str, int] | None) -> int | None:
    return sum(components.values()) if components else None


def _with_overhead(peak: Peak) -> dict[str, int]:
    return {**asdict(peak), "overhead": overhead_bytes(peak.allocated)}


def _spare(peak: int | None, vram: int | None) -> int | None:
    return None if peak is None or vram is None else vram - peak


def _judge(peak: int | None, vram: int | None) -> Verdict | None:
    if peak is None or vram is None:
        return None
    if peak > vram:
        return "does not fit"
    return "tight" if peak > _TIGHT * vram else "fits"


def _disk_bytes(architecture: Architecture, spec: TrainingSpec, trainable: int, adapter_bytes: int) -> int:
    """Checkpoints (weights and the optimizer's state), one more while it is written, the result, and a merged model."""
    saved = adapter_bytes or 4 * architecture.parameters
    checkpoint = saved + _STATE_BYTES * trainable
    merged = _MERGED_BYTES * architecture.parameters if spec.method != "full" else 0
    return checkpoint * (spec.save_total_limit + 1) + saved + merged


def _quantised_by(config: Mapping[str, Any]) -> str | None:
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None
    return str(found.get("quant_method", "unknown method"))[:40]


def _assumptions(spec: TrainingSpec, setting: Setting, data: Data) -> list[str]:
    rows = spec.per_device_train_batch_size * (2 if spec.task == "dpo" else 1)
    computed = "float32" if setting.element_bytes == 4 else "bfloat16"
    return [
        f"a GPU that computes in {computed}, which has nothing else in its memory",
        f"a batch of {rows} rows of {setting.length(spec):,} tokens, each of them with a label: the most there can be",
        "gradient checkpointing is on"
        if spec.gradient_checkpointing in ("auto", True)
        else "no gradient checkpointing",
        *([] if data.rows is None else [f"a dataset of {data.rows:,} rows"]),
    ]
