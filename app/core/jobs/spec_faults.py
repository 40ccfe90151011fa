"""What is wrong with a spec, in our words: with one field, or with fields that cannot go together."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from app.core.errors import Fault

if TYPE_CHECKING:
    from app.core.jobs.spec import TrainingSpec

_SHORT = reprlib.Repr()  # what was typed may be long, deep, or a YAML alias that grows a thousandfold when printed
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80

_LORA_DEFAULTS: dict[str, Any] = {  # what `method: full` has no use for; a value other than these is refused
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": "default",
    "bias": "none",
    "modules_to_save": [],
    "rank_pattern": {},
    "alpha_pattern": {},
    "init_adapter": None,
}


_SHORT_NAMES = {  # what fields are called for short, here and in other trainers
    "lr": "learning_rate",
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "max_seq_length": "max_length",
}


def likely_field(name: str, fields: Iterable[str]) -> str | None:
    """The field that was probably meant by a name that is none; None where nothing is alike."""
    if name in _SHORT_NAMES:
        return _SHORT_NAMES[name]
    return next(iter(get_close_matches(name, fields, 1)), None)


def combination_faults(spec: TrainingSpec) -> list[Fault]:
    """Fields that are right alone and cannot go together, each fault at the field to change."""
    quantised, full = spec.method == "qlora", spec.method == "full"
    lora_only = [name for name, value in _LORA_DEFAULTS.items() if full and getattr(spec, name) != value]
    orthogonal = spec.init_lora_weights == "orthogonal"
    targets = spec.target_modules if isinstance(spec.target_modules, list) else []
    both = [name for name in spec.modules_to_save if name in targets]
    odd = [rank for rank in spec.rank_pattern.values() if rank % 2]
    checks = [
        (orthogonal and spec.r % 2, "r", f"must be even for init_lora_weights: orthogonal (got {spec.r})"),
        (orthogonal and odd, "rank_pattern", f"must hold even ranks for init_lora_weights: orthogonal (got {odd})"),
        (
            spec.init_adapter is not None and spec.init_lora_weights != "default",
            "init_lora_weights",
            "is for a new adapter; with init_adapter use default",
        ),
        (both, "modules_to_save", f"also in target_modules: {', '.join(both)}; a module is trained whole or by LoRA"),
        (
            spec.early_stopping_patience is not None and not spec.eval_fraction,
            "early_stopping_patience",
            "needs an eval loss; set eval_fraction above 0",
        ),
        (spec.load_in_8bit and not quantised, "load_in_8bit", "needs `method: qlora`"),
        (
            spec.use_dora and spec.load_in_8bit and quantised,
            "use_dora",
            "peft computes DoRA beside weights of 4 bits and not of 8; leave one of the two out",
        ),
        (
            quantised and spec.init_lora_weights.startswith(("pissa", "olora")),
            "init_lora_weights",
            "starts from the weights themselves, which `method: qlora` holds quantised; use default",
        ),
        (spec.packing and spec.task == "dpo", "packing", "pairs cannot be packed; turn it off for `task: dpo`"),
        (
            spec.overlong_rows == "split" and spec.task != "text",
            "overlong_rows",
            "only plain text (`task: text`) can be split; use truncate or drop",
        ),
        *((True, name, "belongs to LoRA; `method: full` trains every weight") for name in lora_only),
    ]
    return [Fault(field, message) for wrong, field, message in checks if wrong]


def describe_faults(details: Iterable[Any], fields: Mapping[str, FieldInfo]) -> list[Fault]:
    """Pydantic's errors, one fault for each wrong value: the types that it could have had are one message."""
    of_field: dict[str, list[Any]] = {}
    for detail in details:
        of_field.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    faults = (_faults_of(field, found, fields) for field, found in of_field.items())
    return [fault for found in faults for fault in found]


def _faults_of(field: str, details: list[Any], fields: Mapping[str, FieldInfo]) -> Iterator[Fault]:
    """`details` are one field's. What is wrong inside a list says more than that the field could have been a word."""
    if details[0]["type"] == "extra_forbidden":
        meant = likely_field(field, fields)
        known = f"Did you mean {meant}?" if meant else f"Known fields: {', '.join(fields)}."
        yield Fault(field, "unknown field", advice=known)
        return
    if details[0]["type"] == "missing":
        yield Fault(field, "is required")
        return
    deepest = max(len(detail["loc"]) for detail in details)
    skipped = 2 if field in fields and _has_alternatives(fields[field]) else 1  # which type was tried is no place
    of_place: dict[tuple[Any, ...], list[Any]] = {}
    for detail in details:
        if len(detail["loc"]) == deepest:
            of_place.setdefault(tuple(detail["loc"][skipped:]), []).append(detail)
    for place, found in of_place.items():
        where = f"{place[0]}: " if place and isinstance(place[0], str) else ""
        rest = "".join(f" or {detail['msg'].removeprefix('Input should be ')}" for detail in found[1:])
        yield Fault(field, f"{where}{found[0]['msg']}{rest} (got {_SHORT.repr(found[0]['input'])})")


def _has_alternatives(info: FieldInfo) -> bool:
    """Whether the field takes values of several types; empty is none."""
    return len([member for member in get_args(info.annotation) if member is not NoneType]) > 1 and (
        get_origin(info.annotation) in (Union, UnionType)
    )


def is_expression(name: Any) -> bool:
    """Whether it is a regular expression, and not an empty one."""
    try:
        re.compile(str(name))
    except (re.error, OverflowError, RecursionError):
        return False
    return bool(name)
