"""docs/jobs.md says what the code does: every field, every preset, every default of a method or a task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from app.core.jobs.presets import PRESETS
from app.core.jobs.spec import METHOD_DEFAULTS, TASK_DEFAULTS, TrainingSpec

DOCS = Path(__file__).parents[3] / "docs" / "jobs.md"


def _written(value: Any) -> str:
    """A value as YAML has it."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _pairs(values: Any) -> str:
    return ", ".join(f"`{name}: {_written(value)}`" for name, value in values.items())


def field_rows() -> Iterator[str]:
    """A row of the table of fields each."""
    for name, info in TrainingSpec.model_fields.items():
        place: Any = info.json_schema_extra
        default = "required" if info.is_required() else f"`{_written(info.default)}`"
        applies = ", ".join(f"`{each}`" for each in (*place["methods"], *place["tasks"])) or "all"
        yield f"| `{name}` | {default} | {applies} | {info.description} |"


def preset_rows() -> Iterator[str]:
    """A row of the table of presets each."""
    for preset in PRESETS:
        yield f"| {preset.name} | {preset.when} | {_pairs(preset.values)} |"


def test_every_field_and_preset_is_documented_as_it_is() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert [row for row in (*field_rows(), *preset_rows()) if row not in lines] == []


def test_defaults_of_methods_and_tasks_are_documented_as_they_are() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, table in (("method", METHOD_DEFAULTS), ("task", TASK_DEFAULTS)):
        for name, values in table.items():
            assert f"| `{key}: {name}` | {_pairs(values)} |" in text
