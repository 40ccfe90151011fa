"""Presets are specs that can be trained."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import NotFound
from app.core.jobs.presets import PRESETS, Preset, baseline, find_preset, get_preset
from app.core.jobs.spec import TrainingSpec, parse_spec


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_preset_is_a_valid_spec_within_the_usual_ranges(preset: Preset) -> None:
    spec = parse_spec({"base_model": "tiny", "dataset": "small", **preset.values})
    assert spec.model_dump().items() >= dict(preset.values).items()
    assert spec.lora_alpha in (spec.r, 2 * spec.r)
    assert 0.05 <= spec.lora_dropout <= 0.1
    assert 1e-4 <= spec.learning_rate <= 3e-4
    assert spec.target_modules == "all-linear"


def test_ranks_grow_from_quick_to_best() -> None:
    ranks = [get_preset(key).values["r"] for key in ("quick-test", "balanced", "maximum-quality")]
    assert ranks == sorted(set(ranks))
    assert (ranks[0], 16 <= ranks[1] <= 32, 64 <= ranks[2] <= 128) == (8, True, True)


def test_consumer_gpu_saves_memory_wherever_a_spec_can() -> None:
    spec = parse_spec({"base_model": "tiny", "dataset": "small", **get_preset("consumer-gpu").values})
    assert (spec.method, spec.bnb_4bit_quant_type, spec.bnb_4bit_use_double_quant) == ("qlora", "nf4", True)
    assert (spec.optim, spec.gradient_checkpointing) == ("paged_adamw_8bit", True)
    assert (spec.per_device_train_batch_size, spec.gradient_accumulation_steps) == (1, 16)
    assert spec.r == 64


@pytest.mark.parametrize(
    ("preset", "method", "task", "expected"),
    [
        (None, "lora", "sft", {"learning_rate": 2e-4, "optim": "adamw_torch", "overlong_rows": "truncate"}),
        (None, "full", "dpo", {"learning_rate": 1e-6}),
        (None, "qlora", "text", {"optim": "paged_adamw_8bit", "overlong_rows": "split"}),
        ("quick-test", "lora", "sft", {"learning_rate": 3e-4, "r": 8}),
        ("quick-test", "full", "sft", {"learning_rate": 2e-5}),
        ("quick-test", "lora", "dpo", {"learning_rate": 5e-5, "max_steps": 30}),
        ("consumer-gpu", "qlora", "sft", {"optim": "paged_adamw_8bit", "max_grad_norm": 0.3}),
        ("consumer-gpu", "lora", "text", {"overlong_rows": "split", "r": 64}),
    ],
)
def test_a_form_starts_from_the_preset_then_from_what_method_and_task_want(
    preset: str | None, method: str, task: str, expected: dict[str, Any]
) -> None:
    start = baseline(find_preset(preset), method, task)
    assert {name: start[name] for name in expected} == expected
    assert set(start) == set(TrainingSpec.model_fields)


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        get_preset("fastest")
    assert "fastest" in caught.value.message
    assert all(preset.key in (caught.value.advice or "") for preset in PRESETS)
