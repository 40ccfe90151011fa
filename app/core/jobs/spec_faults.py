"""What is wrong with a spec, in our words: with one field, or with fields that cannot go together."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app.core.errors import Fault

if TYPE_CHECKING:
    from app.core.jobs.spec import TrainingSpec

_SHORT = reprlib.Repr()  # what was typed may be long, deep, or a YAML alias that grows a thousandfold when printed
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def combination_faults(spec: TrainingSpec) -> list[Fault]:
    """Fields that are right alone and cannot go together, each fault at the field to change."""
    orthogonal = spec.init_lora_weights == "orthogonal"
    targets = spec.target_modules if isinstance(spec.target_modules, list) else []
    both = [name for name in spec.modules_to_save if name in targets]
    odd = [rank for rank in spec.rank_pattern.values() if rank % 2]
    checks = [
        (orthogonal and spec.r % 2, "r", f"must be even for init_lora_weights: orthogonal (got {spec.r})"),
        (orthogonal and odd, "rank_pattern", f"must hold even ranks for init_lora_weights: orthogonal (got {odd})"),
        (both, "modules_to_save", f"also in target_modules: {', '.join(both)}; a module is trained whole or by LoRA"),
        (
            spec.early_stopping_patience is not None and not spec.eval_fraction,
            "early_stopping_patience",
            "needs an eval loss; set eval_fraction above 0",
        ),
    ]
    return [Fault(field, message) for wrong, field, message in checks if wrong]


def describe_fault(detail: Any, known: Iterable[str]) -> Fault:
    """One of pydantic's errors; `known` are the fields that there are."""
    field = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return Fault(field, "unknown field", advice=f"Known fields: {', '.join(known)}.")
    if detail["type"] == "missing":
        return Fault(field, "is required")
    return Fault(field, f"{detail['msg']} (got {_SHORT.repr(detail['input'])})")


def is_expression(name: Any) -> bool:
    """Whether it is a regular expression, and not an empty one."""
    try:
        re.compile(str(name))
    except re.error:
        return False
    return bool(name)
