"""What can be trained and is probably not meant, by method: warnings, each with the change that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.jobs.spec import TrainingSpec, own_defaults
from app.core.planning.schedule import Schedule, effective_batch

# Usual learning rates by (whether every weight is trained, whether from preferences), lowest and highest. Sources: the
# QLoRA paper (2e-4 up to 13B, 1e-4 above) for adapters; DPO (Rafailov et al., 2023: 1e-6) and Zephyr (Tunstall et al.,
# 2023: 2e-5, and 5e-7 from preferences) for the rest.
_USUAL_RATES = {
    (False, False): (1e-4, 3e-4),
    (False, True): (1e-6, 5e-5),
    (True, False): (1e-6, 5e-5),
    (True, True): (1e-7, 5e-6),
}
GIB = 1 << 30
_HIGHEST_RANK = 128
_MANY_PASSES = 10
_SANE_PASSES = 3
# Leaf names of attention's projections in the architectures that transformers loads.
_ATTENTION = re.compile(r"(q|k|v|o|qkv|kv|q_a|q_b|kv_a|kv_b|out|in)_proj(_with_mqa)?|c_attn|query_key_value|W?qkv")


@dataclass(frozen=True, slots=True)
class SpecWarning:
    """A warning about a field: what it costs, and the values that would mend it."""

    code: str
    field: str
    message: str
    fix: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the warnings know beside the spec; None for what is not known."""

    linear_modules: tuple[str, ...] = ()
    positions: int | None = None  # tokens that the model was made for
    quantised_by: str | None = None  # method that the base's own weights are quantised by
    cuda: bool | None = None
    bf16: bool | None = None  # whether the device computes in it
    disk_needed_bytes: int | None = None
    disk_free_bytes: int | None = None


def spec_warnings(spec: TrainingSpec, schedule: Schedule, around: Surroundings) -> list[SpecWarning]:
    """All of them, in the order of the form."""
    lora = spec.method != "full" and spec.init_adapter is None  # else the adapter that it starts from decides these
    return [
        *_base(around),
        *(target_warnings(spec.target_modules, around.linear_modules) if lora else []),
        *(_adapter(spec) if lora else []),
        *_learning_rate(spec),
        *_rows(spec, schedule, around),
        *_device(spec, around),
        *_disk(spec, around),
    ]


def _base(around: Surroundings) -> Iterator[SpecWarning]:
    if around.quantised_by is None:
        return
    message = f"The base model's weights are quantised already ({around.quantised_by}); a merge cannot bring them back."
    yield SpecWarning("base_quantised", "base_model", f"{message} Take the original and `method: qlora`.", {})


def _adapter(spec: TrainingSpec) -> Iterator[SpecWarning]:
    if spec.lora_alpha not in (spec.r, 2 * spec.r):
        message = f"Alpha is neither r nor 2r: the update is scaled by {spec.lora_alpha / spec.r:.3g}."
        yield SpecWarning("alpha", "lora_alpha", message, {"lora_alpha": 2 * spec.r})
    if spec.r > _HIGHEST_RANK:
        message = f"A rank above {_HIGHEST_RANK} seldom learns more, and costs memory; with alpha / r it learns slowly."
        fix = {"r": 64, "lora_alpha": 128} if not spec.use_rslora else {"r": 64}
        yield SpecWarning("rank", "r", message, fix)


def _learning_rate(spec: TrainingSpec) -> Iterator[SpecWarning]:
    full, preference = spec.method == "full", spec.task == "dpo"
    low, high = _USUAL_RATES[full, preference]
    if low <= spec.learning_rate <= high:
        return
    what = f"{'preference training' if preference else 'training'} of {'every weight' if full else 'an adapter'}"
    usual = own_defaults(spec.method, spec.task).get("learning_rate")
    default = TrainingSpec.model_fields["learning_rate"].default
    fix = 5e-6 if preference and not full else default if usual is None else usual
    side = "below" if spec.learning_rate < low else "above"
    message = f"{spec.learning_rate:g} is {side} what is usual for {what}, {low:g} to {high:g}."
    yield SpecWarning("learning_rate", "learning_rate", message, {"learning_rate": fix})


def _rows(spec: TrainingSpec, schedule: Schedule, around: Surroundings) -> Iterator[SpecWarning]:
    batch, rows = effective_batch(spec), schedule.rows_train
    if rows is not None and batch > rows:
        message = f"A step takes {batch:,} rows, but only {rows:,} are trained on."
        size = min(spec.per_device_train_batch_size, max(1, rows))
        smaller = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 1}
        yield SpecWarning("batch_exceeds_rows", "per_device_train_batch_size", message, smaller)
    if schedule.epochs is not None and schedule.epochs > _MANY_PASSES:
        message = f"Each row is seen {schedule.epochs:.0f} times: the run learns these rows by heart."
        field = "max_steps" if spec.max_steps else "num_train_epochs"
        fix: dict[str, Any] = {"num_train_epochs": _SANE_PASSES} | ({"max_steps": None} if spec.max_steps else {})
        yield SpecWarning("few_rows", field, message, fix)
    if spec.eval_fraction == 0 or schedule.rows_eval == 0:
        message = "No rows are held out: nothing will tell learning from learning by heart."
        yield SpecWarning("no_eval", "eval_fraction", message, {"eval_fraction": 0.05})
    if around.positions is not None and spec.max_length > around.positions:
        message = f"The model was made for {around.positions:,} tokens; beyond them its answers fall apart."
        yield SpecWarning("max_length", "max_length", message, {"max_length": around.positions})


def _device(spec: TrainingSpec, around: Surroundings) -> Iterator[SpecWarning]:
    if spec.bf16 is not True or around.bf16 is not False:
        return
    what = "This card does not compute in bfloat16" if around.cuda else "Without a GPU bfloat16 is slower than float32"
    yield SpecWarning("bf16", "bf16", f"{what}.", {"bf16": "auto"})


def _disk(spec: TrainingSpec, around: Surroundings) -> Iterator[SpecWarning]:
    need, free = around.disk_needed_bytes, around.disk_free_bytes
    if need is None or free is None or need <= free:
        return
    message = f"Checkpoints, result and a merge take {need / GIB:.1f} GiB; {free / GIB:.1f} GiB are free."
    fewer = spec.save_total_limit > 1
    advice = "Keep fewer checkpoints, or make room." if fewer else "Make room, or move LORADECK_HOME to a larger disk."
    fix = {"save_total_limit": 1} if fewer else {}
    yield SpecWarning("disk", "save_total_limit", f"{message} {advice}", fix)


def fit_warnings(verdict: str | None, peak: int, capacity: int | None, values: Mapping[str, Any]) -> list[SpecWarning]:
    """Whether the peak fits into the memory there is; `values` would make it fit, or come nearest to it."""
    if capacity is None or verdict in (None, "fits"):
        return []
    figures = f"{peak / GIB:.1f} GiB are needed at the peak, {capacity / GIB:.1f} GiB are there"
    if verdict == "tight":
        message = f"It is tight: {figures}. Fragments or another process may tip it over."
        return [SpecWarning("tight", "per_device_train_batch_size", message, dict(values))]
    advice = "" if values else " No value of this form lowers it: take a smaller base model, or a larger card."
    message = f"It does not fit: {figures}.{advice}"
    return [SpecWarning("does_not_fit", "per_device_train_batch_size", message, dict(values))]


def target_warnings(target_modules: str | Sequence[str], linear_modules: Sequence[str]) -> list[SpecWarning]:
    """Adapters on attention alone, in a model that has other linear modules.

    Source: QLoRA (Dettmers et al., 2023), section 4: adapters on all linear layers are needed to match full training.
    """
    if isinstance(target_modules, str) or not target_modules:
        return []
    others = [name for name in linear_modules if not _ATTENTION.fullmatch(name)]
    if not others or not all(_ATTENTION.fullmatch(name) for name in target_modules):
        return []
    message = f"Attention alone is adapted; {', '.join(others)} stay as they are, which usually costs quality."
    return [SpecWarning("attention_only", "target_modules", message, {"target_modules": "all-linear"})]
