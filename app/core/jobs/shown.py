"""A spec's values as people read and type them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LINES = frozenset({"sample_prompts"})  # fields that are typed one value a line


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


def show_lines(texts: Any) -> str:
    """Texts one a line, as `read_lines` takes them back; what was typed stays as it is."""
    if not isinstance(texts, list):
        return show(texts)
    return "\n".join(str(text).replace("\\", "\\\\").replace("\n", "\\n") for text in texts)


def read_lines(typed: str) -> list[str]:
    """Texts that were typed one a line; `\\n` is a line break within one."""
    lines = (re.sub(r"\\(.)", _unescape, line.strip()) for line in typed.splitlines())
    return [line for line in lines if line.strip()]


def _unescape(escape: re.Match[str]) -> str:
    return {"n": "\n", "\\": "\\"}.get(escape[1], escape[0])


def show_field(name: str, value: Any) -> str:
    """A spec's field by its name: prompts hold commas, so they stand on lines of their own."""
    return show_lines(value) if name in LINES else show(value)


def typed(values: Mapping[str, Any]) -> dict[str, str]:
    """What to type into the form's fields, by name."""
    return {name: show_field(name, value) for name, value in values.items()}


def in_words(values: Mapping[str, Any]) -> str:
    """As a job YAML has them, in one line."""
    return ", ".join(f"{name}: {'null' if value is None else show(value)}" for name, value in values.items())
