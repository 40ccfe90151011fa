"""The fields of a sweep and their values, as somebody types them; read without a database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from app.core.errors import InvalidInput
from app.core.strict_yaml import load_yaml

SWEEP_FIELD = "sweep"  # that faults of the sweep itself belong to

Axes = Mapping[str, Sequence[Any]]


def read_axes(text: str) -> Axes:
    """`field: value, value` on each line, or `field: [value, value]` as in YAML. Raises: InvalidInput on `sweep`."""
    axes: dict[str, Sequence[Any]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        field, separator, values = (part.strip() for part in line.partition(":"))
        if not separator or not values:
            raise InvalidInput(f"{line!r:.80} is not `field: value, value`.", field=SWEEP_FIELD)
        if field in axes:
            raise InvalidInput(f"{field} stands twice.", field=SWEEP_FIELD)
        axes[field] = _read_values(field, values)
    return axes


def _read_values(field: str, text: str) -> Sequence[Any]:
    try:
        parts = [text] if text.startswith("[") else [part for part in text.split(",") if part.strip()]
        found = [json.loads(json.dumps(load_yaml(part), default=str)) for part in parts]  # a date stays as it is typed
        return found[0] if text.startswith("[") else found
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        raise InvalidInput(f"{field}: {text!r:.80} cannot be read.", field=SWEEP_FIELD) from None
