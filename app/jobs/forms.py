"""The new-job form, generated from TrainingSpec: its fields, bounds, help and defaults have no other source.

It shows the fields that apply to the chosen method and task. What is not shown is not posted, so that its default
holds; a value of another method's or task's field waits in `kept`, should one go back to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from app.core.errors import Fault
from app.core.jobs.presets import PRESETS, Preset, baseline, find_preset, get_preset
from app.core.jobs.shown import show_field
from app.core.jobs.spec import TASK_DEFAULTS, TrainingSpec
from app.core.jobs.sweep import Variant, expand
from app.core.jobs.sweep_axes import read_axes
from app.jobs.fields import START, FormField, applies, make_field, parse

NAME = "name"  # of the job; not a field of the spec
PRESET = "preset"  # key of the preset that the form started from; not a field of the spec
SHOWN_FOR = "shown_for"  # the method and the task whose fields the form showed, as `lora sft`
CARD = "vram_gb"  # the size of a card to hold the plan against, in GiB; not a field of the spec
SWEEP = "sweep"  # fields and their values, one field a line: a job for each combination; not a field of the spec
KEPT = "kept."  # before the name of a field that was not shown
GROUPS = {
    "model": "Model and data",
    "method": "Method and task",
    "lora": "LoRA adapter",
    "quantisation": "Quantised base model",
    "preference": "Preferences",
    "rows": "Rows",
    "optimizer": "Optimizer and schedule",
    "logging": "Logging and saving",
}
_REFERENCES = ("base_model", "dataset")


@dataclass(slots=True)
class FormGroup:
    """Fields of one subject: those that are always in sight, and those that are folded."""

    legend: str
    fields: list[FormField] = field(default_factory=list)
    folded: list[FormField] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many folded fields hold another value than the form starts from."""
        return sum(each.changed for each in self.folded)

    @property
    def broken(self) -> bool:
        """Whether something is wrong among the folded fields."""
        return any(each.errors for each in self.folded)


@dataclass(frozen=True, slots=True)
class JobForm:
    """The whole form: fields by group, the job's name and preset, and what is wrong with none of the fields."""

    name: str
    preset: Preset | None
    groups: Sequence[FormGroup]
    shown_for: str
    kept: Mapping[str, str]
    errors: Sequence[str] = ()
    sweep: str = ""
    sweep_errors: Sequence[str] = ()

    @property
    def changed(self) -> int:
        """How many of the fields that are shown hold another value than the form starts from."""
        return sum(each.changed for each in self.fields.values())

    @property
    def fields(self) -> dict[str, FormField]:
        """Every field that is shown, by name."""
        return {each.name: each for group in self.groups for each in (*group.fields, *group.folded)}


def build_form(
    models: Mapping[str, str],
    datasets: Mapping[str, str],
    values: Mapping[str, Any],
    faults: Sequence[Fault] = (),
    of_model: Mapping[str, Any] = MappingProxyType({}),
    adapters: Mapping[str, str] = MappingProxyType({}),
    decided: Mapping[str, Any] = MappingProxyType({}),
) -> JobForm:
    """The form with `values` in it (a spec's, or what was typed), each fault beside its field.

    `models`, `datasets` and `adapters` (that a training may start from) are {name: label}. `values` may name the preset
    that they started from. `of_model` are defaults that the chosen model wants. `decided` is what the chosen adapter
    decides, whatever `values` hold. Raises: NotFound for a preset that there is not.
    """
    registered = dict(zip((*_REFERENCES, START), (models, datasets, adapters), strict=True))
    preset = find_preset(values.get(PRESET))
    method, task = _chosen(values)
    start = {**baseline(preset, method, task), **of_model, **decided}
    values = {**values, **decided}
    groups = {key: FormGroup(legend) for key, legend in GROUPS.items()}
    kept: dict[str, str] = {}
    for name in TrainingSpec.model_fields:
        value = values.get(name, start[name])
        if applies(name, method, task):
            errors = [_sentence(fault) for fault in faults if fault.field == name]
            made = make_field(name, (value, start[name]), registered.get(name), errors, decided=name in decided)
            group = groups[made.group]
            (group.folded if made.advanced else group.fields).append(made)
        elif show_field(name, value) != show_field(name, start[name]):
            kept[KEPT + name] = show_field(name, value)
    filled = [group for group in groups.values() if group.fields or group.folded]
    form = JobForm(str(values.get(NAME, "")), preset, filled, f"{method} {task}", kept)
    elsewhere = [_placed(fault) for fault in faults if fault.field not in (SWEEP, *form.fields)]
    of_sweep = [_sentence(fault) for fault in faults if fault.field == SWEEP]
    return replace(form, errors=elsewhere, sweep=str(values.get(SWEEP, "")), sweep_errors=of_sweep)


def start_from_preset(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the preset's in place of every value that presets decide; the task's go before the preset's.

    Raises: NotFound.
    """
    decided = {name for preset in PRESETS for name in preset.values}
    rest = {name: value for name, value in values.items() if name not in decided}
    of_task = TASK_DEFAULTS.get(_chosen(values)[1], {})
    of_preset = {name: value for name, value in get_preset(key).values.items() if name not in of_task}
    return {**rest, **of_preset, PRESET: key}


def follow_choice(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, without the values that nobody changed: those follow the method and the task chosen now.

    Values that an earlier choice of method or task had no use for come back.
    """
    shown_for = str(typed.get(SHOWN_FOR, ""))
    if not shown_for:
        return dict(typed)
    method, _, task = shown_for.partition(" ")
    start = baseline(find_preset(typed.get(PRESET)), method, task)
    chosen = (*_REFERENCES, "method", "task")
    kept = {name.removeprefix(KEPT): value for name, value in typed.items() if name.startswith(KEPT)}
    mine = {
        name: value
        for name, value in typed.items()
        if name in chosen or name not in start or str(value).strip() != show_field(name, start[name])
    }
    return {**kept, **{name: value for name, value in mine.items() if not name.startswith(KEPT)}}


def choice_moved_on(typed: Mapping[str, str]) -> bool:
    """Whether method or task were changed after the form showed its fields (as happens without JavaScript)."""
    return typed.get(SHOWN_FOR, "") not in ("", " ".join(_chosen(typed)))


def parse_form(typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed as a spec's values, not yet checked."""
    own = (NAME, PRESET, SHOWN_FOR, CARD, SWEEP)
    posted = {name: text.strip() for name, text in typed.items() if name not in own and not name.startswith(KEPT)}
    return {name: parse(name, text) for name, text in posted.items()}


def expand_form(typed: Mapping[str, str]) -> list[Variant]:
    """The jobs of the sweep that stands in the form. Raises: InvalidInput on `sweep`."""
    return expand(parse_form(typed), read_axes(typed.get(SWEEP, "")))


def _chosen(values: Mapping[str, Any]) -> tuple[str, str]:
    """Method and task; the spec's defaults where none is given."""
    fields = TrainingSpec.model_fields
    method, task = (str(values.get(name) or fields[name].default) for name in ("method", "task"))
    return method, task


def _placed(fault: Fault) -> str:
    return f"{fault.field}: {_sentence(fault)}" if fault.field else _sentence(fault)


def _sentence(fault: Fault) -> str:
    """As on the command line, without the marks of code, which a page would show as they are."""
    return (f"{fault.message}. {fault.advice}" if fault.advice else fault.message).replace("`", "")
