"""One field of the new-job form: made from TrainingSpec's, shown as text, and read back from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from app.core.jobs.shown import LINES, read_lines, show_field
from app.core.jobs.spec import TrainingSpec

START = "init_adapter"
_NEW = "none: a new adapter"
_SWITCH = {"true": "on", "false": "off"}


@dataclass(frozen=True, slots=True)
class FormField:
    """One field as the template shows it. `choices` is {value: label}; None stands for a text input."""

    name: str
    label: str
    help: str
    group: str
    advanced: bool
    value: str
    choices: Mapping[str, str] | None
    numeric: bool
    baseline: str  # what the field holds unless someone changes it
    errors: Sequence[str] = ()
    decided: bool = False  # by the adapter that the training starts from: it cannot be changed here

    @property
    def lines(self) -> bool:
        """Whether several lines are typed."""
        return self.name in LINES

    @property
    def changed(self) -> bool:
        """Whether the value is another than the one that the form starts from."""
        return self.value != self.baseline


def make_field(
    name: str,
    values: tuple[Any, Any],
    registered: Mapping[str, str] | None,
    errors: Sequence[str],
    *,
    decided: bool = False,
) -> FormField:
    """The field from its value and its baseline; `registered` is {name: label} where it names something of here."""
    info = TrainingSpec.model_fields[name]
    shown, baseline = show_field(name, values[0]), show_field(name, values[1])
    if registered is not None:
        baseline = shown  # which model and which data is a choice, not a change
    choices = _choices(info) if registered is None else {"": _NEW, **registered} if name == START else registered
    if choices is not None and shown and shown not in choices:
        choices = {**choices, shown: shown}
    if choices is not None and decided:
        choices = {shown: choices[shown]}
    place = place_of(name)
    numeric = bool({int, float} & set(_types(info)))
    help_text = (info.description or "").replace("`", "")
    title, group, advanced = info.title or name, place["group"], place["advanced"]
    return FormField(name, title, help_text, group, advanced, shown, choices, numeric, baseline, errors, decided)


def place_of(name: str) -> dict[str, Any]:
    """{group, advanced, methods, tasks}: where the form shows the field, and for which methods and tasks."""
    extra = TrainingSpec.model_fields[name].json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def applies(name: str, method: str, task: str) -> bool:
    """Whether the field means anything for this method and task."""
    place = place_of(name)
    return all(not place[key] or chosen in place[key] for key, chosen in (("methods", method), ("tasks", task)))


def parse(name: str, typed: str) -> Any:
    """Typed text as a value that TrainingSpec can validate."""
    info = TrainingSpec.model_fields.get(name)
    if info is None:
        return typed
    if typed == "" and NoneType in get_args(info.annotation):
        return None
    if name in LINES:
        return read_lines(typed)
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
