"""Which values bring a job's peak down to what there is."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.planning.config import load_config
from app.core.planning.mending import find_values_that_fit
from app.core.planning.plan import Box, Plan, make_plan
from tests.core.planning.conftest import CONFIGS

GIB = 1 << 30


def plan(card_gib: int, **values: Any) -> Plan:
    spec = parse_spec({"base_model": "m", "dataset": "d", **values})
    return make_plan(load_config(CONFIGS / "llama-3-8b.json"), spec, Box(vram_bytes=card_gib * GIB))


@pytest.mark.parametrize(
    ("card_gib", "values", "fields"),
    [
        (24, {"max_length": 2048}, {"per_device_train_batch_size", "gradient_accumulation_steps"}),
        (12, {}, {"per_device_train_batch_size", "gradient_accumulation_steps", "method"}),
        (16, {"method": "full"}, {"method", "learning_rate"}),
        (24, {"gradient_checkpointing": False}, {"gradient_checkpointing"}),
    ],
)
def test_the_fix_fits_at_the_same_effective_batch(card_gib: int, values: dict[str, Any], fields: set[str]) -> None:
    before = plan(card_gib, **values)
    fix = before.warnings[0].fix
    assert before.warnings[0].code in ("does_not_fit", "tight")
    assert set(fix) == fields
    assert plan(card_gib, **{**values, **fix}).verdict == "fits"
    assert fix.get("per_device_train_batch_size", 4) * fix.get("gradient_accumulation_steps", 1) == 4


def test_where_nothing_fits_the_fix_comes_nearest() -> None:
    before = plan(1)
    after = plan(1, **before.warnings[0].fix)
    assert after.verdict == "does not fit"
    assert before.peak_bytes is not None
    assert after.peak_bytes is not None
    assert after.peak_bytes < before.peak_bytes / 2


def test_a_change_that_takes_no_less_or_cannot_be_is_left_out() -> None:
    spec = parse_spec({"base_model": "m", "dataset": "d", "init_lora_weights": "pissa", "max_length": 128})
    tried: list[TrainingSpec] = []

    def peak(changed: TrainingSpec) -> int:
        tried.append(changed)
        return 100 if changed.max_length == 128 else 40

    assert find_values_that_fit(spec, 100, 50, peak) == {"max_length": 64}
    assert {each.method for each in tried} == {"lora"}, "PiSSA starts from weights that QLoRA does not hold"


@pytest.mark.parametrize("largest", [1, 2, 5, 16, 64])
def test_of_several_batches_the_largest_that_fits_is_chosen_without_trying_them_all(largest: int) -> None:
    spec = parse_spec({"base_model": "m", "dataset": "d", "per_device_train_batch_size": 128})
    tried: list[int] = []

    def peak(changed: TrainingSpec) -> int:
        tried.append(changed.per_device_train_batch_size)
        return changed.per_device_train_batch_size

    fix = find_values_that_fit(spec, 128, largest, peak)
    size = 4 if largest == 5 else largest
    assert fix == {"per_device_train_batch_size": size, "gradient_accumulation_steps": 128 // size}
    assert len(tried) <= 4, "of seven halves"
