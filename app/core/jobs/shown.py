"""A spec's values as people read and type them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def show(value: Any) -> str:
    """As the form shows it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {show(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def typed(values: Mapping[str, Any]) -> dict[str, str]:
    """What to type into the form's fields, by name."""
    return {name: show(value) for name, value in values.items()}


def in_words(values: Mapping[str, Any]) -> str:
    """As a job YAML has them, in one line."""
    return ", ".join(f"{name}: {'null' if value is None else show(value)}" for name, value in values.items())
