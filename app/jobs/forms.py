"""The new-job form, generated from TrainingSpec: its fields, bounds, help and defaults have no other source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from fastapi import Request
from pydantic.fields import FieldInfo

from app.core.errors import Fault, InvalidInput
from app.core.jobs.advice import SpecWarning, target_warnings
from app.core.jobs.presets import PRESETS, Preset, get_preset
from app.core.jobs.spec import TrainingSpec

NAME = "name"  # of the job; not a field of the spec
PRESET = "preset"  # key of the preset that the form started from; not a field of the spec
_SWITCH = {"true": "on", "false": "off"}


@dataclass(frozen=True, slots=True)
class FormField:
    """One field as the template shows it. `choices` is {value: label}; None stands for a text input."""

    name: str
    label: str
    help: str
    group: str
    value: str
    choices: Mapping[str, str] | None
    numeric: bool
    baseline: str  # the preset's value, else the spec's default
    errors: Sequence[str] = ()

    @property
    def changed(self) -> bool:
        """Whether the value is another than the preset's or the default."""
        return self.value != self.baseline


@dataclass(frozen=True, slots=True)
class JobForm:
    """The whole form: fields by group, the job's name and preset, and what is wrong with none of the fields."""

    name: str
    preset: Preset | None
    groups: Mapping[str, Sequence[FormField]]
    errors: Sequence[str] = ()
    advanced_changed: int = 0


@dataclass(frozen=True, slots=True)
class Targets:
    """What LoRA can target in the chosen model, and what is doubtful about the choice made."""

    modules: Sequence[str]
    warnings: Sequence[SpecWarning]


def describe_targets(linear_modules: Sequence[str], typed: Any) -> Targets:
    """`typed` is the field's value: text as typed, or a list."""
    chosen = _parse("target_modules", typed.strip()) if isinstance(typed, str) else typed
    return Targets(linear_modules, target_warnings(chosen, linear_modules))


async def read_form(request: Request) -> dict[str, str]:
    """The posted text fields, as typed. (Async, since the body is read; handlers depend on it and stay `def`.)"""
    async with request.form(max_files=0, max_fields=200) as form:
        return {key: value for key, value in form.items() if isinstance(value, str)}


def build_form(
    models: Iterable[str],
    datasets: Iterable[str],
    values: Mapping[str, Any],
    faults: Sequence[Fault] = (),
) -> JobForm:
    """The form with `values` in it (a spec's, or what was typed), each fault beside its field.

    `values` may name the preset that they started from. Raises: NotFound for a preset that there is not.
    """
    registered = {"base_model": list(models), "dataset": list(datasets)}
    preset = get_preset(str(values[PRESET])) if values.get(PRESET) else None
    baselines = preset.values if preset else {}
    groups: dict[str, list[FormField]] = {}
    for name, info in TrainingSpec.model_fields.items():
        errors = [_sentence(fault) for fault in faults if fault.field == name]
        baseline = baselines.get(name, _default(info))
        value = values.get(name, baseline)
        field = _build_field(name, info, (value, baseline), registered.get(name), errors)
        groups.setdefault(field.group, []).append(field)
    elsewhere = [_placed(fault) for fault in faults if fault.field not in TrainingSpec.model_fields]
    changed = sum(field.changed for field in groups["advanced"])
    return JobForm(str(values.get(NAME, "")), preset, groups, elsewhere, changed)


def start_from_preset(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the preset's in place of every value that presets decide. Raises: NotFound."""
    decided = {name for preset in PRESETS for name in preset.values}
    kept = {name: value for name, value in values.items() if name not in decided}
    return {**kept, **get_preset(key).values, PRESET: key}


def parse_form(typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed as a spec's values, not yet checked."""
    values = {name: value.strip() for name, value in typed.items() if name not in (NAME, PRESET)}
    return {name: _parse(name, value) for name, value in values.items()}


def all_faults(error: InvalidInput) -> Sequence[Fault]:
    """The error's faults, without the repeats that a field of several types brings."""
    return list(dict.fromkeys(error.faults))


def _build_field(
    name: str, info: FieldInfo, values: tuple[Any, Any], registered: list[str] | None, errors: Sequence[str]
) -> FormField:
    """One field from its value and its baseline."""
    shown, baseline = _show(values[0]), _show(values[1])
    if registered is not None:
        baseline = shown  # which model and which data is a choice, not a change
    choices = _choices(info) if registered is None else {each: each for each in registered}
    if choices is not None and shown and shown not in choices:
        choices = {**choices, shown: shown}
    extra = info.json_schema_extra
    place = extra if isinstance(extra, dict) else {}
    group = "advanced" if place["advanced"] else str(place["group"])
    group = group if group in ("model", "method", "advanced") else "basics"
    numeric = bool({int, float} & set(_types(info)))
    help_text = (info.description or "").replace("`", "")
    return FormField(name, info.title or name, help_text, group, shown, choices, numeric, baseline, errors)


def _choices(info: FieldInfo) -> dict[str, str] | None:
    """The values of a closed field, else None."""
    types = _types(info)
    if bool in types:
        return {"auto": "auto", **_SWITCH} if len(types) > 1 else dict(_SWITCH)
    if all(get_origin(each) is Literal for each in types):
        return {value: value for each in types for value in get_args(each)}
    return None


def _types(info: FieldInfo) -> tuple[Any, ...]:
    """The members of a union, else the type alone; without None."""
    annotation = info.annotation
    members = get_args(annotation) if get_origin(annotation) not in (None, Literal, list, dict) else (annotation,)
    return tuple(member for member in members if member is not NoneType)


def _default(info: FieldInfo) -> Any:
    return "" if info.is_required() else info.default


def _show(value: Any) -> str:
    """A value as the form shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_show(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parse(name: str, typed: str) -> Any:
    """Typed text as a value that TrainingSpec can validate."""
    info = TrainingSpec.model_fields.get(name)
    if info is None:
        return typed
    if typed == "" and NoneType in get_args(info.annotation):
        return None
    if list[str] in _types(info) and typed != "all-linear":
        return [part.strip() for part in typed.split(",") if part.strip()]
    if get_origin(info.annotation) is dict:
        return _parse_pairs(typed)
    return typed


def _parse_pairs(typed: str) -> Any:
    """`name: number, name: number` as a mapping; what is not of this form stays as typed, to be refused."""
    pairs = [part.rpartition(":") for part in typed.split(",") if part.strip()]
    if not all(name.strip() for name, _, _ in pairs):
        return typed
    return {name.strip(): number.strip() for name, _, number in pairs}


def _placed(fault: Fault) -> str:
    return f"{fault.field}: {_sentence(fault)}" if fault.field else _sentence(fault)


def _sentence(fault: Fault) -> str:
    return f"{fault.message}. {fault.advice}" if fault.advice else fault.message
