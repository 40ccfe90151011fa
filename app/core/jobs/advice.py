"""What can be trained and is probably not meant: warnings, each with the change that mends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.submit import KIND_OF_TASK

# Leaf names of attention's projections in the architectures that transformers loads.
_ATTENTION = re.compile(r"(q|k|v|o|qkv|kv|q_a|q_b|kv_a|kv_b|out|in)_proj(_with_mqa)?|c_attn|query_key_value|W?qkv")


@dataclass(frozen=True, slots=True)
class SpecWarning:
    """A warning about a field: what it costs, and the values that would mend it."""

    code: str
    field: str
    message: str
    fix: dict[str, Any]


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


def dataset_warnings(dataset: Dataset, task: str) -> list[SpecWarning]:
    """A dataset whose rows are not what the task learns from, as far as they are known already."""
    wanted = KIND_OF_TASK.get(task)
    if wanted is None or dataset.kind == wanted or dataset.status == DatasetStatus.IMPORTING:
        return []
    fitting = next(each for each, kind in KIND_OF_TASK.items() if kind == dataset.kind)
    message = f"{dataset.name} holds {dataset.kind} rows; the task {task} learns from {wanted} rows."
    return [SpecWarning("dataset_kind", "dataset", message, {"task": fitting})]
